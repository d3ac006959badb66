/** From ranges of blobs to ranged reads of packs: which bytes to fetch, and what to do with the chunks in them. */
import { invariant } from '../core/assert.ts';
import type { Tables } from './format/body.ts';
import type { SegmentList } from './format/segments.ts';
import { ZERO } from './format/segments.ts';

/** A part of a chunk and where it goes. */
export interface PlannedPart<T> {
  readonly chunk: number;
  readonly offset: number;
  readonly length: number;
  readonly target: T;
}

export interface PlannedFetch<T> {
  readonly pack: number;
  readonly offset: number;
  readonly length: number;
  /** By chunk, in the order of the pack. */
  readonly chunks: readonly { readonly chunk: number; readonly parts: readonly PlannedPart<T>[] }[];
}

/** The stored parts of bytes [offset, offset + length) of a blob, in order; `at` counts from the start of the blob. */
export function* storedParts(segments: SegmentList, offset: number, length: number): Iterable<{ chunk: number; offset: number; at: number; length: number }> {
  const end = offset + length;
  invariant(offset >= 0 && length >= 0 && end <= segments.length, `range ${offset}+${length} lies in the blob of ${segments.length} bytes`);
  for (let i = segments.find(offset); i < segments.count && segments.start(i) < end; i += 1) {
    const from = Math.max(offset, segments.start(i));
    const to = Math.min(end, segments.end(i));
    if (segments.chunk(i) === ZERO || from >= to) continue;
    yield { chunk: segments.chunk(i), offset: segments.chunkOffset(i) + from - segments.start(i), at: from, length: to - from };
  }
}

/** A gap that costs less to read than another request. */
const GAP_BYTES = 256 * 1024;

/** Groups parts by chunk, then see {@link planChunks}. */
export function planFetches<T>(parts: readonly PlannedPart<T>[], tables: Tables, mostBytes: number): PlannedFetch<T>[] {
  const byChunk = new Map<number, PlannedPart<T>[]>();
  for (const part of parts) {
    const list = byChunk.get(part.chunk);
    if (list === undefined) byChunk.set(part.chunk, [part]);
    else list.push(part);
  }
  // Chunks are numbered in the order of (pack, offset).
  const sorted = [...byChunk].sort(([a], [b]) => a - b).map(([chunk, list]) => ({ chunk, parts: list }));
  return planChunks(sorted, tables, mostBytes);
}

/** Joins neighbours to fetches of at most `mostBytes`, or of one chunk. `wanted` is in the order of the chunks. */
export function planChunks<T>(wanted: PlannedFetch<T>['chunks'], { chunks }: Tables, mostBytes: number): PlannedFetch<T>[] {
  const fetches: { pack: number; offset: number; length: number; chunks: PlannedFetch<T>['chunks'][number][] }[] = [];
  for (const entry of wanted) {
    const { pack, offset, stored } = chunks.place(entry.chunk);
    const open = fetches.at(-1);
    const end = (open?.offset ?? 0) + (open?.length ?? 0);
    if (open?.pack === pack && offset - end <= GAP_BYTES && offset + stored - open.offset <= mostBytes) {
      open.length = offset + stored - open.offset;
      open.chunks.push(entry);
    } else {
      fetches.push({ pack, offset, length: stored, chunks: [entry] });
    }
  }
  return fetches;
}
