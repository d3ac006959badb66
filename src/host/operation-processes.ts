/** The processes of an operation: the runtime and criu carry its id in their environment (STASIS_OPERATION). */
import { setTimeout as delay } from 'node:timers/promises';
import type { OperationId } from '../core/ids.ts';
import { findByEnvironment } from './proc.ts';

/** Longer than the kernel takes to collect a killed process, short enough not to hold up a start. */
const WAIT_MS = 5000;

/** Ends them all and waits until they are gone. */
export async function killOperation(operation: OperationId): Promise<void> {
  for (let waited = 0; waited < WAIT_MS; waited += 20) {
    const found = await findByEnvironment('STASIS_OPERATION', operation);
    if (found.length === 0) return;
    for (const { pid } of found) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // Gone in the meantime.
      }
    }
    await delay(20);
  }
}
