/** Retention at work: reads what there is, asks the policy, deletes. */
import { asStasisError, isStasisError } from '../../core/errors.ts';
import type { LineageId } from '../../core/ids.ts';
import { newOperationId } from '../../core/ids.ts';
import type * as api from '../../rpc/api.ts';
import type { AgentContext } from '../context.ts';
import { releaseLock } from '../network-locks.ts';
import { expired, type Expired } from './policy.ts';

export interface Retained {
  readonly expired: readonly (Expired & { readonly storedBytes: number })[];
  readonly problems: readonly api.Problem[];
}

const EXPIRE_STEPS = ['expire'] as const;

/** After a checkpoint, by itself: it holds nobody up, and what it could not do the next one does. */
export function expireAfterCheckpoint(agent: AgentContext, lineage: LineageId): void {
  if (!isLimited(agent)) return;
  const fail = (error: unknown): void => agent.log.event('retention.failed', { lineage, err: error });
  try {
    const { outcome } = agent.operations.start({
      id: newOperationId(), kind: 'prune', target: lineage, steps: EXPIRE_STEPS, deadlineMs: agent.settings.operationDeadlineMs,
      exclusive: `retention ${lineage}`, principal: 'retention', reason: 'after a checkpoint',
    }, (operation) => operation.step('expire', (signal) => applyRetention(agent, { dryRun: false, signal })));
    outcome.then(({ problems: [first] }) => {
      if (first !== undefined) fail(first);
    }, fail);
  } catch (error) {
    // Another one of the same lineage is still at it, or the agent stops: its turn comes again.
    if (!isStasisError(error, 'CONTAINER_BUSY') && !isStasisError(error, 'AGENT_STOPPING')) throw error;
  }
}

function isLimited({ settings: { retention } }: AgentContext): boolean {
  return retention.rules.length > 0 || retention.namespaces.length > 0;
}

export async function applyRetention(agent: AgentContext, { dryRun, signal }: { dryRun: boolean; signal: AbortSignal }): Promise<Retained> {
  const problems: api.Problem[] = [];
  const note = (object: string, error: unknown): void => {
    const { code, message } = asStasisError(error, object);
    problems.push({ object, code, message });
  };
  if (!isLimited(agent)) return { expired: [], problems };
  const pins = new Set((await agent.repository.maintenance.pins({ signal })).map(({ checkpoint }) => checkpoint));
  const { items, sizes } = await agent.holdings.read({ signal, onProblem: note });
  const stored = new Map(items.map(({ id, storedBytes }) => [id, storedBytes]));
  const gone: (Expired & { storedBytes: number })[] = [];
  for (const one of expired(items.map((item) => ({ ...item, pinned: pins.has(item.id) })), agent.settings.retention, sizes, agent.clock.now())) {
    const storedBytes = stored.get(one.id) ?? 0;
    try {
      if (!dryRun) {
        agent.operations.requireFree(`checkpoint ${one.id}`, one.id);
        await agent.repository.delete(one.id, { signal });
        await releaseLock(agent, one.id);
        agent.log.event('checkpoint.expired', { checkpoint_id: one.id, limit: one.reason });
      }
      gone.push({ ...one, storedBytes });
    } catch (error) {
      signal.throwIfAborted();
      if (!isStasisError(error, 'CHECKPOINT_NOT_FOUND')) note(`manifests/${one.id}`, error);
    }
  }
  return { expired: gone, problems };
}
