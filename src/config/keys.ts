/** The keys of the schema as a flat list: "listen.tls.cert" and what follows from it. */
import * as v from 'valibot';
import { schema } from './schema.ts';

export interface Key {
  /** Dotted, as in messages: "staging.size". */
  readonly name: string;
  readonly path: readonly string[];
  /** "STASIS_STAGING_SIZE". */
  readonly env: string;
  /** "staging-size", without the dashes in front. */
  readonly flag: string;
  readonly meaning: string;
  readonly fallback: unknown;
}

interface Node {
  readonly type: string;
  readonly wrapped?: Node;
  readonly entries?: Readonly<Record<string, Node>>;
  readonly pipe?: readonly Node[];
  readonly default?: unknown;
}

function words(path: readonly string[]): string[] {
  return path.flatMap((part) => part.replaceAll(/[A-Z]/g, ' $&').split(' '));
}

function walk(node: Node, path: readonly string[]): Key[] {
  const entries = node.entries ?? node.wrapped?.entries;
  if (entries !== undefined) return Object.entries(entries).flatMap(([name, child]) => walk(child, [...path, name]));
  return [{
    name: path.join('.'),
    path,
    env: ['STASIS', ...words(path)].join('_').toUpperCase(),
    flag: words(path).join('-').toLowerCase(),
    meaning: v.getDescription(node as never) ?? '',
    fallback: node.pipe?.[0]?.default,
  }];
}

export const keys: readonly Key[] = walk(schema, []);

/** Names of the environment that belong to the command line, not to the agent. */
export const clientVariables = ['STASIS_CONFIG', 'STASIS_ADDRESS', 'STASIS_TLS_CERT', 'STASIS_TLS_KEY', 'STASIS_TLS_CA', 'STASIS_TLS_SERVER_NAME'] as const;

/** The known name nearest to a mistyped one, when it is near enough to be meant. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const limit = Math.max(2, Math.floor(name.length / 3));
  const [best] = known.map((candidate) => ({ candidate, distance: distance(name.toLowerCase(), candidate.toLowerCase()) })).sort((a, b) => a.distance - b.distance);
  return best !== undefined && best.distance <= limit ? best.candidate : undefined;
}

/** Levenshtein distance, one row at a time. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
