/**
 * How long what a caller sends may be: the one table, applied where a request is decoded. Whatever passes is kept by
 * operations, manifests and logs, and is shown in lists that must fit into one message.
 */
import { StasisError } from '../core/errors.ts';

export interface Bounds {
  /** Throws USAGE. */
  text(message: string, field: string, value: string): void;
  /** Throws USAGE. */
  repeated(message: string, field: string, count: number): void;
}

/** UTF-8 bytes of a text for which the table has no row. */
const TEXT_BYTES = 1024;
/** Entries of a list for which the table has no row. */
const ENTRIES = 1000;

/** By message and field. PATH_MAX of Linux for what is a path. */
const textBytes: Readonly<Record<string, number>> = {
  'RestoreRequest.bundle': 4096,
};

export const requestBounds: Bounds = {
  text: (message, field, value) => {
    const most = textBytes[`${message}.${field}`] ?? TEXT_BYTES;
    const bytes = Buffer.byteLength(value);
    if (bytes <= most) return;
    throw new StasisError('USAGE', `${words(field)} is ${bytes} bytes long`, { hint: `at most ${most} bytes are taken`, details: { field, bytes, most } });
  },
  repeated: (_message, field, count) => {
    if (count <= ENTRIES) return;
    throw new StasisError('USAGE', `${words(field)} has ${count} entries`, { hint: `at most ${ENTRIES} are taken in one request: send several`, details: { field, count, most: ENTRIES } });
  },
};

/** "operationId" as "operation id". */
function words(field: string): string {
  return field.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}
