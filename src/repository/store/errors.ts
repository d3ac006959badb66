/** What a store says when it cannot. */
import { asStasisError, errnoCode, StasisError } from '../../core/errors.ts';
import { corrupt } from '../format/bytes.ts';

export function missing(name: string): StasisError {
  return new StasisError('OBJECT_MISSING', `${name} is not in the store`, { hint: 'it was deleted, or this is not the whole repository', details: { object: name } });
}

/** Exactly the range, or OBJECT_CORRUPT. */
export function sliceExactly(name: string, bytes: Uint8Array, range: { offset: number; length: number } | undefined): Uint8Array {
  if (range === undefined) return bytes;
  const part = bytes.subarray(range.offset, range.offset + range.length);
  if (part.length < range.length) throw tooShort(name, bytes.length, range);
  return part;
}

export function tooShort(name: string, size: number, range: { offset: number; length: number }): StasisError {
  return corrupt(name, `it has ${size} bytes, the range ${range.offset}+${range.length} was asked for`);
}

/** System errors in the words of the port's contract. */
export function storeError(error: unknown, name: string, what: string): StasisError {
  switch (errnoCode(error)) {
    case 'ENOENT':
      return missing(name);
    case 'ELOOP':
    case 'EISDIR':
      return corrupt(name, 'it is not a regular file');
    case 'EIO':
    case 'ESTALE':
    case 'ETIMEDOUT':
    case 'ENOTCONN':
    case 'EHOSTDOWN':
    case 'EMFILE':
    case 'ENFILE':
      return new StasisError('STORE_UNAVAILABLE', `cannot ${what} ${name}: ${(error as Error).message}`, { cause: error, hint: 'look at the health of the volume (kernel log) and try again' });
    default:
      return asStasisError(error, `cannot ${what} ${name}`);
  }
}
