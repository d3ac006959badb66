/** Numbers of the index: unsigned LEB128, at most 2^53-1, always in the shortest form; signed ones zigzag. */
import { StasisError } from '../../core/errors.ts';
import { MiB } from '../../core/units.ts';

/** Collects bytes in chunks that other threads can read. */
export class ByteWriter {
  readonly chunks: SharedArrayBuffer[] = [];
  #chunk: Uint8Array = new Uint8Array(0);
  #used = 0;
  length = 0;

  byte(value: number): void {
    if (this.#used === this.#chunk.length) {
      const buffer = new SharedArrayBuffer(MiB);
      this.chunks.push(buffer);
      this.#chunk = new Uint8Array(buffer);
      this.#used = 0;
    }
    this.#chunk[this.#used++] = value;
    this.length += 1;
  }

  bytes(value: Uint8Array): void {
    for (let i = 0; i < value.length; i++) this.byte(value[i] as number);
  }

  varint(value: number): void {
    let rest = value;
    while (rest >= 128) {
      this.byte((rest % 128) | 128);
      rest = Math.floor(rest / 128);
    }
    this.byte(rest);
  }

  signed(value: number): void {
    this.varint(value >= 0 ? value * 2 : -value * 2 - 1);
  }
}

export class ByteReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  corrupt(what: string): StasisError {
    return new StasisError('OBJECT_CORRUPT', `the index of the tree is damaged: ${what} at byte ${this.#at}`, { details: { offset: this.#at } });
  }

  byte(): number {
    const value = this.#bytes[this.#at];
    if (value === undefined) throw this.corrupt('it ends too early');
    this.#at += 1;
    return value;
  }

  /** A view. */
  bytes(length: number): Buffer {
    if (length > this.left) throw this.corrupt('it ends too early');
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  /** `most` is the greatest value allowed, `what` names it in the error. */
  varint(most: number, what: string): number {
    let value = 0;
    let factor = 1;
    for (;;) {
      const byte = this.byte();
      value += (byte & 127) * factor;
      if (value > Number.MAX_SAFE_INTEGER) throw this.corrupt(`${what} is greater than 2^53-1`);
      if (byte < 128) {
        if (byte === 0 && factor > 1) throw this.corrupt(`${what} is not in its shortest form`);
        break;
      }
      factor *= 128;
      if (factor > 2 ** 49) throw this.corrupt(`${what} is greater than 2^53-1`);
    }
    if (value > most) throw this.corrupt(`${what} is ${value}, at most ${most} is possible`);
    return value;
  }

  signed(most: number, what: string): number {
    const value = this.varint(most * 2, what);
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }
}
