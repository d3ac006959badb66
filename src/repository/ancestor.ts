/** The checkpoint before in the lineage: what of it a writer may refer to. */
import { isStasisError } from '../core/errors.ts';
import type { CheckpointId } from '../core/ids.ts';
import type { Sodium } from './crypto/port.ts';
import type { SegmentList } from './format/segments.ts';
import { ZERO, copySegments } from './format/segments.ts';
import { wearMissing } from './intact.ts';
import type { OpenManifest } from './manifests.ts';
import { MAX_RECORD_BYTES, PAGES_BLOB, readRecords } from './page-records.ts';
import type { PageRecord } from './page-records.ts';
import type { ChunkPlaces } from './places.ts';
import { Reader } from './reader.ts';
import type { PageTable } from './stage/page-table.ts';
import type { StagePool } from './stage/pool.ts';
import type { Store } from './store/store.ts';
import { wornChunks } from './wear.ts';

interface Pages {
  readonly table: PageTable;
  /** By number in the shared index. */
  readonly records: ReadonlyMap<number, PageRecord>;
  readonly bytes: Buffer;
}

export class Ancestor {
  readonly id: CheckpointId;
  readonly #manifest: OpenManifest;
  /** By chunk of the manifest: its number in the writer's index, -1 when it is not used again. */
  readonly #numbers: Int32Array;
  /** Undefined when the checkpoint tells nothing of its pages, or cannot be read: then whole chunks are compared. */
  readonly pages: Pages | undefined;

  private constructor(manifest: OpenManifest, numbers: Int32Array, pages: Pages | undefined) {
    this.id = manifest.summary.id;
    this.#manifest = manifest;
    this.#numbers = numbers;
    this.pages = pages;
  }

  static async open(manifest: OpenManifest, places: ChunkPlaces, from: { store: Store; pool: StagePool; sodium: Sodium; signal: AbortSignal | undefined }): Promise<Ancestor> {
    const numbers = places.know(manifest.tables, await wearMissing(manifest.tables, wornChunks(manifest.tables), from.store, from));
    return new Ancestor(manifest, numbers, await readPages(manifest, numbers, from));
  }

  length(blob: string): number | undefined {
    return this.#manifest.tables.blobs.get(blob)?.length;
  }

  /** Appends a part of a blob of this checkpoint to `target` by reference. Returns how much of it is data; undefined, and nothing is done, when that cannot be. */
  copy(blob: string, offset: number, length: number, target: SegmentList): number | undefined {
    const source = this.#manifest.tables.blobs.get(blob);
    if (source === undefined || offset + length > source.length) return undefined;
    const end = offset + length;
    for (let i = source.find(offset); i < source.count && source.start(i) < end; i += 1) {
      const chunk = source.chunk(i);
      if (chunk !== ZERO && (this.#numbers[chunk] ?? -1) < 0) return undefined;
    }
    return copySegments(source, offset, length, target, this.#numbers);
  }
}

async function readPages(manifest: OpenManifest, numbers: Int32Array, { store, pool, sodium, signal }: { store: Store; pool: StagePool; sodium: Sodium; signal: AbortSignal | undefined }): Promise<Pages | undefined> {
  const length = manifest.tables.blobs.get(PAGES_BLOB)?.length ?? 0;
  if (length === 0 || length > MAX_RECORD_BYTES) return undefined;
  const bytes = new SharedArrayBuffer(Math.ceil(length / 4) * 4);
  try {
    const reader = new Reader(manifest, store, pool, sodium);
    await reader.extract([{ blob: PAGES_BLOB, sink: ({ offset }) => ({ kind: 'memory', buffer: bytes, offset }) }], { signal });
  } catch (error) {
    signal?.throwIfAborted();
    // What is damaged or gone only costs the chance to use it; a store that is away is a matter of the caller.
    if (!isStasisError(error) || error.code === 'STORE_UNAVAILABLE') throw error;
    return undefined;
  }
  return { ...(await readRecords(bytes, manifest.tables, manifest.lineage.keys.idKey, numbers)), bytes: Buffer.from(bytes) };
}
