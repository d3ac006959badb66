/** Which signals a thread blocks, as its core image says (images/core.proto of CRIU). */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { singleEntry } from './framing.ts';
import { WireReader } from './wire.ts';

/** Of CoreEntry: the process and the thread, each with the field that holds the mask. */
const TASK = { field: 3, mask: 5 };
const THREAD = { field: 5, mask: 6 };

function maskIn(bytes: Uint8Array, field: number, what: string): bigint | undefined {
  const reader = new WireReader(bytes, what);
  while (reader.next()) if (reader.field === field) return reader.uint64();
  return undefined;
}

/**
 * Sixteen hexadecimal digits, as SigBlk of /proc/PID/status. `tid`: inside the container. Undefined where the image
 * does not say.
 */
export function blockedSignals(imageDir: string, tid: number): string | undefined {
  const name = `core-${tid}.img`;
  const path = join(imageDir, name);
  if (!existsSync(path)) return undefined;
  const reader = new WireReader(singleEntry(readFileSync(path), 'core', name), name);
  const found = new Map<number, bigint | undefined>();
  while (reader.next()) {
    const part = [TASK, THREAD].find(({ field }) => field === reader.field);
    if (part !== undefined) found.set(part.field, maskIn(reader.bytes(), part.mask, name));
  }
  return (found.get(TASK.field) ?? found.get(THREAD.field))?.toString(16).padStart(16, '0');
}
