/** Brings a tree of files back: into an empty directory, or over what is there through the merged view of an overlay. */
import { constants, readdirSync, writeSync } from 'node:fs';
import type { DeviceRule } from '../../core/devices.ts';
import { StasisError } from '../../core/errors.ts';
import { KiB } from '../../core/units.ts';
import { closeFd, openConfined } from '../../host/tree-calls.ts';
import type { FileTarget, Sink } from '../../repository/stage/port.ts';
import type { CheckpointReader } from '../../repository/types.ts';
import type { TreeCounts } from '../types.ts';
import { MAX_INDEX_BYTES } from './limits.ts';
import type { DecodedCounts, ExtractionPlan, TreeEntry } from './port.ts';
import { openRoot } from './root.ts';
import type { TreeKind } from './table.ts';
import type { TreeThreads } from './threads.ts';
import { TreeWorker } from './worker-client.ts';

export interface LoadTreeOptions {
  /** Where the worker's thread comes from; it starts its own unless told. */
  readonly threads?: TreeThreads;
  readonly signal: AbortSignal | undefined;
  readonly onBytes?: (count: number) => void;
  /**
   * Which device nodes are made; none unless told. They give access to the node: only those that the container may
   * have.
   */
  readonly devices?: readonly DeviceRule[];
  /** The overlay will be mounted with userxattr: its marks are user.overlay.*. */
  readonly userxattr?: boolean;
}

export interface LoadedTreeCounts extends TreeCounts {
  readonly kind: TreeKind;
  /** What was left out, in words. At most 100. */
  readonly warnings: readonly string[];
}

/**
 * Into an existing, empty directory. An `overlay-upper` tree keeps its form (whiteouts, opaque directories), so that it can be
 * mounted as an upper directory. Throws OBJECT_CORRUPT, PATH_ESCAPES or LIMIT_EXCEEDED before anything is
 * made when the index is not what a saver writes, RESTORE_FAILED when the file system cannot hold the tree.
 */
export function loadTree(reader: CheckpointReader, prefix: string, targetDir: string, options: LoadTreeOptions): Promise<LoadedTreeCounts> {
  if (readdirSync(targetDir).length > 0) throw new StasisError('RESTORE_FAILED', `${targetDir} is not empty`, { hint: 'a tree is only restored into a fresh directory' });
  return load(reader, prefix, targetDir, false, options);
}

/** Through the merged view of a mounted overlay: whiteouts become deletions, opaque directories are emptied first, all else is replaced. */
export function loadTreeMerged(reader: CheckpointReader, prefix: string, mergedDir: string, options: LoadTreeOptions): Promise<LoadedTreeCounts> {
  return load(reader, prefix, mergedDir, true, options);
}

/** The entries of a saved tree, in the order of the index: a directory's children lie together. */
export async function* readTreeIndex(reader: CheckpointReader, prefix: string, options: { signal: AbortSignal | undefined }): AsyncGenerator<TreeEntry, void, void> {
  await using worker = new TreeWorker({ role: 'load', prefix });
  const { entries } = await decode(worker, reader, prefix, options.signal);
  const count = 4096;
  for (let from = 0; from < entries; from += count) yield* await worker.call('page', { from, count }, options);
}

async function load(reader: CheckpointReader, prefix: string, directory: string, merge: boolean, options: LoadTreeOptions): Promise<LoadedTreeCounts> {
  const { signal } = options;
  const root = openRoot(directory, { writable: true });
  try {
    await using worker = new TreeWorker({ role: 'load', prefix }, options.threads);
    const { kind, entries, files, dataBytes } = await decode(worker, reader, prefix, signal);
    const zeroRuns = zeroRunsOf(reader, `${prefix}data`);
    const plan = await worker.call('create', {
      root, merge, devices: options.devices ?? [], userxattr: options.userxattr ?? false, zeroRuns,
    }, { signal });
    await extract(reader, `${prefix}data`, root, plan, options);
    const { warnings } = await worker.call('complete', undefined, { signal });
    return { kind, entries, files, dataBytes, warnings };
  } finally {
    closeFd(root);
  }
}

async function decode(worker: TreeWorker, reader: CheckpointReader, prefix: string, signal: AbortSignal | undefined): Promise<DecodedCounts> {
  const blob = `${prefix}index`;
  const length = reader.blobs.get(blob);
  if (length === undefined) throw new StasisError('OBJECT_CORRUPT', `the checkpoint has no tree ${JSON.stringify(prefix)}: the blob ${blob} is missing`);
  if (length > MAX_INDEX_BYTES) throw new StasisError('LIMIT_EXCEEDED', `the blob ${blob} has ${length} bytes, at most ${MAX_INDEX_BYTES} are read`);
  const index = new SharedArrayBuffer(length);
  await reader.extract([{ blob, sink: ({ offset }) => ({ kind: 'memory', buffer: index, offset }) }], { signal });
  return worker.call('decode', { index, dataLength: reader.blobs.get(`${prefix}data`) ?? 0 }, { signal });
}

function zeroRunsOf(reader: CheckpointReader, blob: string): Float64Array {
  const runs: number[] = [];
  if (reader.blobs.has(blob)) for (const segment of reader.segments(blob)) if (segment.zero) runs.push(segment.offset, segment.length);
  return Float64Array.from(runs);
}

async function extract(reader: CheckpointReader, blob: string, root: number, plan: ExtractionPlan, options: LoadTreeOptions): Promise<void> {
  if (plan.dataAt.length === 0) return;
  const targets = new Targets(plan);
  const sink = ({ offset, length }: { offset: number; length: number }): Sink => ({ kind: 'files', root, files: targets.of(offset, length) });
  await reader.extract([{ blob, sink }], { signal: options.signal, ...(options.onBytes === undefined ? {} : { onBytes: options.onBytes }) });
  for (const part of plan.deep) await writeDeep(reader, blob, root, plan, part, options.signal);
}

const nowhere = new Uint8Array(0);

/** Which files a stretch of the data blob belongs to. Asked in ascending order, answers in any. */
class Targets {
  readonly #plan: ExtractionPlan;
  readonly #deep: ReadonlySet<number>;

  constructor(plan: ExtractionPlan) {
    this.#plan = plan;
    this.#deep = new Set(plan.deep);
  }

  of(offset: number, length: number): FileTarget[] {
    const { dataAt, fileAt } = this.#plan;
    const files: FileTarget[] = [];
    const end = offset + length;
    let at = offset;
    for (let part = this.#firstAfter(offset); at < end; part++) {
      const start = part < dataAt.length ? Math.min(end, dataAt[part] as number) : end;
      // Superseded while the container ran: no file has these bytes.
      if (start > at) files.push({ path: nowhere, offset: 0, length: start - at });
      at = Math.max(at, start);
      if (at >= end) break;
      const stop = Math.min(end, (dataAt[part] as number) + (this.#plan.length[part] as number));
      files.push({ path: this.#path(part), offset: (fileAt[part] as number) + at - (dataAt[part] as number), length: stop - at });
      at = stop;
    }
    return files;
  }

  /** The first part that ends after `offset`. */
  #firstAfter(offset: number): number {
    const { dataAt, length } = this.#plan;
    let [low, high] = [0, dataAt.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((dataAt[middle] as number) + (length[middle] as number) > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #path(part: number): Uint8Array {
    if (this.#deep.has(part)) return nowhere;
    const at = this.#plan.pathAt[part] as number;
    return this.#plan.paths.subarray(at, at + (this.#plan.pathLength[part] as number));
  }
}

/** A path that no single call takes: rare, so it is simple and slow. */
async function writeDeep(reader: CheckpointReader, blob: string, root: number, plan: ExtractionPlan, part: number, signal: AbortSignal | undefined): Promise<void> {
  const path = Buffer.from(plan.paths.subarray(plan.pathAt[part] as number, (plan.pathAt[part] as number) + (plan.pathLength[part] as number)));
  const fd = openConfined(root, path, constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  try {
    const total = plan.length[part] as number;
    for (let at = 0; at < total; at += 512 * KiB) {
      const length = Math.min(512 * KiB, total - at);
      const bytes = await reader.read(blob, { offset: (plan.dataAt[part] as number) + at, length }, { signal });
      writeSync(fd, bytes, 0, length, (plan.fileAt[part] as number) + at);
    }
  } finally {
    closeFd(fd);
  }
}
