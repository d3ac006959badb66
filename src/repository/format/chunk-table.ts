/** Where chunks lie: columns instead of objects, because there can be a million of them. */
import { invariant } from '../../core/assert.ts';

export const ID_BYTES = 32;

export interface ChunkPlace {
  readonly pack: number;
  readonly offset: number;
  readonly stored: number;
  readonly raw: number;
  readonly codec: number;
}

export class ChunkTable {
  #ids: Buffer;
  #columns: Uint32Array;
  #codecs: Uint8Array;
  #count = 0;

  constructor(capacity: number) {
    this.#ids = Buffer.alloc(capacity * ID_BYTES);
    this.#columns = new Uint32Array(capacity * 4);
    this.#codecs = new Uint8Array(capacity);
  }

  get count(): number {
    return this.#count;
  }

  add(id: Uint8Array, place: ChunkPlace): number {
    const index = this.#count;
    if (index === this.#codecs.length) this.#grow();
    this.#ids.set(id, index * ID_BYTES);
    this.#columns.set([place.pack, place.offset, place.stored, place.raw], index * 4);
    this.#codecs[index] = place.codec;
    this.#count += 1;
    return index;
  }

  #grow(): void {
    const capacity = Math.max(64, this.#codecs.length * 2);
    const [ids, columns, codecs] = [this.#ids, this.#columns, this.#codecs];
    this.#ids = Buffer.alloc(capacity * ID_BYTES);
    this.#ids.set(ids);
    this.#columns = new Uint32Array(capacity * 4);
    this.#columns.set(columns);
    this.#codecs = new Uint8Array(capacity);
    this.#codecs.set(codecs);
  }

  id(index: number): Buffer {
    invariant(index < this.#count, 'chunk index in range');
    return this.#ids.subarray(index * ID_BYTES, (index + 1) * ID_BYTES);
  }

  place(index: number): ChunkPlace {
    invariant(index < this.#count, 'chunk index in range');
    const [pack = 0, offset = 0, stored = 0, raw = 0] = this.#columns.subarray(index * 4, index * 4 + 4);
    return { pack, offset, stored, raw, codec: this.#codecs[index] ?? 0 };
  }
}
