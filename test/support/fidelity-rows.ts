/** The table of docs/FIDELITY.md. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Attribute, Keeper } from '../../src/runtime/fidelity/index.ts';
import { repositoryRoot } from '../config/repository-root.ts';

function keeping(keeper: Keeper, { afterwards, noted, untold, instead, finding }: Attribute): string {
  if (keeper === 'lost') return `lost, said before as \`${finding}\``;
  const words = { kept: 'kept by CRIU', 'put-back': 'put back by Stasis' }[keeper];
  if (afterwards) return `${words} when criu has ended`;
  if (untold) return `${words}; ${instead ?? 'not compared, the kernel tells only the process itself'}`;
  return noted ? `${words}; a node's own value is no error` : words;
}

export function fidelityRow(attribute: Attribute, keeper: Keeper): string {
  return `| \`${attribute.name}\` | ${attribute.meaning} | ${keeping(keeper, attribute)} |`;
}

export function fidelityRows(): string[] {
  return readFileSync(join(repositoryRoot(), 'docs/FIDELITY.md'), 'utf8').split('\n').filter((line) => line.startsWith('| `'));
}
