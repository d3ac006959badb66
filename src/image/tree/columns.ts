/**
 * Columns of numbers that grow in place: the address space for the most they may hold is reserved, memory is taken as
 * it is used. Half the memory of ordinary arrays, and nothing is copied or collected while a container is frozen.
 */
import { StasisError } from '../../core/errors.ts';

/** Rows by which all columns grow. */
const STEP = 65536;

interface Growing {
  readonly buffer: ArrayBuffer;
  readonly BYTES_PER_ELEMENT: number;
}

export class Columns {
  readonly #columns: Growing[] = [];
  readonly #most: number;
  readonly #what: string;
  #rows = 0;

  /** `what` names the rows in the error when there are more than `most`: "entries". */
  constructor(most: number, what: string) {
    this.#most = Math.ceil(most / STEP) * STEP;
    this.#what = what;
  }

  u8(): Uint8Array {
    return this.#kept(new Uint8Array(this.#reserved(1)));
  }
  u16(): Uint16Array {
    return this.#kept(new Uint16Array(this.#reserved(2)));
  }
  i32(): Int32Array {
    return this.#kept(new Int32Array(this.#reserved(4)));
  }
  u32(): Uint32Array {
    return this.#kept(new Uint32Array(this.#reserved(4)));
  }
  f64(): Float64Array {
    return this.#kept(new Float64Array(this.#reserved(8)));
  }

  /** Makes room for row number `row`. Throws LIMIT_EXCEEDED beyond the most. */
  reach(row: number): void {
    if (row < this.#rows) return;
    if (row >= this.#most) throw new StasisError('LIMIT_EXCEEDED', `the tree has more than ${this.#most} ${this.#what}`, { hint: 'docs/FORMAT-TREE.md lists the limits and their reasons' });
    this.#rows += STEP;
    for (const { buffer, BYTES_PER_ELEMENT } of this.#columns) buffer.resize(this.#rows * BYTES_PER_ELEMENT);
  }

  #reserved(bytes: number): ArrayBuffer {
    return new ArrayBuffer(0, { maxByteLength: this.#most * bytes });
  }

  #kept<T extends Growing>(column: T): T {
    this.#columns.push(column);
    return column;
  }
}
