/** The object `writers/<lineage>-<checkpoint>`: while it is there, nobody deletes packs of the lineage. */
import type { CheckpointId, LineageId } from '../../core/ids.ts';
import { writeHeader } from './header.ts';

export function encodeWriterMark(lineage: LineageId, checkpoint: CheckpointId): Buffer {
  const bytes = Buffer.alloc(56);
  writeHeader(bytes, 'STASISWR', lineage, checkpoint);
  return bytes;
}
