/** Changes in messages of images; every other byte stays as it is. */
import { WireReader, WireWriter } from '../wire.ts';

/** The message with each occurrence of a field replaced: bytes become bytes, a number a number, nothing takes it out. */
export function edited(message: Uint8Array, what: string, field: number, change: (value: Uint8Array) => Uint8Array | number | undefined): Uint8Array {
  const reader = new WireReader(message, what);
  const parts: Uint8Array[] = [];
  while (reader.next()) {
    if (reader.field !== field) {
      parts.push(reader.raw());
      continue;
    }
    const value = change(reader.isBytes ? reader.bytes() : reader.raw());
    if (typeof value === 'number') parts.push(new WireWriter().uint(field, value).result());
    else if (value !== undefined) parts.push(new WireWriter().bytes(field, value).result());
  }
  return Buffer.concat(parts);
}

/** The first value of a field that is a number; undefined where it is not there. */
export function numberIn(message: Uint8Array, what: string, field: number): number | undefined {
  const reader = new WireReader(message, what);
  while (reader.next()) if (reader.field === field) return reader.uint32();
  return undefined;
}
