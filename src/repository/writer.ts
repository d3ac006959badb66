/** Writes one checkpoint: pieces to the workers, packs to the store, at the end the lineage key and the manifest. */
import { invariant } from '../core/assert.ts';
import type { Clock } from '../core/clock.ts';
import { StasisError } from '../core/errors.ts';
import type { CheckpointId, LineageId } from '../core/ids.ts';
import type { CipherId } from './format/algorithms.ts';
import { isBlobName } from './format/body.ts';
import { MAX_BLOBS } from './format/limits.ts';
import { lineageName, packName, packsOf } from './format/names.ts';
import type { Garbage } from './garbage.ts';
import type { Marks } from './marks.ts';
import { SegmentList, ZERO, copySegments } from './format/segments.ts';
import type { NewLineage, OpenLineage } from './lineages.ts';
import type { Ancestor } from './ancestor.ts';
import type { Manifests } from './manifests.ts';
import { PageLedger } from './page-ledger.ts';
import { PAGES_BLOB } from './page-records.ts';
import type { ChunkPlaces } from './places.ts';
import { SmallBlobs } from './small-blobs.ts';
import { batches } from './stage/batches.ts';
import type { Batch } from './stage/batches.ts';
import type { SealedPiece, ShippedPack } from './stage/messages.ts';
import type { StagePool } from './stage/pool.ts';
import { PIECE_BYTES } from './stage/port.ts';
import type { Piece, PieceResult } from './stage/port.ts';
import { SEGMENT_COLUMNS } from './stage/segment-rows.ts';
import { SealSession } from './stage/seal-session.ts';
import { pieceResult } from './stage/piece-result.ts';
import type { Store } from './store/store.ts';
import type { ByteCounts, CheckpointSummary, CheckpointWriter, Description } from './types.ts';

export interface WriterOptions {
  readonly id: CheckpointId;
  readonly cipher: CipherId;
  readonly lineage: OpenLineage | NewLineage;
  /** The newest checkpoint of the lineage, whose data may be used again. */
  readonly ancestor: Ancestor | undefined;
  /** Taken from the pool's indexes; knows the ancestor's chunks. */
  readonly places: ChunkPlaces;
  readonly store: Store;
  readonly manifests: Manifests;
  readonly marks: Marks;
  /** The name of this writer's mark, which is set. */
  readonly mark: string;
  readonly garbage: Garbage;
  readonly pool: StagePool;
  readonly clock: Clock;
}

type State = 'open' | 'committing' | 'committed' | 'aborted';

export class Writer implements CheckpointWriter {
  readonly id: CheckpointId;
  readonly lineage: LineageId;
  readonly #options: WriterOptions;
  readonly #session: SealSession;
  readonly #places: ChunkPlaces;
  readonly #blobs = new Map<string, SegmentList>();
  readonly #small = new SmallBlobs();
  readonly #ledger = new PageLedger();
  /** Whatever is on its way to or from a worker. */
  readonly #inFlight = new Set<Promise<unknown>>();
  readonly #counts = { raw: 0, zero: 0, reused: 0, stored: 0 };
  #state: State = 'open';
  #manifestSent = false;

  constructor(options: WriterOptions) {
    this.#options = options;
    this.id = options.id;
    this.lineage = options.lineage.keys.lineage;
    this.#places = options.places;
    const { idKey, chunkKey, pageKey } = options.lineage.keys;
    this.#session = new SealSession(options.pool, {
      secrets: { lineage: this.lineage, cipher: options.cipher, idKey, chunkKey, pageKey },
      checkpoint: this.id,
      index: this.#places.shared,
      pages: options.ancestor?.pages?.table.shared,
      put: (pack, signal) => this.#putPack(pack, signal),
    });
  }

  async append(blob: string, pieces: Iterable<Piece> | AsyncIterable<Piece>, { signal, onPiece }: { signal: AbortSignal | undefined; onPiece?: (result: PieceResult, index: number) => void }): Promise<void> {
    const segments = this.#blob(blob);
    const either = this.#either(signal);
    let index = 0;
    const take = (sealed: SealedPiece): void => {
      this.#place(segments, sealed);
      onPiece?.(pieceResult(sealed), index++);
    };
    // Jobs end in any order; their results are taken in the order of the blob.
    let previous: Promise<void> = Promise.resolve();
    try {
      for await (const batch of batches(pieces)) {
        const answer = this.#submit(batch, either);
        const before = previous;
        previous = answer.then(async ({ result }) => {
          const sealed = await result;
          await before;
          sealed.forEach(take);
        });
        // At once, so that nothing more is read in vain.
        previous.catch((error: unknown) => this.#session.fail(error));
        await answer;
      }
      await previous;
    } catch (error) {
      // What was read is only a part of what was asked for: such a checkpoint must never be committed.
      this.#session.fail(error);
      await this.#settle();
      throw error;
    }
  }

  appendZeros(blob: string, length: number): void {
    this.#blob(blob).zeros(length);
    this.#counts.raw += length;
    this.#counts.zero += length;
  }

  get ancestor(): CheckpointId | undefined {
    return this.#options.ancestor?.id;
  }

  reuse(blob: string, offset: number, length: number): boolean {
    const data = this.#options.ancestor?.copy(blob, offset, length, this.#blob(blob));
    if (data === undefined) return false;
    this.#counts.raw += length;
    this.#counts.zero += length - data;
    this.#counts.reused += data;
    return true;
  }

  splice(blob: string, from: string, offset: number, length: number): void {
    const source = this.#blobs.get(from);
    invariant(source !== undefined && from !== blob && offset + length <= source.length, `${length} bytes at ${offset} of ${from} are there`);
    const target = this.#blob(blob);
    const data = copySegments(source, offset, length, target);
    this.#counts.raw += length;
    this.#counts.zero += length - data;
  }

  drop(prefix: string): void {
    for (const [blob, segments] of this.#blobs) {
      if (!blob.startsWith(prefix)) continue;
      this.#blobs.delete(blob);
      this.#counts.raw -= segments.length;
      this.#counts.zero -= segments.zeroBytes();
    }
  }

  async putSmall(blob: string, bytes: Uint8Array, { signal }: { signal: AbortSignal | undefined }): Promise<void> {
    invariant(bytes.length <= PIECE_BYTES, `${blob} is too large to be a small blob`);
    invariant(!this.#blobs.has(blob), `blob ${blob} is there already`);
    const segments = this.#blob(blob);
    if (this.#small.isFull(bytes.length)) await this.#flushSmall(signal);
    this.#small.add(segments, bytes);
  }

  bytes(): ByteCounts {
    return { ...this.#counts };
  }

  async commit(description: Description, { signal }: { signal: AbortSignal | undefined }): Promise<CheckpointSummary> {
    invariant(this.#state === 'open', `the writer is ${this.#state}`);
    this.#state = 'committing';
    const { store, manifests, marks, mark, clock, cipher, lineage } = this.#options;
    await this.#flushSmall(signal);
    await Promise.all(this.#inFlight);
    await this.#writePages(signal);
    await this.#session.finish();
    if ('object' in lineage) await store.put(lineageName(this.lineage), lineage.object, { signal });
    const tables = this.#places.tables(this.#blobs);
    const summary = { bytes: this.bytes(), description };
    // A writer that stood still for long may have been given up for dead, and what it wrote or relied on removed. Before the
    // manifest this ends it without a trace; behind it catches a pause between the two, and abort() takes the manifest back.
    await marks.requireHeld(mark, { signal });
    this.#manifestSent = true;
    const result = await manifests.write({ checkpoint: this.id, cipher, lineage, createdMs: clock.now(), summary, tables }, { signal });
    await marks.requireHeld(mark, { signal });
    this.#state = 'committed';
    await this.#end();
    // A mark that stays behind only keeps garbage: delete() takes it along, or prune.
    await marks.remove(mark, { signal: undefined }).catch(() => undefined);
    return result;
  }

  async abort(): Promise<boolean> {
    if (this.#state === 'committed' || this.#state === 'aborted') return true;
    this.#state = 'aborted';
    await this.#end();
    try {
      await this.#remove();
      return true;
    } catch {
      return false;
    }
  }

  async #end(): Promise<void> {
    await this.#session.end();
    await this.#settle();
    this.#options.pool.indexes.give(this.#places.shared);
  }

  async #remove(): Promise<void> {
    const { store, marks, mark, garbage, lineage } = this.#options;
    const signal = undefined;
    // A put that failed may have put it there all the same, and others may rely on it by now.
    if (this.#manifestSent) return garbage.takeBack(this.id, this.lineage, { signal });
    for await (const { name } of store.list(packsOf(this.id), { signal })) await store.delete(name, { signal });
    // Nobody else can know of a lineage that has no checkpoint.
    if ('object' in lineage) await store.delete(lineageName(this.lineage), { signal });
    await marks.remove(mark, { signal });
  }

  #blob(name: string): SegmentList {
    const known = this.#blobs.get(name);
    if (known !== undefined) return known;
    invariant(this.#state === 'open', `the writer is ${this.#state}`);
    invariant(isBlobName(name), `${JSON.stringify(name)} cannot be the name of a blob`);
    if (this.#blobs.size === MAX_BLOBS) throw new StasisError('LIMIT_EXCEEDED', `this checkpoint needs more than ${MAX_BLOBS} blobs`, { hint: 'docs/FORMAT.md lists the limits and their reasons' });
    const segments = new SegmentList();
    this.#blobs.set(name, segments);
    return segments;
  }

  /** The caller's wish to stop, or our own. */
  #either(signal: AbortSignal | undefined): AbortSignal {
    return signal === undefined ? this.#session.signal : AbortSignal.any([signal, this.#session.signal]);
  }

  /** Resolves when the job is under way; its result comes with `result`. */
  async #submit(batch: Batch, signal: AbortSignal): Promise<{ result: Promise<readonly SealedPiece[]> }> {
    const credit = await this.#options.pool.jobs.acquire(1, { signal });
    const result = this.#session.submit(batch).finally(() => {
      credit[Symbol.dispose]();
      this.#inFlight.delete(result);
    });
    this.#inFlight.add(result);
    result.catch(() => undefined);
    return { result };
  }

  async #flushSmall(signal: AbortSignal | undefined): Promise<void> {
    const group = this.#small.take();
    if (group === undefined) return;
    const { result } = await this.#submit(group.batch, this.#either(signal));
    const placed = result.then((pieces) => {
      for (const piece of pieces) {
        this.#count(piece);
        group.place(piece);
      }
    });
    placed.catch((error: unknown) => this.#session.fail(error)).finally(() => this.#inFlight.delete(placed));
    this.#inFlight.add(placed);
  }

  #place(segments: SegmentList, piece: SealedPiece): void {
    this.#count(piece);
    if (piece.segments !== undefined) return placeRows(segments, piece.segments);
    if (piece.chunk < 0) return segments.zeros(piece.length);
    if (piece.runs === undefined) return segments.data(piece.chunk, 0, piece.length);
    let offset = 0;
    piece.runs.forEach((length, i) => {
      if (i % 2 === 1) return segments.zeros(length);
      segments.data(piece.chunk, offset, length);
      offset += length;
    });
  }

  #count(piece: SealedPiece): void {
    this.#counts.raw += piece.length;
    this.#counts.zero += piece.length - piece.raw;
    this.#counts.reused += piece.reused;
  }

  /** For the next checkpoint of the lineage: which pages the chunks of this one hold. Not counted, nobody handed it in. */
  async #writePages(signal: AbortSignal | undefined): Promise<void> {
    const segments = new SegmentList();
    for (const pages of await this.#session.flush()) this.#ledger.add(pages);
    const fresh = this.#ledger.settle(this.#places, this.#places.used(this.#blobs), this.#options.ancestor, segments);
    if (segments.length === 0 && fresh.length === 0) return;
    for (const bytes of fresh) {
      const batch = { pieces: [{ source: { kind: 'bytes', bytes, length: bytes.length } as const, zeroPages: false }], transfer: [bytes.buffer], bytes: bytes.length };
      const { result } = await this.#submit(batch, this.#either(signal));
      for (const piece of await result) segments.data(piece.chunk, 0, piece.length);
    }
    this.#blobs.set(PAGES_BLOB, segments);
  }

  async #putPack(pack: ShippedPack, signal: AbortSignal): Promise<void> {
    await this.#options.store.put(packName(this.id, pack.digits), [new Uint8Array(pack.buffer, 0, pack.used)], { signal });
    this.#places.addPack(this.id, pack);
    this.#counts.stored += pack.used;
  }

  /** Waits until no worker touches a source of ours any more. */
  async #settle(): Promise<void> {
    await Promise.allSettled(this.#inFlight);
  }
}

function placeRows(segments: SegmentList, rows: Uint32Array): void {
  for (let i = 0; i < rows.length; i += SEGMENT_COLUMNS) {
    const [chunk = ZERO, offset = 0, length = 0] = rows.subarray(i, i + SEGMENT_COLUMNS);
    if (chunk === ZERO) segments.zeros(length);
    else segments.data(chunk, offset, length);
  }
}
