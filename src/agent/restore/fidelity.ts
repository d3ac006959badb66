/** Before a task of a restored container runs: it is what was saved, or the restore ends (docs/FIDELITY.md). */
import { StasisError } from '../../core/errors.ts';
import { ATTRIBUTES, attributeOf, closeMasks, compare, describeDifference, isNoted, observe, putBackMounts, unlike, type Difference } from '../../runtime/fidelity/index.ts';
import { readSpec } from '../../runtime/index.ts';
import type { Finding } from '../../runtime/types.ts';
import type { AgentContext } from '../context.ts';
import type { Operation } from '../operation.ts';
import type { RestorePlan } from './restore.ts';

const SHOWN = 5;

function list(differences: readonly Difference[]): string {
  const more = differences.length - SHOWN;
  return `${differences.slice(0, SHOWN).map(describeDifference).join('; ')}${more > 0 ? `; and ${more} more` : ''}`;
}

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
  return passed.filter(({ attribute }) => !isNoted(attribute)).map((difference): Finding => ({
    severity: 'warning', kind: 'difference', message: describeDifference(difference), hint: 'it was allowed by --allow-difference',
  }));
}

/** What passes of the differences. Throws RESTORE_DIFFERS when one does not. */
function judge({ plan: { description, request } }: Restoring, differences: readonly Difference[]): readonly Difference[] {
  const imported = description.imported !== undefined;
  // Of a stranger's images nothing is let pass: what shall be granted is written in the bundle.
  const passes = ({ attribute }: Difference): boolean => !imported && (isNoted(attribute) || request.allowDifference.includes(attribute));
  const refused = differences.filter((difference) => !passes(difference));
  if (refused.length > 0) throw differs(refused, imported);
  return differences;
}

function differs(refused: readonly Difference[], imported: boolean): StasisError {
  const names = [...new Set(refused.map(({ attribute }) => attribute))];
  const details = { attributes: names.join(','), differences: refused.map(describeDifference).join('\n').slice(0, 8000) };
  if (imported) {
    return new StasisError('RESTORE_DIFFERS', `the imported images make more of the container than the bundle grants: ${list(refused)}`, {
      hint: 'give a bundle that grants it, if the container shall have it; else do not restore this archive', details,
    });
  }
  return new StasisError('RESTORE_DIFFERS', `the container would not be what was saved: ${list(refused)}`, {
    hint: `it was ended before it ran; if that is acceptable: stasis restore --allow-difference ${names.join(',')}`, details,
  });
}

/** Throws USAGE for a name that is not in the table, so that a slip of the pen is not taken for a permission. */
export function knownAttributes(names: readonly string[]): readonly string[] {
  const unknown = names.find((name) => attributeOf(name) === undefined);
  if (unknown === undefined) return names;
  throw new StasisError('USAGE', `${JSON.stringify(unknown.slice(0, 80))} is not an attribute that is compared`, { hint: `choose from ${ATTRIBUTES.map(({ name }) => name).join(', ')}` });
}
