/** A pack: a header that names it, then sealed chunks. */
import type { CheckpointId, LineageId } from '../../core/ids.ts';
import type { CipherId } from './algorithms.ts';
import { corrupt } from './bytes.ts';
import { checkHeader, writeHeader } from './header.ts';

export const PACK_HEADER_BYTES = 64;
const MAGIC = 'STASISPK';

export interface PackIdentity {
  readonly lineage: LineageId;
  readonly checkpoint: CheckpointId;
  readonly cipher: CipherId;
  /** 16 hexadecimal digits. */
  readonly digits: string;
}

export function encodePackHeader(identity: PackIdentity): Buffer {
  const header = Buffer.alloc(PACK_HEADER_BYTES);
  writeHeader(header, MAGIC, identity.lineage, identity.checkpoint);
  header.writeUInt8(identity.cipher, 10);
  header.write(identity.digits, 52, 'hex');
  return header;
}

export function checkPackHeader(bytes: Buffer, identity: PackIdentity, object: string): void {
  checkHeader(bytes, MAGIC, PACK_HEADER_BYTES, object);
  if (!bytes.subarray(0, PACK_HEADER_BYTES).equals(encodePackHeader(identity))) {
    throw corrupt(object, 'its header names another pack, lineage or cipher');
  }
}

/** The lineage that a pack says it belongs to, for cleaning up after a writer that left nothing else. */
export function packLineage(bytes: Buffer, object: string): LineageId {
  checkHeader(bytes, MAGIC, PACK_HEADER_BYTES, object);
  return bytes.toString('hex', 16, 32) as LineageId;
}

const AAD_DOMAIN = 'stasis-chunk-1';
const AAD_BYTES = AAD_DOMAIN.length + 16 + 32 + 1 + 4;

/** A reusable buffer for the associated data of the chunks of one lineage. */
export class ChunkAad {
  readonly bytes: Buffer = Buffer.alloc(AAD_BYTES);

  constructor(lineage: LineageId) {
    this.bytes.write(AAD_DOMAIN, 0, 'latin1');
    this.bytes.write(lineage, AAD_DOMAIN.length, 'hex');
  }

  set(id: Uint8Array, codec: number, rawLength: number): Buffer {
    const at = AAD_DOMAIN.length + 16;
    this.bytes.set(id, at);
    this.bytes.writeUInt8(codec, at + 32);
    this.bytes.writeUInt32LE(rawLength, at + 33);
    return this.bytes;
  }
}
