/** The object `manifests/<id>`: a header in the clear, the sealed body, the signature over both. */
import type { CheckpointId, LineageId } from '../../core/ids.ts';
import { StasisError } from '../../core/errors.ts';
import { SIGNATURE_BYTES } from '../crypto/port.ts';
import type { CipherId } from './algorithms.ts';
import { chunkIds, parseCipherId, unsupported } from './algorithms.ts';
import { corrupt } from './bytes.ts';
import { checkHeader, checkZero, readCheckpoint, readLineage, writeHeader } from './header.ts';
import { MAX_BODY_BYTES, MAX_MANIFEST_BYTES } from './limits.ts';

const MAGIC = 'STASISMF';
export const MANIFEST_HEADER_BYTES = 128;

export interface ManifestHeader {
  readonly checkpoint: CheckpointId;
  readonly lineage: LineageId;
  readonly cipher: CipherId;
  readonly epoch: number;
  readonly createdMs: number;
  readonly signer: Uint8Array;
  readonly sealedLength: number;
  readonly bodyLength: number;
}

export function encodeManifestHeader(header: ManifestHeader): Buffer {
  const bytes = Buffer.alloc(MANIFEST_HEADER_BYTES);
  writeHeader(bytes, MAGIC, header.lineage, header.checkpoint);
  bytes.writeUInt8(header.cipher, 10);
  bytes.writeUInt8(chunkIds['hmac-sha256'], 11);
  bytes.writeUInt32LE(header.epoch, 12);
  bytes.writeBigUInt64LE(BigInt(header.createdMs), 56);
  bytes.set(header.signer, 64);
  bytes.writeUInt32LE(header.sealedLength, 96);
  bytes.writeUInt32LE(header.bodyLength, 100);
  return bytes;
}

export interface ManifestParts {
  readonly header: ManifestHeader;
  /** The header as it was read: the associated data of the body. */
  readonly headerBytes: Buffer;
  readonly sealed: Buffer;
  readonly signed: Buffer;
  readonly signature: Buffer;
}

/** Checks the form and the limits; signature and seal are the caller's. */
export function splitManifest(bytes: Buffer, checkpoint: CheckpointId, object: string): ManifestParts {
  checkHeader(bytes, MAGIC, MANIFEST_HEADER_BYTES + SIGNATURE_BYTES, object);
  const header = decodeHeader(bytes, checkpoint, object);
  const end = MANIFEST_HEADER_BYTES + header.sealedLength;
  if (bytes.length !== end + SIGNATURE_BYTES) throw corrupt(object, `it has ${bytes.length} bytes instead of ${end + SIGNATURE_BYTES}`);
  return {
    header,
    headerBytes: bytes.subarray(0, MANIFEST_HEADER_BYTES),
    sealed: bytes.subarray(MANIFEST_HEADER_BYTES, end),
    signed: bytes.subarray(0, end),
    signature: bytes.subarray(end),
  };
}

function decodeHeader(bytes: Buffer, checkpoint: CheckpointId, object: string): ManifestHeader {
  if (readCheckpoint(bytes) !== checkpoint) throw corrupt(object, `it is the manifest of checkpoint ${JSON.stringify(readCheckpoint(bytes))}`);
  if (bytes.readUInt8(11) !== chunkIds['hmac-sha256']) throw unsupported(object, `chunk id algorithm ${bytes.readUInt8(11)}`);
  checkZero(bytes, 52, 56, object);
  checkZero(bytes, 104, MANIFEST_HEADER_BYTES, object);
  const header = {
    checkpoint,
    lineage: readLineage(bytes),
    cipher: parseCipherId(bytes.readUInt8(10), object),
    epoch: bytes.readUInt32LE(12),
    createdMs: Number(bytes.readBigUInt64LE(56)),
    signer: bytes.subarray(64, 96),
    sealedLength: bytes.readUInt32LE(96),
    bodyLength: bytes.readUInt32LE(100),
  };
  if (header.sealedLength > MAX_MANIFEST_BYTES || header.bodyLength > MAX_BODY_BYTES) {
    throw new StasisError('LIMIT_EXCEEDED', `${object} declares a body of ${header.bodyLength} bytes (${header.sealedLength} sealed); the limit is ${MAX_BODY_BYTES}`, { details: { object } });
  }
  return header;
}

/** The lineage a manifest says it belongs to, before anything about it is trusted. */
export function manifestLineage(bytes: Buffer, object: string): LineageId {
  checkHeader(bytes, MAGIC, MANIFEST_HEADER_BYTES, object);
  return readLineage(bytes);
}
