/**
 * Where memory is cut into pieces. The cut depends on addresses only, never on how many pages lie before:
 * a page that appears or goes changes its own piece and leaves the others as they were, so they are found
 * again in the lineage.
 *
 * An address space is halved, and halved again, until what is present in a part fits into one piece:
 * a piece is all that is present in the largest aligned power-of-two window that holds at most WINDOW_BYTES.
 * Dense memory is so cut at 1 MiB boundaries, while thousands of small mappings far apart share a few pieces.
 */
import { invariant } from '../../core/assert.ts';
import { MiB } from '../../core/units.ts';

/** The smallest window and the largest piece. */
export const WINDOW_BYTES = MiB;
/** Above all user addresses (five-level paging). */
const TOP = 2 ** 57;

interface Run {
  address: number;
  bytes: number;
}

/** Fed with what is present, in ascending order and in any portions; gives the lengths of the pieces in bytes. */
export class WindowCutter {
  readonly #pending: Run[] = [];
  #pendingBytes = 0;
  /** Addresses below this have been given out: a window that begins there is known to be too full. */
  #cutTo = 0;

  *push(address: number, bytes: number): Generator<number> {
    const last = this.#pending.at(-1);
    invariant(address >= (last === undefined ? this.#cutTo : last.address + last.bytes), 'memory is cut in ascending order');
    let [at, left] = [address, bytes];
    while (left > 0) {
      // One byte more than a piece can hold is enough to decide where the first piece ends.
      const take = Math.min(left, WINDOW_BYTES + 1 - this.#pendingBytes);
      this.#add(at, take);
      at += take;
      left -= take;
      if (this.#pendingBytes > WINDOW_BYTES) yield this.#cut();
    }
  }

  /** The pieces of what is left. Afterwards the cutter is as new. */
  *end(): Generator<number> {
    while (this.#pendingBytes > 0) yield this.#cut();
    this.#cutTo = 0;
  }

  /** Bytes pushed and not yet part of a piece: at most WINDOW_BYTES. */
  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  #add(address: number, bytes: number): void {
    const last = this.#pending.at(-1);
    if (last !== undefined && last.address + last.bytes === address) last.bytes += bytes;
    else this.#pending.push({ address, bytes });
    this.#pendingBytes += bytes;
  }

  /**
   * The first piece. A window that reaches beyond the last pending byte may still get more, but then it
   * already holds more than a piece can (or nothing more will come): what is counted decides.
   */
  #cut(): number {
    const first = this.#pending[0]?.address ?? 0;
    let [piece, end] = [0, 0];
    for (let size = WINDOW_BYTES; size <= TOP; size *= 2) {
      const start = Math.floor(first / size) * size;
      if (start < this.#cutTo) break;
      const present = this.#presentBelow(start + size);
      if (present > WINDOW_BYTES) break;
      [piece, end] = [present, start + size];
    }
    invariant(piece > 0, 'a window of memory holds at most its own size');
    this.#cutTo = end;
    this.#remove(piece);
    return piece;
  }

  #presentBelow(end: number): number {
    let present = 0;
    for (const { address, bytes } of this.#pending) {
      if (address >= end) break;
      present += Math.min(bytes, end - address);
    }
    return present;
  }

  #remove(count: number): void {
    let [left, gone] = [count, 0];
    for (const run of this.#pending) {
      const part = Math.min(run.bytes, left);
      run.address += part;
      run.bytes -= part;
      left -= part;
      if (run.bytes > 0) break;
      gone += 1;
    }
    this.#pending.splice(0, gone);
    this.#pendingBytes -= count;
  }
}
