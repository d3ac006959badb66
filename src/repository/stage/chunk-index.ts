/**
 * The ids of all chunks that a writer may refer to, in memory shared by the main thread and the workers:
 * equal data is found at once, whichever worker saw it first, and no id crosses a message for it.
 * Open addressing; an id is written before its slot is claimed, so whoever sees a slot sees a whole id.
 */
import { StasisError } from '../../core/errors.ts';
import { ID_BYTES } from '../format/chunk-table.ts';
import { MAX_CHUNKS } from '../format/limits.ts';

export interface SharedIndex {
  readonly slots: SharedArrayBuffer;
  readonly ids: SharedArrayBuffer;
  readonly count: SharedArrayBuffer;
}

/** Lazily zeroed by the kernel: only what is used takes memory. */
function newSharedIndex(): SharedIndex {
  return { slots: new SharedArrayBuffer(MAX_CHUNKS * 2 * 4), ids: new SharedArrayBuffer(MAX_CHUNKS * ID_BYTES), count: new SharedArrayBuffer(4) };
}

/** Indexes are used again: what they touched stays mapped, so a new one for each checkpoint would pile up until a full collection. */
export class IndexPool {
  readonly #free: SharedIndex[] = [];

  take(): SharedIndex {
    return this.#free.pop() ?? newSharedIndex();
  }

  /** Nobody may use the index any more. */
  give(index: SharedIndex): void {
    new Int32Array(index.slots).fill(0);
    new Int32Array(index.count).fill(0);
    this.#free.push(index);
  }
}

export class ChunkIndex {
  readonly #slots: Int32Array;
  readonly #ids: Buffer;
  readonly #count: Int32Array;
  /** An index that was drawn but lost the race for its slot; the next new chunk takes it. */
  #spare: number | undefined;

  constructor(shared: SharedIndex) {
    this.#slots = new Int32Array(shared.slots);
    this.#ids = Buffer.from(shared.ids);
    this.#count = new Int32Array(shared.count);
  }

  /** The index of an id; `added` tells whether the caller is the first and has to store the chunk. */
  add(id: Buffer): { index: number; added: boolean } {
    const mask = this.#slots.length - 1;
    for (let slot = id.readUInt32LE(0) & mask; ; slot = (slot + 1) & mask) {
      const taken = Atomics.load(this.#slots, slot);
      if (taken !== 0) {
        if (this.#equals(taken - 1, id)) return { index: taken - 1, added: false };
        continue;
      }
      const index = this.#draw(id);
      const winner = Atomics.compareExchange(this.#slots, slot, 0, index + 1);
      if (winner === 0) return { index, added: true };
      this.#spare = index;
      if (this.#equals(winner - 1, id)) return { index: winner - 1, added: false };
    }
  }

  /** A number for a chunk whose data is still being collected: {@link name} follows. It is not found by its id. */
  reserve(): number {
    const index = this.#spare ?? Atomics.add(this.#count, 0, 1);
    this.#spare = undefined;
    if (index >= MAX_CHUNKS) throw new StasisError('LIMIT_EXCEEDED', `this checkpoint needs more than ${MAX_CHUNKS} chunks`, { hint: 'docs/FORMAT.md lists the limits and their reasons' });
    return index;
  }

  name(index: number, id: Buffer): void {
    this.#ids.set(id, index * ID_BYTES);
  }

  /** Numbers that were given out: all are below this. */
  get count(): number {
    return Atomics.load(this.#count, 0);
  }

  id(index: number): Buffer {
    return this.#ids.subarray(index * ID_BYTES, (index + 1) * ID_BYTES);
  }

  #draw(id: Buffer): number {
    const index = this.reserve();
    this.name(index, id);
    return index;
  }

  #equals(index: number, id: Buffer): boolean {
    return id.compare(this.#ids, index * ID_BYTES, (index + 1) * ID_BYTES) === 0;
  }
}
