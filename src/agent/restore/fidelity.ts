/** Before a task of a restored container runs: it is what was saved, or the restore ends (docs/FIDELITY.md). */
import { closeMasks, compare, describeDifference, observe, putBackMounts, unlike, type Difference } from '../../runtime/fidelity/index.ts';
import { readSpec } from '../../runtime/index.ts';
import type { Finding } from '../../runtime/types.ts';
import type { AgentContext } from '../context.ts';
import { allowedFindings, differs, refusedOf } from '../differences.ts';
import type { Operation } from '../operation.ts';
import type { RestorePlan } from './restore.ts';

interface Restoring {
  readonly agent: AgentContext;
  readonly plan: RestorePlan;
  readonly operation: Operation;
}

/**
 * When all tasks are made and the network is still locked: namespaces and mounts are final here. Options of mounts that were
 * lost are put back first. Throws RESTORE_DIFFERS.
 */
export async function requirePlaces(restoring: Restoring, bundle: string, pid: number): Promise<void> {
  const { saved: { fidelity }, description } = restoring.plan;
  if (description.imported !== undefined) {
    closeMasks(await readSpec(bundle), pid);
    return;
  }
  if (fidelity === undefined) return;
  putBackMounts(fidelity, pid);
  // Helpers of criu may still be among the tasks.
  judge(restoring, compare(fidelity, observe(pid, 'places')).filter(({ attribute }) => attribute !== 'tasks'));
}

/**
 * When the tasks would run. `pid`: the first process, which stands still. Returns what differs and was allowed by the caller;
 * what nobody keeps is only in the event. Throws RESTORE_DIFFERS with the rest. What an imported checkpoint must be is in
 * the bundle alone.
 */
export async function requireSame(restoring: Restoring, bundle: string, pid: number): Promise<readonly Finding[]> {
  const { agent, plan: { saved, description, request, id }, operation } = restoring;
  if (description.imported === undefined && saved.fidelity === undefined) return [];
  const is = observe(pid);
  const passed = judge(restoring, description.imported !== undefined ? unlike(await readSpec(bundle), is, pid) : compare(saved.fidelity!, is));
  if (passed.length > 0) {
    agent.log.event('restore.differs', { operation_id: operation.id, container_id: id, checkpoint_id: request.checkpoint, differences: passed.slice(0, 50).map(describeDifference) });
  }
  return allowedFindings(passed);
}

/** Throws RESTORE_DIFFERS when one of the differences does not pass; else returns them. */
function judge({ plan: { description, request } }: Restoring, differences: readonly Difference[]): readonly Difference[] {
  // Of a stranger's images nothing is let pass: what shall be granted is written in the bundle.
  if (description.imported !== undefined) {
    if (differences.length === 0) return differences;
    throw differs('the imported images make more of the container than the bundle grants', differences, () => 'give a bundle that grants it, if the container shall have it; else do not restore this archive');
  }
  const refused = refusedOf(differences, request.allowDifference);
  if (refused.length === 0) return differences;
  throw differs('the container would not be what was saved', refused, (names) => `it was ended before it ran; if that is acceptable: stasis restore --allow-difference ${names}`);
}
