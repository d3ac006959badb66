/** The processes of an operation: the runtime and criu carry its id in their environment (STASIS_OPERATION). */
import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { OperationId } from '../core/ids.ts';

export function operationPids(operation: OperationId): number[] {
  const wanted = `STASIS_OPERATION=${operation}`;
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(wanted);
    } catch {
      return false; // Gone in the meantime, or a kernel thread.
    }
  });
}

const WAIT_MS = 5000;

/** Ends them all and waits until they are gone. */
export async function killOperation(operation: OperationId): Promise<void> {
  for (let waited = 0; waited < WAIT_MS; waited += 20) {
    const pids = operationPids(operation);
    if (pids.length === 0) return;
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // Gone in the meantime.
      }
    }
    await delay(20);
  }
}
