/** Before a task of a restored container runs: it is what was saved, or the restore ends (docs/FIDELITY.md). */
import {
  closeMasks, compare, describeDifference, observe, putBackCgroups, putBackMounts, surroundingsOf, unlike,
  type Difference, type FidelityRecord,
} from '../../runtime/fidelity/index.ts';
import { freezerOf, readSpec } from '../../runtime/index.ts';
import type { Finding, OciSpec } from '../../runtime/types.ts';
import type { AgentContext } from '../context.ts';
import { allowedFindings, differs, lostAttributes, refusedOf } from '../differences.ts';
import type { Operation } from '../operation.ts';
import { requireBack } from '../put-back.ts';
import type { RestorePlan } from './restore.ts';

interface Restoring {
  readonly agent: AgentContext;
  readonly plan: RestorePlan;
  readonly operation: Operation;
  readonly directories: { readonly work: string };
}

/**
 * When all tasks are made and the network is still locked: namespaces and mounts are final here. Options of mounts that were
 * lost are put back first. Throws RESTORE_DIFFERS, or RESTORE_FAILED when what a stranger's bundle masks cannot be
 * closed.
 */
export async function requirePlaces(restoring: Restoring, bundle: string, pid: number): Promise<void> {
  const { saved: { fidelity }, description } = restoring.plan;
  if (description.imported !== undefined) {
    requireBack(closeMasks(await readSpec(bundle), pid));
    return;
  }
  if (fidelity === undefined) return;
  const failed = putBackMounts(fidelity, pid);
  // Helpers of criu may still be among the tasks.
  const differences = differencesBetween(restoring, fidelity, observe(pid, 'places')).filter(
    ({ attribute }) => attribute !== 'tasks'
  );
  const passed = judge(restoring, [...differences, ...lostAttributes(restoring.directories.work)], failed);
  // What could not be put back and differs was let pass by the caller.
  if (passed.length === 0) requireBack(failed);
}

/**
 * When the tasks would run. `pid`: the first process, which stands still. Returns what differs and was allowed by the caller;
 * what nobody keeps is only in the event. Throws RESTORE_DIFFERS with the rest, or RESTORE_FAILED. What an imported
 * checkpoint must be is in the bundle alone.
 */
export async function requireSame(restoring: Restoring, bundle: string, pid: number): Promise<readonly Finding[]> {
  const { agent, plan: { saved, description, request, id }, operation } = restoring;
  if (description.imported === undefined && saved.fidelity === undefined) return [];
  const spec = await readSpec(bundle);
  const passed = judge(
    restoring,
    description.imported !== undefined ? unlike(spec, observe(pid), pid) : differencesOf(restoring, spec, pid),
  );
  if (passed.length > 0) {
    agent.log.event('restore.differs', { operation_id: operation.id, container_id: id, checkpoint_id: request.checkpoint, differences: passed.slice(0, 50).map(describeDifference) });
  }
  return allowedFindings(passed);
}

function differencesOf(restoring: Restoring, spec: OciSpec, pid: number): Difference[] {
  const { saved, request } = restoring.plan;
  const was = saved.fidelity!;
  const surroundings = surroundingsOf(pid, {
    spec, freezer: freezerOf(pid)?.directory, given: request.bundle !== undefined, network: saved.kernel?.network,
  });
  const failed = putBackCgroups(was, pid, surroundings);
  if (!request.allowDifference.includes('cgroup')) requireBack(failed);
  return differencesBetween(restoring, was, observe(pid, 'all', surroundings));
}

/** Which cgroups runc shows in a bundle of the caller's, nobody can tell it (docs/LIMITS.md). */
function differencesBetween({ plan: { request } }: Restoring, was: FidelityRecord, is: FidelityRecord): Difference[] {
  const differences = compare(was, is);
  if (request.bundle === undefined) return differences;
  return differences.filter(
    ({ attribute, subject }) => attribute !== 'mount-part' || !subject.startsWith('/sys/fs/cgroup')
  );
}

/**
 * Throws RESTORE_DIFFERS when one of the differences does not pass; else returns them. `failed`: what could not be put
 * back, and why.
 */
function judge(
  { plan: { description, request } }: Restoring, differences: readonly Difference[], failed: readonly string[] = [],
): readonly Difference[] {
  // Of a stranger's images nothing is let pass: what shall be granted is written in the bundle.
  if (description.imported !== undefined) {
    if (differences.length === 0) return differences;
    throw differs(
      'the imported images make more of the container than the bundle grants', differences,
      () => 'give a bundle that grants it, if the container shall have it; else do not restore this archive',
    );
  }
  const refused = refusedOf(differences, request.allowDifference);
  if (refused.length === 0) return differences;
  const why = failed.length === 0 ? '' : ` (it could not be put back: ${failed.slice(0, 3).join('; ')})`;
  throw differs(
    `the container would not be what was saved${why}`, refused,
    (names) => `it was ended before it ran; if that is acceptable: stasis restore --allow-difference ${names}`,
  );
}
