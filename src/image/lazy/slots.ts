/** Memory for blocks, used again by the next fill: V8 does not count shared memory, and would let it lie for long. */
import { MiB } from '../../core/units.ts';

export const BLOCK_BYTES = MiB;

export class BlockSlots {
  readonly #most: number;
  readonly #free: SharedArrayBuffer[] = [];

  /** Keeps at most so many bytes that nobody uses. */
  constructor(bytes: number) {
    this.#most = Math.floor(bytes / BLOCK_BYTES);
  }

  take(): SharedArrayBuffer {
    return this.#free.pop() ?? new SharedArrayBuffer(BLOCK_BYTES);
  }

  /** Nobody writes to it any more. */
  give(slot: SharedArrayBuffer): void {
    if (this.#free.length < this.#most) this.#free.push(slot);
  }
}
