/** What a machine could do at best: its stages measured one by one, and what follows from them (docs/BENCHMARKS.md). */
import { closeSync, constants, openSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { randomBytes } from 'node:crypto';
import { MiB } from '../../../src/core/units.ts';
import { PIECE_BYTES } from '../../../src/repository/index.ts';
import type { Store } from '../../../src/repository/index.ts';
import { packFiles } from '../../../src/repository/stage/file-list.ts';
import type { WirePiece } from '../../../src/repository/stage/messages.ts';

/** The pieces that one thread works on. */
export interface StageShare {
  readonly pieces: readonly WirePiece[];
}

/** Milliseconds of all threads together, and the bytes that came out. */
export interface StageTimes {
  read: number;
  hash: number;
  compress: number;
  seal: number;
  stored: number;
}

export interface PutTimes {
  readonly ms: number;
  /** Of the whole machine: the kernel's writing and the server are part of the price. */
  readonly processorMs: number;
}

/** As large as the repository's own packs, and as many at once. */
const PACK_BYTES = 10 * MiB;
const PUTS_AT_ONCE = 4;

export async function timeStages(source: string, kind: 'images' | 'tree'): Promise<StageTimes> {
  const { pieces, close } = kind === 'images' ? piecesOfImages(source) : piecesOfTree(source);
  try {
    const threads = cpus().length;
    const shares = Array.from({ length: threads }, (_, thread) => pieces.filter((_piece, index) => index % threads === thread));
    const all = await Promise.all(shares.map(oneThread));
    const sum = (field: keyof StageTimes): number => all.reduce((total, times) => total + times[field], 0);
    return { read: sum('read'), hash: sum('hash'), compress: sum('compress'), seal: sum('seal'), stored: sum('stored') };
  } finally {
    close();
  }
}

/** Puts as much as the stages gave, and nothing else. */
export async function timePuts(store: Store, bytes: number): Promise<PutTimes> {
  const buffers = Array.from({ length: PUTS_AT_ONCE }, () => randomBytes(PACK_BYTES));
  const sizes = Array.from({ length: Math.ceil(bytes / PACK_BYTES) }, (_, index) => Math.min(PACK_BYTES, bytes - index * PACK_BYTES));
  const [from, busy] = [performance.now(), machineBusyMs()];
  let next = 0;
  await Promise.all(buffers.map(async (buffer) => {
    for (let index = next++; index < sizes.length; index = next++) await store.put(`packs/only-put-${index}`, [buffer.subarray(0, sizes[index])], { signal: undefined });
  }));
  return { ms: performance.now() - from, processorMs: machineBusyMs() - busy };
}

/** All processors share all stages evenly, unless the store alone takes longer. */
export function ceilingMs(stages: StageTimes, puts: PutTimes): number {
  return Math.max((stages.read + stages.hash + stages.compress + stages.seal + puts.processorMs) / cpus().length, puts.ms);
}

function oneThread(pieces: readonly WirePiece[]): Promise<StageTimes> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('../stage-worker.js', import.meta.url), { workerData: { pieces } satisfies StageShare, trackUnmanagedFds: false });
    worker.once('message', resolve).once('error', reject);
  });
}

interface Pieces {
  readonly pieces: readonly WirePiece[];
  close(): void;
}

/** Memory only: the rest of what CRIU writes is small. */
function piecesOfImages(directory: string): Pieces {
  const fds: number[] = [];
  const pieces = readdirSync(directory).filter((name) => name.startsWith('pages-')).flatMap((name) => {
    const path = join(directory, name);
    const fd = openSync(path, 'r');
    fds.push(fd);
    const size = statSync(path).size;
    return Array.from({ length: Math.ceil(size / PIECE_BYTES) }, (_, index): WirePiece => {
      const offset = index * PIECE_BYTES;
      return { source: { kind: 'fd', fd, offset, length: Math.min(PIECE_BYTES, size - offset) }, zeroPages: true };
    });
  });
  return { pieces, close: () => { fds.forEach(closeSync); } };
}

/** Neighbours together, as the tree's own pieces are. */
function piecesOfTree(directory: string): Pieces {
  const root = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  const pieces: WirePiece[] = [];
  let files: { path: Buffer; offset: number; length: number }[] = [];
  let length = 0;
  const cut = (): void => {
    if (length > 0) pieces.push({ source: { kind: 'files', root, list: packFiles(files), length }, zeroPages: false });
    [files, length] = [[], 0];
  };
  for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const { size } = statSync(path);
    for (let offset = 0; offset < size; offset += PIECE_BYTES) {
      const part = Math.min(PIECE_BYTES, size - offset);
      if (length + part > PIECE_BYTES) cut();
      files.push({ path: Buffer.from(path.slice(directory.length + 1)), offset, length: part });
      length += part;
    }
  }
  cut();
  return { pieces, close: () => { closeSync(root); } };
}

/** All processors' time that was neither idle nor waiting for a disk. */
function machineBusyMs(): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = readFileSync('/proc/stat', 'utf8').split('\n')[0]?.trim().split(/\s+/).slice(1).map(Number) ?? [];
  return (user + nice + system + irq + softirq) * TICK_MS;
}

const TICK_MS = 10;
