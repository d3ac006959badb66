/** The object `writers/<lineage>-<checkpoint>`: while it is there, nobody deletes packs of the lineage. */
import type { CheckpointId, LineageId } from '../../core/ids.ts';
import { writeHeader } from './header.ts';

const MARK_BYTES = 64;
const GIVEN_UP_AT = 52;
const RESERVED_AT = 56;

export interface WriterMark {
  /** Of a fence: the writer itself, or its agent after a restart, says that there is to be no such checkpoint. */
  readonly givenUp: boolean;
  /** What the writer may still put into the store; others count with it. */
  readonly reservedBytes: number;
}

export function encodeWriterMark(lineage: LineageId, checkpoint: CheckpointId, { givenUp, reservedBytes }: WriterMark): Buffer {
  const bytes = Buffer.alloc(MARK_BYTES);
  writeHeader(bytes, 'STASISWR', lineage, checkpoint);
  bytes[GIVEN_UP_AT] = givenUp ? 1 : 0;
  bytes.writeBigUInt64LE(BigInt(reservedBytes), RESERVED_AT);
  return bytes;
}

/** Of one that cannot be read: what keeps more. */
export function decodeWriterMark(bytes: Buffer): WriterMark {
  if (bytes.length !== MARK_BYTES) return { givenUp: false, reservedBytes: 0 };
  return { givenUp: bytes[GIVEN_UP_AT] === 1, reservedBytes: Number(bytes.readBigUInt64LE(RESERVED_AT)) };
}
