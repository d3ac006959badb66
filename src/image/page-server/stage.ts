/** Where pages lie between the socket and the writer: one slab after the other is filled, cut into pieces, and given back when its pieces are taken. */
import { invariant } from '../../core/assert.ts';
import type { Piece } from '../../repository/stage/port.ts';
import { WindowCutter } from '../criu/windows.ts';
import type { Slab, SlabPool } from './slab-pool.ts';

export interface StagedPiece {
  readonly piece: Piece;
  readonly slab: Slab;
}

export class Stage {
  readonly #pool: SlabPool;
  readonly #cutter = new WindowCutter();
  /** Users of each slab: the pieces that are not taken yet, and the stage itself while it fills the slab. */
  readonly #uses = new Map<Slab, number>();
  #slab: Slab | undefined;
  /** In the current slab: bytes before `cutAt` are pieces, up to `writeAt` they wait to be cut. */
  #cutAt = 0;
  #writeAt = 0;
  #wake: (() => void) | undefined;
  #stopWaiting = (): void => {};

  constructor(pool: SlabPool) {
    this.#pool = pool;
  }

  /** Where the next bytes go; undefined when staging is full at the moment. */
  room(): Uint8Array | undefined {
    if (this.#slab === undefined || this.#writeAt === this.#slab.bytes.length) this.#advance();
    return this.#slab === undefined || this.#writeAt === this.#slab.bytes.length ? undefined : this.#slab.bytes.subarray(this.#writeAt);
  }

  /** `count` bytes of memory at `address` were put at the start of room(). Gives the pieces that they complete. */
  *wrote(address: number, count: number): Generator<StagedPiece> {
    this.#writeAt += count;
    for (const length of this.#cutter.push(address, count)) yield this.#cut(length);
  }

  /** An address space ends: the pieces of what is left of it. */
  *end(): Generator<StagedPiece> {
    for (const length of this.#cutter.end()) yield this.#cut(length);
  }

  /** The piece has been read and its memory may be used again. */
  release({ slab }: StagedPiece): void {
    this.#drop(slab);
  }

  /** Calls `wake` once when it is worth asking for room() again. */
  whenRoom(wake: () => void): void {
    this.#wake = wake;
    this.#stopWaiting();
    this.#stopWaiting = this.#pool.onFree(() => this.#wakeUp());
  }

  /** Gives all slabs back, whatever they hold: nobody may read them any more. */
  close(): void {
    this.#stopWaiting();
    this.#wake = undefined;
    for (const slab of this.#uses.keys()) this.#pool.give(slab);
    this.#uses.clear();
    this.#slab = undefined;
  }

  /** A piece lies in one slab, so what is not cut yet (at most one piece) moves along. */
  #advance(): void {
    const last = this.#slab;
    if (last !== undefined && this.#uses.get(last) === 1) {
      // Nobody reads it any more: start over in the same slab. So a stage that holds one slab never waits for a second.
      last.bytes.copyWithin(0, this.#cutAt, this.#writeAt);
      this.#rewind();
      return;
    }
    const next = this.#pool.take();
    if (next === undefined) return;
    if (last !== undefined) next.bytes.set(last.bytes.subarray(this.#cutAt, this.#writeAt));
    this.#rewind();
    this.#uses.set(next, 1);
    this.#slab = next;
    if (last !== undefined) this.#drop(last);
  }

  #rewind(): void {
    this.#writeAt -= this.#cutAt;
    this.#cutAt = 0;
  }

  #cut(length: number): StagedPiece {
    const slab = this.#slab;
    invariant(slab !== undefined, 'pages lie in a slab');
    this.#uses.set(slab, (this.#uses.get(slab) ?? 0) + 1);
    const piece = { source: { kind: 'memory', buffer: slab.buffer, offset: this.#cutAt, length }, zeroPages: true } as const;
    this.#cutAt += length;
    return { piece, slab };
  }

  #drop(slab: Slab): void {
    const uses = (this.#uses.get(slab) ?? 0) - 1;
    if (uses > 0) this.#uses.set(slab, uses);
    else if (this.#uses.delete(slab)) this.#pool.give(slab);
    if (slab === this.#slab && uses === 1) this.#wakeUp();
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    this.#stopWaiting();
    wake?.();
  }
}
