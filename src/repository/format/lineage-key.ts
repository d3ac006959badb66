/** The object `lineages/<id>`: a data key, wrapped to its recipients and signed. */
import type { LineageId } from '../../core/ids.ts';
import { StasisError } from '../../core/errors.ts';
import { KEY_BYTES, SEALED_KEY_BYTES, SIGNATURE_BYTES } from '../crypto/port.ts';
import type { WrappedKey } from '../keys/port.ts';
import { corrupt } from './bytes.ts';
import { checkHeader, readLineage, writeHeader } from './header.ts';
import { MAX_RECIPIENTS } from './limits.ts';

const MAGIC = 'STASISLK';
const FIXED_BYTES = 96;
const RECIPIENT_BYTES = KEY_BYTES + SEALED_KEY_BYTES;

/** Beside the number of recipients. */
const ENDED = 0x8000;

export const MAX_LINEAGE_BYTES = FIXED_BYTES + MAX_RECIPIENTS * RECIPIENT_BYTES + SIGNATURE_BYTES;

export interface LineageKey {
  readonly lineage: LineageId;
  readonly epoch: number;
  readonly signer: Uint8Array;
  readonly check: Uint8Array;
  readonly recipients: readonly WrappedKey[];
  /** No checkpoint goes on in this lineage. */
  readonly ended: boolean;
}

/** Everything that is signed; the signature follows it. */
export function encodeLineageKey(key: Omit<LineageKey, 'ended'> & { readonly ended?: boolean }): Buffer {
  const bytes = Buffer.alloc(FIXED_BYTES + key.recipients.length * RECIPIENT_BYTES);
  writeHeader(bytes, MAGIC, key.lineage, undefined);
  bytes.writeUInt16LE(key.recipients.length | (key.ended === true ? ENDED : 0), 10);
  bytes.writeUInt32LE(key.epoch, 12);
  bytes.set(key.signer, 32);
  bytes.set(key.check, 64);
  key.recipients.forEach(({ recipient, sealed }, i) => {
    bytes.set(recipient, FIXED_BYTES + i * RECIPIENT_BYTES);
    bytes.set(sealed, FIXED_BYTES + i * RECIPIENT_BYTES + KEY_BYTES);
  });
  return bytes;
}

/** Checks the form; the caller checks the signature over `signed`. */
export function decodeLineageKey(bytes: Buffer, lineage: LineageId, object: string): { key: LineageKey; signed: Buffer; signature: Buffer } {
  checkHeader(bytes, MAGIC, FIXED_BYTES, object);
  const count = bytes.readUInt16LE(10) & ~ENDED;
  if (count === 0 || count > MAX_RECIPIENTS) throw new StasisError('LIMIT_EXCEEDED', `${object} has ${count} recipients; 1 to ${MAX_RECIPIENTS} are allowed`, { details: { object } });
  const end = FIXED_BYTES + count * RECIPIENT_BYTES;
  if (bytes.length !== end + SIGNATURE_BYTES) throw corrupt(object, `it has ${bytes.length} bytes instead of ${end + SIGNATURE_BYTES}`);
  if (readLineage(bytes) !== lineage) throw corrupt(object, `it is the key of lineage ${readLineage(bytes)}`);
  const recipients = Array.from({ length: count }, (_, i) => {
    const at = FIXED_BYTES + i * RECIPIENT_BYTES;
    return { recipient: bytes.subarray(at, at + KEY_BYTES), sealed: bytes.subarray(at + KEY_BYTES, at + RECIPIENT_BYTES) };
  });
  const key = { lineage, epoch: bytes.readUInt32LE(12), signer: bytes.subarray(32, 64), check: bytes.subarray(64, 96), recipients, ended: (bytes.readUInt16LE(10) & ENDED) !== 0 };
  return { key, signed: bytes.subarray(0, end), signature: bytes.subarray(end) };
}
