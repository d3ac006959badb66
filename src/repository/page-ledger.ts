/** Collects what the chunks of a new checkpoint hold, page by page, for the blob of page records. */
import type { Ancestor } from './ancestor.ts';
import { DIGEST_BYTES } from './crypto/page-digests.ts';
import type { SegmentList } from './format/segments.ts';
import { encodeRecord, MAX_RECORD_BYTES, PAGES_BLOB } from './page-records.ts';
import type { ChunkPlaces } from './places.ts';
import type { ChunkPages } from './stage/messages.ts';
import { PIECE_BYTES } from './stage/port.ts';

/** With more parts than this the old records are written together again. */
const MOST_PARTS = 256;

export class PageLedger {
  /** By chunk. */
  readonly #digests = new Map<number, Uint8Array>();
  #bytes = 0;

  add({ chunks, digests }: ChunkPages): void {
    let at = 0;
    for (let row = 0; row < chunks.length; row += 2) {
      const [index = 0, pages = 0] = chunks.subarray(row, row + 2);
      this.#digests.set(index, digests.subarray(at, at + pages * DIGEST_BYTES));
      at += pages * DIGEST_BYTES;
    }
    this.#bytes += digests.length;
  }

  /**
   * The blob for the chunks in `used`: records that the ancestor has are appended to `segments` by reference, the others
   * are returned, in pieces. Nothing at all when they would be too many to be read.
   */
  settle(places: ChunkPlaces, used: Uint32Array, ancestor: Ancestor | undefined, segments: SegmentList): Uint8Array<ArrayBuffer>[] {
    const old = ancestor?.pages;
    if (this.#bytes + (old?.bytes.length ?? 0) > 2 * MAX_RECORD_BYTES) return [];
    const fresh: Uint8Array[] = [];
    for (const run of keptRuns(used, old?.records)) {
      const copied = segments.count < MOST_PARTS && ancestor?.copy(PAGES_BLOB, run.at, run.length, segments) !== undefined;
      if (!copied && old !== undefined) fresh.push(old.bytes.subarray(run.at, run.at + run.length));
    }
    for (const chunk of used) {
      const digests = this.#digests.get(chunk);
      if (digests !== undefined) fresh.push(encodeRecord(places.id(chunk), digests));
    }
    return cut(Buffer.concat(fresh));
  }
}

/** The ancestor's records of chunks that are used, neighbours joined. */
function keptRuns(used: Uint32Array, records: ReadonlyMap<number, { at: number; length: number }> | undefined): { at: number; length: number }[] {
  if (records === undefined) return [];
  const runs: { at: number; length: number }[] = [];
  const kept = [...used].map((chunk) => records.get(chunk)).filter((record) => record !== undefined);
  for (const { at, length } of kept.sort((a, b) => a.at - b.at)) {
    const last = runs.at(-1);
    if (last !== undefined && last.at + last.length === at) last.length += length;
    else runs.push({ at, length });
  }
  return runs;
}

function cut(bytes: Buffer): Uint8Array<ArrayBuffer>[] {
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) pieces.push(Uint8Array.from(bytes.subarray(at, at + PIECE_BYTES)));
  return pieces;
}
