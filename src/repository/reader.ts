/** Reads one checkpoint back. */
import { StasisError } from '../core/errors.ts';
import { asBuffer } from './format/bytes.ts';
import { packObject } from './format/body.ts';
import { MAX_READ_BYTES } from './format/limits.ts';
import type { SegmentList } from './format/segments.ts';
import { ZERO } from './format/segments.ts';
import type { Sodium } from './crypto/port.ts';
import { FETCH_BYTES, fetchRange, inParallel } from './fetch.ts';
import type { WireTarget } from './fetch.ts';
import type { OpenManifest } from './manifests.ts';
import { planFetches, storedParts } from './plan.ts';
import type { PlannedFetch, PlannedPart } from './plan.ts';
import { fromWire } from './stage/messages.ts';
import type { ChunkSecrets } from './stage/messages.ts';
import { newOpenScratch, Opener } from './stage/opener.ts';
import type { StagePool } from './stage/pool.ts';
import { SinkEncoder } from './stage/wire-sink.ts';
import type { Store } from './store/store.ts';
import type { CheckpointReader, CheckpointSummary, ExtractJob } from './types.ts';

/** Parts that are planned together: enough to see neighbours, few enough to hold. */
const WINDOW_PARTS = 8192;
const WINDOW_BYTES = 256 * 1024 * 1024;

/** Names that begin like this are the repository's own. */
const OWN_BLOBS = '.repository/';

export function secretsOf({ lineage, cipher }: OpenManifest): ChunkSecrets {
  return { lineage: lineage.keys.lineage, cipher, idKey: lineage.keys.idKey, chunkKey: lineage.keys.chunkKey, pageKey: lineage.keys.pageKey };
}

export class Reader implements CheckpointReader {
  readonly summary: CheckpointSummary;
  readonly blobs: ReadonlyMap<string, number>;
  readonly #manifest: OpenManifest;
  readonly #store: Store;
  readonly #pool: StagePool;
  readonly #sodium: Sodium;
  /** Made for the chunks that are read: most readers only extract, or look at small blobs. */
  #opener: { readonly opener: Opener; readonly bytes: number } | undefined;
  /** Small blobs share chunks and are read one after the other. */
  #lastChunk: { readonly chunk: number; readonly data: Buffer } | undefined;

  constructor(manifest: OpenManifest, store: Store, pool: StagePool, sodium: Sodium) {
    this.summary = manifest.summary;
    this.blobs = new Map([...manifest.tables.blobs].filter(([name]) => !name.startsWith(OWN_BLOBS)).map(([name, segments]) => [name, segments.length]));
    this.#manifest = manifest;
    this.#store = store;
    this.#pool = pool;
    this.#sodium = sodium;
  }

  async read(blob: string, range: { offset: number; length: number } | undefined, { signal }: { signal: AbortSignal | undefined }): Promise<Uint8Array> {
    const segments = this.#blob(blob);
    const { offset, length } = range ?? { offset: 0, length: segments.length };
    if (length > MAX_READ_BYTES) throw new StasisError('LIMIT_EXCEEDED', `${length} bytes of ${blob} are too many to read at once; extract them`);
    const result = Buffer.alloc(length);
    for (const part of storedParts(segments, offset, length)) {
      const data = await this.#chunk(part.chunk, signal);
      data.copy(result, part.at - offset, part.offset, part.offset + part.length);
    }
    return result;
  }

  *segments(blob: string): Iterable<{ offset: number; length: number; zero: boolean; chunk?: number }> {
    const segments = this.#blob(blob);
    for (let i = 0; i < segments.count; i += 1) {
      yield { offset: segments.start(i), length: segments.end(i) - segments.start(i), zero: segments.chunk(i) === ZERO, chunk: segments.chunk(i) };
    }
  }

  async extract(jobs: readonly ExtractJob[], { signal, onBytes, urgent = false }: { signal: AbortSignal | undefined; onBytes?: (count: number) => void; urgent?: boolean }): Promise<void> {
    const context = { store: this.#store, pool: this.#pool, secrets: secretsOf(this.#manifest), tables: this.#manifest.tables, verify: false, urgent };
    await inParallel(this.#fetches(jobs), this.#pool.jobs.limit, async (fetch) => {
      const [problem] = await fetchRange(context, fetch, signal);
      if (problem !== undefined) throw fromWire(problem.error);
      onBytes?.(fetch.chunks.reduce((sum, { parts }) => sum + parts.reduce((part, { length }) => part + length, 0), 0));
    });
  }

  *#fetches(jobs: readonly ExtractJob[]): Iterable<PlannedFetch<WireTarget>> {
    const { tables } = this.#manifest;
    for (const window of this.#windows(jobs)) yield* planFetches(window, tables, Math.min(FETCH_BYTES, this.#pool.buffers.bufferBytes, this.#pool.urgent.bufferBytes));
  }

  *#windows(jobs: readonly ExtractJob[]): Iterable<PlannedPart<WireTarget>[]> {
    const encoder = new SinkEncoder();
    let parts: PlannedPart<WireTarget>[] = [];
    let bytes = 0;
    for (const job of jobs) {
      const segments = this.#blob(job.blob);
      const offset = job.offset ?? 0;
      for (const part of storedParts(segments, offset, job.length ?? segments.length - offset)) {
        parts.push({ chunk: part.chunk, offset: part.offset, length: part.length, target: encoder.encode(job.sink({ offset: part.at, length: part.length })) });
        bytes += part.length;
        if (parts.length < WINDOW_PARTS && bytes < WINDOW_BYTES) continue;
        yield parts;
        [parts, bytes] = [[], 0];
      }
    }
    if (parts.length > 0) yield parts;
  }

  async #chunk(chunk: number, signal: AbortSignal | undefined): Promise<Buffer> {
    if (this.#lastChunk?.chunk === chunk) return this.#lastChunk.data;
    const { chunks, packs } = this.#manifest.tables;
    const place = chunks.place(chunk);
    const pack = packs[place.pack];
    if (pack === undefined) throw new Error(`invariant broken: pack ${place.pack} is in the table`);
    const sealed = await this.#store.get(packObject(pack), { offset: place.offset, length: place.stored }, { signal });
    const opened = this.#openerFor(place.raw).open({ ...place, id: chunks.id(chunk) }, asBuffer(sealed), () => `${packObject(pack)} at byte ${place.offset}`, false);
    const data = Buffer.from(opened);
    this.#lastChunk = { chunk, data };
    return data;
  }

  #openerFor(bytes: number): Opener {
    if (this.#opener === undefined || this.#opener.bytes < bytes) {
      this.#opener = { opener: new Opener(this.#sodium, secretsOf(this.#manifest), newOpenScratch(bytes)), bytes };
    }
    return this.#opener.opener;
  }

  #blob(name: string): SegmentList {
    const segments = this.#manifest.tables.blobs.get(name);
    if (segments === undefined) {
      throw new StasisError('OBJECT_MISSING', `checkpoint ${this.summary.id} has no blob ${JSON.stringify(name)}`, { hint: 'another release of Stasis may have written it' });
    }
    return segments;
  }
}
