/** Readers and writers of the primitive fields. A reader never looks past its end and never believes a length. */
import { StasisError } from '../../core/errors.ts';

/** What an object that breaks the format is refused with. */
export function corrupt(object: string, why: string): StasisError {
  return new StasisError('OBJECT_CORRUPT', `${object} is damaged: ${why}`, {
    hint: 'run stasis verify on the checkpoint; a damaged object cannot be repaired, only replaced by a copy',
    details: { object },
  });
}

/** The same bytes as a Buffer; nothing is copied. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

export class ByteWriter {
  #buffer = Buffer.allocUnsafe(64 * 1024);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  #grow(count: number): void {
    if (this.#length + count <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#length + count));
    this.#buffer.copy(larger, 0, 0, this.#length);
    this.#buffer = larger;
  }

  u8(value: number): void {
    this.#grow(1);
    this.#length = this.#buffer.writeUInt8(value, this.#length);
  }

  /** Unsigned LEB128, shortest form. Plain arithmetic: bit operators stop at 32 bits. */
  varint(value: number): void {
    this.#grow(8);
    let rest = value;
    while (rest >= 0x80) {
      this.#buffer[this.#length++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#buffer[this.#length++] = rest;
  }

  bytes(value: Uint8Array): void {
    this.#grow(value.length);
    this.#buffer.set(value, this.#length);
    this.#length += value.length;
  }

  finish(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }
}

export class ByteReader {
  readonly #bytes: Buffer;
  #at = 0;
  /** The name of the object, for messages. */
  readonly object: string;

  constructor(bytes: Uint8Array, object: string) {
    this.#bytes = asBuffer(bytes);
    this.object = object;
  }

  u8(): number {
    const value = this.#bytes[this.#at];
    if (value === undefined) throw corrupt(this.object, 'it ends too early');
    this.#at += 1;
    return value;
  }

  varint(): number {
    let value = 0;
    for (let factor = 1, count = 1; count <= 8; count += 1, factor *= 0x80) {
      const byte = this.u8();
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) {
        if (byte === 0 && count > 1) throw corrupt(this.object, 'a number is not in its shortest form');
        if (!Number.isSafeInteger(value)) break;
        return value;
      }
    }
    throw corrupt(this.object, 'a number is larger than 2^53 - 1');
  }

  /** A varint of at most `limit`; `what` names it. */
  count(limit: number, what: string): number {
    const value = this.varint();
    if (value > limit) throw new StasisError('LIMIT_EXCEEDED', `${this.object} has ${value} ${what}; the limit is ${limit}`, { details: { object: this.object } });
    return value;
  }

  /** A view, not a copy. */
  bytes(length: number): Buffer {
    if (length > this.#bytes.length - this.#at) throw corrupt(this.object, 'it ends too early');
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  end(): void {
    if (this.#at !== this.#bytes.length) throw corrupt(this.object, `${this.#bytes.length - this.#at} bytes follow its end`);
  }
}
