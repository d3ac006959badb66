import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** The checkout that these compiled tests belong to. */
export function repositoryRoot(): string {
  for (let directory = import.meta.dirname; directory !== dirname(directory); directory = dirname(directory)) {
    if (existsSync(join(directory, 'docs/CONFIG.md'))) return directory;
  }
  throw new Error('the tests lie outside of the checkout');
}

/** Cells of the Markdown table whose header begins with `first`; backquotes are taken off. */
export function tableRows(markdown: string, first: string): string[][] {
  const lines = markdown.split('\n');
  const start = lines.findIndex((line) => line.startsWith(`| ${first} |`));
  const end = lines.findIndex((line, i) => i > start && !line.startsWith('|'));
  return lines.slice(start + 2, end).map((line) => line.split('|').slice(1, -1).map((cell) => cell.trim()));
}
