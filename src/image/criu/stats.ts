/** stats-dump and stats-restore, which CRIU leaves in its work directory (images/stats.proto). All times are microseconds. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoCode } from '../../core/errors.ts';
import { singleEntry } from './framing.ts';
import { WireReader } from './wire.ts';

/** The shape of the runtime room's DumpStats. */
export interface CriuDumpStats {
  readonly freezingUs: number;
  /** From the freeze to the thaw; wraps at 71.6 minutes. */
  readonly frozenUs: number;
  readonly memdumpUs: number;
  readonly memwriteUs: number;
  readonly pagesScanned: number;
  readonly pagesWritten: number;
  readonly pagesLazy: number;
}

export interface CriuRestoreStats {
  readonly forkingUs: number;
  readonly restoreUs: number;
  readonly pagesRestored: number;
}

/** Undefined when CRIU did not come so far as to write it. Private and shared pages are counted together. */
export async function readDumpStats(workDir: string): Promise<CriuDumpStats | undefined> {
  const at = await readStats(join(workDir, 'stats-dump'), 1);
  if (at === undefined) return undefined;
  return {
    freezingUs: at(1),
    frozenUs: at(2),
    memdumpUs: at(3),
    memwriteUs: at(4),
    pagesScanned: at(5) + at(12),
    pagesWritten: at(7) + at(14),
    pagesLazy: at(9),
  };
}

export async function readRestoreStats(workDir: string): Promise<CriuRestoreStats | undefined> {
  const at = await readStats(join(workDir, 'stats-restore'), 2);
  return at === undefined ? undefined : { forkingUs: at(3), restoreUs: at(4), pagesRestored: at(5) };
}

/** `part` is the field of stats_entry: 1 dump, 2 restore. */
async function readStats(path: string, part: number): Promise<((field: number) => number) | undefined> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  const numbers = decodeStats(bytes, part);
  return (field) => numbers.get(field) ?? 0;
}

export function decodeStats(bytes: Uint8Array, part: number): ReadonlyMap<number, number> {
  const numbers = new Map<number, number>();
  const outer = new WireReader(singleEntry(bytes, 'stats', 'the statistics of CRIU'), 'the statistics of CRIU');
  while (outer.next()) {
    if (outer.field !== part) continue;
    const inner = new WireReader(outer.bytes(), 'the statistics of CRIU');
    while (inner.next()) numbers.set(inner.field, inner.uint());
  }
  return numbers;
}
