/** The command line, called as a user calls it: its progress bar on this terminal, its result as an object. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';

export interface Phase {
  readonly name: string;
  readonly ms: number;
}

export interface CheckpointFigures {
  readonly checkpoint: string;
  readonly phases: readonly Phase[];
  readonly frozen_ms: number;
  readonly total_ms: number;
  readonly bytes: { readonly raw: number; readonly zero: number; readonly reused: number; readonly stored: number };
  readonly ratio: number;
  readonly bytes_per_second: number;
  readonly memory_path: string;
}

export interface RestoreFigures {
  readonly container: string;
  readonly bundle: string;
  readonly pid: number;
  readonly phases: readonly Phase[];
  readonly total_ms: number;
  readonly bytes: number;
  readonly bytes_per_second: number;
  readonly downtime_ms?: number;
}

let operations = 0;

export function checkpoint(container: string, flags: readonly string[]): Promise<CheckpointFigures> {
  return follow<CheckpointFigures>(['checkpoint', ...flags, container]);
}

export function restore(id: string, flags: readonly string[]): Promise<RestoreFigures> {
  return follow<RestoreFigures>(['restore', ...flags, id]);
}

/** Runs the command with its talk on this terminal, then asks for the outcome of the same operation as JSON. */
async function follow<T>(args: readonly string[]): Promise<T> {
  operations += 1;
  const named = [...args, '--operation-id', `demo-${process.pid}-${operations}`];
  await stasis(named, 'inherit');
  const lines = (await stasis([...named, '--json'], 'pipe')).trim().split('\n');
  const result = lines.map((line) => JSON.parse(line) as { readonly type: string }).find(({ type }) => type === 'result');
  if (result === undefined) throw new Error(`stasis ${args[0] ?? ''} printed no result`);
  return result as T;
}

/** What the command prints on stdout. Throws what it says on stderr, or its status, when it fails. */
export async function stasis(args: readonly string[], talk: 'inherit' | 'pipe'): Promise<string> {
  const child = spawn('stasis', args, { stdio: ['ignore', 'pipe', talk] });
  const said = child.stderr === null ? Promise.resolve('') : text(child.stderr);
  const [output, words, [status]] = await Promise.all([text(child.stdout!), said, once(child, 'close') as Promise<[number]>]);
  if (status !== 0) throw new Error(`stasis ${args.join(' ')} ended with status ${status} ${words}`.trimEnd());
  return output;
}
