/** Saves a tree of files as two blobs of a checkpoint: read ahead while its container runs, and completed while it is frozen. */
import { fstatSync, readFileSync } from 'node:fs';
import { systemClock } from '../../core/clock.ts';
import type { Clock } from '../../core/clock.ts';
import { StasisError } from '../../core/errors.ts';
import { MiB } from '../../core/units.ts';
import { bootId } from '../../host/proc.ts';
import { closeFd } from '../../host/tree-calls.ts';
import type { Piece, PieceResult } from '../../repository/stage/port.ts';
import type { CheckpointWriter } from '../../repository/types.ts';
import type { TreeCounts } from '../types.ts';
import type { Origin } from './memory.ts';
import { openRoot, timesTell, volatileFileSystem } from './root.ts';
import type { PlannedPiece } from './planner.ts';
import type { Batch, Calls, Finished, ReadCounts } from './port.ts';
import type { TreeKind } from './table.ts';
import type { TreeThreads } from './threads.ts';
import { TreeWorker } from './worker-client.ts';

export interface TreeSaverOptions {
  readonly writer: CheckpointWriter;
  /** Begin of the two blobs' names: `<prefix>index` and `<prefix>data`. */
  readonly prefix: string;
  readonly root: string;
  readonly kind: TreeKind;
  /** The overlay is mounted with userxattr: its marks are user.overlay.*. */
  readonly userxattr?: boolean;
  readonly clock?: Clock;
  /** What the save before of the same directory gave as its memory, if that checkpoint is the writer's ancestor. */
  readonly memory?: Uint8Array | undefined;
  /** Answer with a memory for the next checkpoint. */
  readonly remember?: boolean;
  /** Where the worker's thread comes from; it starts its own unless told. */
  readonly threads?: TreeThreads;
}

export interface SavedTreeCounts extends TreeCounts {
  readonly kind: TreeKind;
  readonly indexBytes: number;
  /** Read while the container ran, and while it was frozen. */
  readonly ahead: ReadCounts;
  readonly frozen: ReadCounts;
  /** Bytes of the data blob that were read ahead in vain. */
  readonly supersededBytes: number;
  /** Known from the checkpoint before: those of them that are as they were have not been read. */
  readonly known: ReadCounts;
  /** For the next checkpoint of this directory on this node. */
  readonly memory: Uint8Array | undefined;
  /** What is not in the checkpoint, in words. At most 100. */
  readonly warnings: readonly string[];
}

export interface DeltaOptions {
  readonly signal: AbortSignal | undefined;
  /**
   * Paths from the root of the tree (bytes, a leading "/" does not matter) of the files that processes of the container have mapped shared and writable, as seen
   * before readAhead began and again while frozen: they can change without a change of their times.
   */
  readonly distrust?: readonly Uint8Array[];
}

/**
 * Call readAhead (any number of times, also none), delta, finish; and dispose in any case: it ends the worker.
 * Throws NOT_CHECKPOINTABLE for overlays with redirects, DUMP_FAILED when a file does not hold still while
 * frozen, LIMIT_EXCEEDED beyond the limits of the format.
 */
export class TreeSaver implements AsyncDisposable {
  readonly #options: TreeSaverOptions;
  readonly #clock: Clock;
  #root: number | undefined;
  #worker: TreeWorker | undefined;
  #ahead: ReadCounts = { files: 0, bytes: 0 };
  #frozen: ReadCounts = { files: 0, bytes: 0 };
  #known: ReadCounts | undefined;

  constructor(options: TreeSaverOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  /** Does nothing on file systems of memory, where writes through a mapping never show in a file's times. */
  async readAhead({ signal, onBytes }: { signal: AbortSignal | undefined; onBytes?: (count: number) => void }): Promise<void> {
    const worker = this.#open();
    if (volatileFileSystem(this.#root as number)) {
      // Starts the worker, so that the freeze need not wait for that.
      await worker.call('counts', undefined, { signal });
      return;
    }
    if (this.#known === undefined) this.#known = await this.#recall(worker, signal);
    await worker.call('readAhead', { nowMs: this.#clock.now() }, { signal });
    await this.#append(worker, signal, onBytes);
    const counts = await worker.call('counts', undefined, { signal });
    this.#ahead = { files: this.#ahead.files + counts.files, bytes: this.#ahead.bytes + counts.bytes };
  }

  async delta({ signal, distrust }: DeltaOptions): Promise<void> {
    const worker = this.#open();
    await worker.call('delta', { nowMs: this.#clock.now(), distrust: distrust ?? [] }, { signal });
    // Ends when nothing had to be read; throws when a file is never still.
    while ((await this.#append(worker, signal, undefined)) > 0) await worker.call('again', undefined, { signal });
    this.#frozen = await worker.call('counts', undefined, { signal });
  }

  async finish({ signal }: { signal: AbortSignal | undefined }): Promise<SavedTreeCounts> {
    await using resources = new AsyncDisposableStack();
    resources.use(this);
    const worker = this.#open();
    const remember = this.#options.remember === true && timesTell(this.#root as number);
    const { entries, files, dataBytes, supersededBytes, warnings, memory, ...index } = await worker.call('finish', { origin: remember ? this.#origin() : undefined }, { signal });
    await writeIndex(this.#options.writer, this.#options.prefix, index, signal);
    return { entries, files, dataBytes, kind: this.#options.kind, indexBytes: index.length, ahead: this.#ahead, frozen: this.#frozen, known: this.#known ?? { files: 0, bytes: 0 }, supersededBytes, memory, warnings };
  }

  /** A copy of the directory, or another one in its place, has another inode or another birth. What a crash left of a file may be older than its times. */
  #origin(): Origin {
    const { dev, ino, birthtimeNs } = fstatSync(this.#root as number, { bigint: true });
    const boot = bootId();
    const uptimeSeconds = Number(readFileSync('/proc/uptime', 'latin1').split(' ')[0]);
    return { identity: `${boot}:${dev}:${ino}:${birthtimeNs}:${this.#options.root}`, clockBaseMs: this.#clock.now() - uptimeSeconds * 1000 };
  }

  /** The data blob begins with what the last one had and is still in use, at the same places, so that the index stays as it was, too. */
  async #recall(worker: TreeWorker, signal: AbortSignal | undefined): Promise<ReadCounts> {
    const { memory, writer } = this.#options;
    const found = memory === undefined || !timesTell(this.#root as number) ? undefined : await worker.call('remember', { memory, origin: this.#origin() }, { signal });
    if (found === undefined) return { files: 0, bytes: 0 };
    const blob = `${this.#options.prefix}data`;
    const lost: number[] = [];
    let at = 0;
    for (let i = 0; i < found.used.length; i += 2) {
      const [offset, length] = found.used.subarray(i, i + 2) as unknown as [number, number];
      if (offset > at) writer.appendZeros(blob, offset - at);
      if (!writer.reuse(blob, offset, length)) {
        writer.appendZeros(blob, length);
        lost.push(offset, length);
      }
      at = offset + length;
    }
    if (found.dataLength > at) writer.appendZeros(blob, found.dataLength - at);
    return worker.call('recall', { lost: Float64Array.from(lost) }, { signal });
  }

  #open(): TreeWorker {
    if (this.#worker !== undefined) return this.#worker;
    this.#root ??= openRoot(this.#options.root, { writable: false });
    this.#worker = new TreeWorker({ role: 'save', root: this.#root, kind: this.#options.kind, userxattr: this.#options.userxattr ?? false }, this.#options.threads);
    return this.#worker;
  }

  /** Appends what the worker plans. Returns the number of pieces. */
  async #append(worker: TreeWorker, signal: AbortSignal | undefined, onBytes: ((count: number) => void) | undefined): Promise<number> {
    const first = await worker.call('next', undefined, { signal });
    if (first.pieces.length === 0 && first.done) return 0;
    const planned: (PlannedPiece | undefined)[] = [];
    const onPiece = (result: PieceResult, index: number): void => {
      const piece = planned[index];
      if (piece === undefined) throw new StasisError('INTERNAL', `piece ${index} of a tree came back twice`);
      planned[index] = undefined;
      if (piece.root >= 0) closeFd(piece.root);
      worker.tell({ number: piece.number, slices: packed(result) });
      onBytes?.(result.length);
    };
    try {
      await this.#options.writer.append(`${this.#options.prefix}data`, this.#pieces(worker, first, planned, signal), { signal, onPiece });
    } finally {
      for (const piece of planned) if (piece !== undefined && piece.root >= 0) closeFd(piece.root);
    }
    return planned.length;
  }

  async *#pieces(worker: TreeWorker, first: Batch, planned: (PlannedPiece | undefined)[], signal: AbortSignal | undefined): AsyncGenerator<Piece, void, void> {
    let batch: Calls['next']['result'] = first;
    for (;;) {
      // The worker plans the next batch while this one is read.
      const next = batch.done ? undefined : worker.call('next', undefined, { signal });
      next?.catch(() => undefined);
      for (const piece of batch.pieces) {
        planned.push(piece);
        yield this.#piece(piece);
      }
      if (next === undefined) return;
      batch = await next;
    }
  }

  #piece({ root, paths, numbers, zeroPages }: PlannedPiece): Piece {
    const files = [];
    for (let i = 0, at = 0; i < numbers.length; i += 3) {
      const length = numbers[i] as number;
      files.push({ path: paths.subarray(at, at + length), offset: numbers[i + 1] as number, length: numbers[i + 2] as number });
      at += length;
    }
    return { source: { kind: 'files', root: root >= 0 ? root : (this.#root as number), files }, zeroPages };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const [worker, root] = [this.#worker, this.#root];
    this.#worker = undefined;
    this.#root = undefined;
    await worker?.[Symbol.asyncDispose]();
    if (root !== undefined) closeFd(root);
  }
}

/** The index of a tree as a blob. */
export async function writeIndex(writer: CheckpointWriter, prefix: string, { chunks, length }: Pick<Finished, 'chunks' | 'length'>, signal: AbortSignal | undefined): Promise<void> {
  const blob = `${prefix}index`;
  const parts = chunks.map((buffer, i) => ({ buffer, length: Math.min(buffer.byteLength, length - i * MiB) }));
  const [only] = parts;
  if (parts.length === 1 && only !== undefined) {
    await writer.putSmall(blob, Uint8Array.from(new Uint8Array(only.buffer, 0, only.length)), { signal });
    return;
  }
  const pieces = parts.map((part): Piece => ({ source: { kind: 'memory', buffer: part.buffer, offset: 0, length: part.length }, zeroPages: false }));
  await writer.append(blob, pieces, { signal });
}

function packed(result: PieceResult): BigInt64Array {
  const slices = result.slices ?? [];
  const numbers = new BigInt64Array(slices.length * 5);
  slices.forEach((slice, i) => {
    numbers[i * 5] = slice.inode;
    numbers[i * 5 + 1] = slice.size;
    numbers[i * 5 + 2] = slice.mtimeNs;
    numbers[i * 5 + 3] = slice.ctimeNs;
    numbers[i * 5 + 4] = slice.torn ? 1n : 0n;
  });
  return numbers;
}
