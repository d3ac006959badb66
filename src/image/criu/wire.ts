/** The protobuf wire format (protobuf.dev/programming-guides/encoding), as much of it as CRIU's images use. Hostile input ends in OBJECT_CORRUPT. */
import { StasisError } from '../../core/errors.ts';

const VARINT = 0;
const FIXED64 = 1;
const LENGTH = 2;
const FIXED32 = 5;

/** A varint is read as 28 + 28 + 8 bits, so that no step leaves the exact range of a double. */
const BITS_28 = 2 ** 28;
const BITS_56 = 2 ** 56;
const MAX_VARINT_BYTES = 10;
const PAGE = 4096;

/**
 * Walks the fields of one message: `while (reader.next()) switch (reader.field) { … }`.
 * A value accessor may be called once or not at all per field; it throws when the field has another type.
 */
export class WireReader {
  field = 0;
  readonly #bytes: Uint8Array;
  readonly #what: string;
  #at = 0;
  #from = 0;
  #type = VARINT;
  #low = 0;
  #middle = 0;
  #high = 0;
  #start = 0;

  /** `what` names the message in errors. */
  constructor(bytes: Uint8Array, what: string) {
    this.#bytes = bytes;
    this.#what = what;
  }

  next(): boolean {
    if (this.#at >= this.#bytes.length) return false;
    this.#from = this.#at;
    this.#varint();
    const tag = this.#number();
    this.#type = tag % 8;
    this.field = Math.floor(tag / 8);
    if (this.field === 0) throw this.#corrupt('has a field with number 0');
    switch (this.#type) {
      case VARINT:
        this.#varint();
        return true;
      case LENGTH:
        this.#varint();
        this.#skip(this.#number());
        return true;
      case FIXED64:
        this.#skip(8);
        return true;
      case FIXED32:
        this.#skip(4);
        return true;
      default:
        throw this.#corrupt(`has a field of unknown wire type ${this.#type}`);
    }
  }

  /** An unsigned number up to 2^53 - 1. */
  uint(): number {
    this.#expect(VARINT);
    return this.#number();
  }

  /** A number that CRIU reads as 32 bits: it would see another one in a larger. */
  uint32(): number {
    const value = this.uint();
    if (value > 0xffffffff) throw this.#corrupt(`has field ${this.field} with more than 32 bits`);
    return value;
  }

  /** A signed int32 or int64 that is not zigzag-coded. */
  int(): number {
    this.#expect(VARINT);
    if (this.#high < 128) return this.#number();
    return this.#safe(Number(BigInt.asIntN(64, this.#bigint())));
  }

  uint64(): bigint {
    this.#expect(VARINT);
    return this.#bigint();
  }

  int64(): bigint {
    return BigInt.asIntN(64, this.uint64());
  }

  /** A signed number that is zigzag-coded. */
  zigzag64(): bigint {
    const value = this.uint64();
    return value % 2n === 0n ? value / 2n : -(value + 1n) / 2n;
  }

  fixed64(): bigint {
    this.#expect(FIXED64);
    return new DataView(this.#bytes.buffer, this.#bytes.byteOffset + this.#at - 8, 8).getBigUint64(0, true);
  }

  /** A bool that is 0 or 1, as every writer writes it. */
  bit(): boolean {
    const value = this.uint();
    if (value > 1) throw this.#corrupt(`has field ${this.field} with a truth value of ${value}`);
    return value === 1;
  }

  /** A page-aligned address: exact as a double over the whole 64-bit range. */
  address(): number {
    this.#expect(VARINT);
    if (this.#low % PAGE !== 0) throw this.#corrupt('has an address that is not page-aligned');
    return this.#low + this.#middle * BITS_28 + this.#high * BITS_56;
  }

  bool(): boolean {
    this.#expect(VARINT);
    return this.#low + this.#middle + this.#high !== 0;
  }

  /** A view, not a copy. */
  bytes(): Uint8Array {
    this.#expect(LENGTH);
    return this.#bytes.subarray(this.#start, this.#at);
  }

  /** A string, bytes or a message. */
  get isBytes(): boolean {
    return this.#type === LENGTH;
  }

  /** The field as it stands there, with its tag: a view. */
  raw(): Uint8Array {
    return this.#bytes.subarray(this.#from, this.#at);
  }

  text(): string {
    return new TextDecoder().decode(this.bytes());
  }

  /** A repeated uint32 or uint64, packed or not: the numbers of this occurrence. */
  *uints(): Generator<number> {
    if (this.#type !== LENGTH) {
      yield this.uint();
      return;
    }
    const packed = new WireReader(this.bytes(), this.#what);
    while (packed.#at < packed.#bytes.length) {
      packed.#varint();
      yield packed.#number();
    }
  }

  #varint(): void {
    this.#low = this.#middle = this.#high = 0;
    let factor = 1;
    for (let i = 0; i < MAX_VARINT_BYTES; i++) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) throw this.#corrupt('ends in the middle of a number');
      if (i === 4 || i === 8) factor = 1;
      const bits = (byte & 0x7f) * factor;
      if (i < 4) this.#low += bits;
      else if (i < 8) this.#middle += bits;
      else this.#high += bits;
      factor *= 128;
      if (byte < 0x80) {
        if (this.#high > 255) throw this.#corrupt('has a number of more than 64 bits');
        return;
      }
    }
    throw this.#corrupt('has a number longer than 10 bytes');
  }

  #number(): number {
    return this.#safe(this.#low + this.#middle * BITS_28 + this.#high * BITS_56);
  }

  #bigint(): bigint {
    return BigInt(this.#low) | (BigInt(this.#middle) << 28n) | (BigInt(this.#high) << 56n);
  }

  #safe(value: number): number {
    if (!Number.isSafeInteger(value)) throw this.#corrupt('has a number beyond 2^53');
    return value;
  }

  #skip(length: number): void {
    this.#start = this.#at;
    this.#at += length;
    if (this.#at > this.#bytes.length) throw this.#corrupt('ends in the middle of a field');
  }

  #expect(type: number): void {
    if (this.#type !== type) throw this.#corrupt(`has field ${this.field} with wire type ${this.#type} instead of ${type}`);
  }

  #corrupt(problem: string): StasisError {
    return new StasisError('OBJECT_CORRUPT', `${this.#what} ${problem}`);
  }
}

/**
 * The fields of a message of which none but the named ones may occur twice: parsers differ in what they make of that,
 * and what is judged must be what CRIU will take.
 */
export function* onlyOnce(message: Uint8Array, what: string, ...repeated: readonly number[]): Generator<WireReader> {
  const reader = new WireReader(message, what);
  const seen = new Set<number>();
  while (reader.next()) {
    if (seen.has(reader.field) && !repeated.includes(reader.field)) throw new StasisError('OBJECT_CORRUPT', `${what} has field ${reader.field} twice`);
    seen.add(reader.field);
    yield reader;
  }
}

/** Encodes messages of varints and byte strings. Numbers are integers, or page-aligned beyond 2^53. */
export class WireWriter {
  #bytes = new Uint8Array(64);
  #length = 0;

  uint(field: number, value: number): this {
    this.#varint(field * 8 + VARINT);
    this.#varint(value);
    return this;
  }

  bytes(field: number, value: Uint8Array): this {
    this.#varint(field * 8 + LENGTH);
    this.#varint(value.length);
    this.#room(value.length);
    this.#bytes.set(value, this.#length);
    this.#length += value.length;
    return this;
  }

  /** A view of what was written since the last reset; valid until the next write. */
  result(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  reset(): this {
    this.#length = 0;
    return this;
  }

  #varint(value: number): void {
    this.#room(MAX_VARINT_BYTES);
    let rest = value;
    while (rest >= 128) {
      this.#bytes[this.#length++] = (rest % 128) | 0x80;
      rest = Math.floor(rest / 128);
    }
    this.#bytes[this.#length++] = rest;
  }

  #room(count: number): void {
    if (this.#length + count <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + count));
    larger.set(this.result());
    this.#bytes = larger;
  }
}
