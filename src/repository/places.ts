/** Where the chunks that a writer may refer to lie, by their number in the shared index. */
import type { CheckpointId } from '../core/ids.ts';
import { ChunkTable } from './format/chunk-table.ts';
import type { PackRef, Tables } from './format/body.ts';
import type { SegmentList } from './format/segments.ts';
import { ZERO } from './format/segments.ts';
import { ChunkIndex } from './stage/chunk-index.ts';
import type { SharedIndex } from './stage/chunk-index.ts';
import type { ShippedPack } from './stage/messages.ts';
import { MAX_CHUNKS } from './format/limits.ts';

const COLUMNS = 5;

export class ChunkPlaces {
  readonly shared: SharedIndex;
  readonly #index: ChunkIndex;
  readonly #packs: PackRef[] = [];
  /** Rows of pack, offset, stored, raw, codec. */
  #rows = new Uint32Array(1024 * COLUMNS);

  constructor(shared: SharedIndex) {
    this.shared = shared;
    this.#index = new ChunkIndex(shared);
  }

  /** Offers the chunks of an earlier checkpoint for reuse, except the worn ones. Their numbers in the index, -1 for those that are not offered. */
  know({ packs, chunks }: Tables, worn: Uint8Array): Int32Array {
    const base = this.#packs.length;
    this.#packs.push(...packs);
    const numbers = new Int32Array(chunks.count).fill(-1);
    // Half of the index stays for what is new.
    for (let i = 0; i < Math.min(chunks.count, MAX_CHUNKS / 2); i += 1) {
      if (worn[i] === 1) continue;
      const { index, added } = this.#index.add(chunks.id(i));
      const place = chunks.place(i);
      if (added) this.#set(index, [base + place.pack, place.offset, place.stored, place.raw, place.codec]);
      numbers[i] = index;
    }
    return numbers;
  }

  id(index: number): Buffer {
    return this.#index.id(index);
  }

  addPack(checkpoint: CheckpointId, pack: ShippedPack): void {
    const number = this.#packs.push({ checkpoint, digits: pack.digits, size: pack.used }) - 1;
    for (let i = 0; i < pack.chunks.length; i += COLUMNS) {
      const [index = 0, ...row] = pack.chunks.subarray(i, i + COLUMNS);
      this.#set(index, [number, ...row]);
    }
  }

  #set(index: number, row: readonly number[]): void {
    if ((index + 1) * COLUMNS > this.#rows.length) {
      const rows = this.#rows;
      this.#rows = new Uint32Array(Math.max(rows.length * 2, (index + 1) * COLUMNS));
      this.#rows.set(rows);
    }
    this.#rows.set(row, index * COLUMNS);
  }

  /** The tables of a manifest: only what the blobs use, in the order of the format. Renumbers the blobs. */
  tables(blobs: ReadonlyMap<string, SegmentList>): Tables {
    const used = this.used(blobs);
    const row = (index: number, column: number): number => this.#rows[index * COLUMNS + column] ?? 0;
    const order = used.sort((a, b) => row(a, 0) - row(b, 0) || row(a, 1) - row(b, 1));
    const packs: PackRef[] = [];
    const chunks = new ChunkTable(order.length);
    const numbers = new Uint32Array(this.#rows.length / COLUMNS);
    let last = -1;
    for (const index of order) {
      const pack = this.#packs[row(index, 0)];
      if (pack === undefined) throw new Error(`invariant broken: chunk ${index} lies in no pack`);
      if (row(index, 0) !== last) packs.push(pack);
      last = row(index, 0);
      numbers[index] = chunks.add(this.#index.id(index), { pack: packs.length - 1, offset: row(index, 1), stored: row(index, 2), raw: row(index, 3), codec: row(index, 4) });
    }
    for (const segments of blobs.values()) segments.renumber(numbers);
    return { packs, chunks, blobs };
  }

  /** The numbers of the chunks that these blobs refer to, ascending. */
  used(blobs: ReadonlyMap<string, SegmentList>): Uint32Array {
    const seen = new Uint8Array(this.#index.count);
    let count = 0;
    for (const segments of blobs.values()) {
      for (let i = 0; i < segments.count; i += 1) {
        const chunk = segments.chunk(i);
        if (chunk === ZERO || seen[chunk] === 1) continue;
        seen[chunk] = 1;
        count += 1;
      }
    }
    const used = new Uint32Array(count);
    for (let chunk = 0, at = 0; at < count; chunk += 1) if (seen[chunk] === 1) used[at++] = chunk;
    return used;
  }
}
