/** What a restore is asked before its tasks may run, at both stages where it stands still (src/host/restore-gate.ts). */
import { GATE_STAGES, type RestoreGate, type GateStage } from '../../host/restore-gate.ts';

/** Given the pid of the container's first process. Whoever throws refuses the restore: its tasks die without having run. */
export type GateChecks = Readonly<Record<GateStage, (pid: number, how: { readonly signal: AbortSignal }) => Promise<void>>>;

/**
 * Runs beside the runtime's restore; resolves when the tasks have been let go. Throws what a check threw, or the signal's
 * reason; the restore fails then, too. A caller whose last check always throws rebuilds a container without running it.
 */
export async function keepGate(gate: RestoreGate, checks: GateChecks, { signal }: { signal: AbortSignal }): Promise<void> {
  const aborted = Promise.withResolvers<never>();
  aborted.promise.catch(() => {});
  const onAbort = (): void => {
    gate.refuse();
    aborted.reject(signal.reason);
  };
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    for (const stage of GATE_STAGES) {
      const pid = await gate.reached(stage, { signal });
      await Promise.race([checks[stage](pid, { signal }), aborted.promise]);
      signal.throwIfAborted();
      gate.allow(stage);
    }
  } catch (error) {
    gate.refuse();
    throw error;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
