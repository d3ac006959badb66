/** The processes of one operation: the runtime, criu and its action scripts carry the operation's id in their environment. */
import { setTimeout as delay } from 'node:timers/promises';
import { findByEnvironment, processAlive } from '../../host/proc.ts';

export const OPERATION_VARIABLE = 'STASIS_OPERATION';

/** How long killed processes may take to disappear. */
const DEATH_MS = 2000;

/**
 * Kills whatever of the operation still runs. criu lets go of the processes it holds when it dies. Resolves when all of
 * it is gone, or after two seconds.
 */
export async function killOperation(operationId: string): Promise<number> {
  const processes = await findByEnvironment(OPERATION_VARIABLE, operationId);
  for (const { pid } of processes) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It ended by itself.
    }
  }
  for (let waited = 0; waited < DEATH_MS && processes.some(({ pid, startTime }) => processAlive(pid, startTime)); waited += 10) await delay(10);
  return processes.length;
}
