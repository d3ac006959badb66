/** What all objects begin with: magic, version, lineage, checkpoint. */
import type { CheckpointId, LineageId } from '../../core/ids.ts';
import { unsupported } from './algorithms.ts';
import { corrupt } from './bytes.ts';
import { FORMAT_VERSION } from './limits.ts';

export const LINEAGE_OFFSET = 16;
export const CHECKPOINT_OFFSET = 32;
export const CHECKPOINT_LENGTH = 20;

export function writeHeader(target: Buffer, magic: string, lineage: LineageId, checkpoint: CheckpointId | undefined): void {
  target.write(magic, 0, 'latin1');
  target.writeUInt16LE(FORMAT_VERSION, 8);
  target.write(lineage, LINEAGE_OFFSET, 'hex');
  if (checkpoint !== undefined) target.write(checkpoint, CHECKPOINT_OFFSET, 'latin1');
}

/** Checks kind, version and smallest size. What the object says about its own name is the caller's to check. */
export function checkHeader(bytes: Buffer, magic: string, minimum: number, object: string): void {
  if (bytes.length < minimum) throw corrupt(object, `it has ${bytes.length} bytes, at least ${minimum} are needed`);
  if (bytes.toString('latin1', 0, 8) !== magic) throw corrupt(object, 'it does not begin as objects of its kind do');
  const version = bytes.readUInt16LE(8);
  if (version !== FORMAT_VERSION) throw unsupported(object, `format version ${version}`);
}

export function checkZero(bytes: Buffer, start: number, end: number, object: string): void {
  for (let i = start; i < end; i += 1) {
    if (bytes[i] !== 0) throw corrupt(object, `reserved byte ${i} is not zero`);
  }
}

export function readLineage(bytes: Buffer): LineageId {
  return bytes.toString('hex', LINEAGE_OFFSET, LINEAGE_OFFSET + 16) as LineageId;
}

export function readCheckpoint(bytes: Buffer): string {
  return bytes.toString('latin1', CHECKPOINT_OFFSET, CHECKPOINT_OFFSET + CHECKPOINT_LENGTH);
}
