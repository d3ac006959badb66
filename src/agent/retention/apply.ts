/** Retention at work: reads what there is, asks the policy, deletes. */
import { asStasisError, isStasisError } from '../../core/errors.ts';
import type { LineageId } from '../../core/ids.ts';
import { newOperationId } from '../../core/ids.ts';
import type * as api from '../../rpc/api.ts';
import type { AgentContext } from '../context.ts';
import { podDescription } from '../description.ts';
import { expired, type Expired, type RetentionItem } from './policy.ts';

export interface Retained {
  readonly expired: readonly (Expired & { readonly storedBytes: number })[];
  readonly problems: readonly api.Problem[];
}

const EXPIRE_STEPS = ['expire'] as const;

/** After a checkpoint, by itself: it holds nobody up, and what it could not do the next one does. */
export function expireAfterCheckpoint(agent: AgentContext, lineage: LineageId): void {
  if (agent.settings.retention.length === 0) return;
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

export async function applyRetention(agent: AgentContext, { dryRun, signal }: { dryRun: boolean; signal: AbortSignal }): Promise<Retained> {
  const problems: api.Problem[] = [];
  const note = (object: string, error: unknown): void => {
    const { code, message } = asStasisError(error, object);
    problems.push({ object, code, message });
  };
  const { retention } = agent.settings;
  if (retention.length === 0) return { expired: [], problems };
  const items = await readItems(agent, note, signal);
  const gone: (Expired & { storedBytes: number })[] = [];
  for (const one of expired(items, retention, agent.clock.now())) {
    const storedBytes = items.find(({ id }) => id === one.id)?.storedBytes ?? 0;
    try {
      if (!dryRun) {
        agent.operations.requireFree(`checkpoint ${one.id}`, one.id);
        await agent.repository.delete(one.id, { signal });
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

async function readItems(agent: AgentContext, note: (object: string, error: unknown) => void, signal: AbortSignal): Promise<RetentionItem[]> {
  const pins = new Set((await agent.repository.maintenance.pins({ signal })).map(({ checkpoint }) => checkpoint));
  const items: RetentionItem[] = [];
  for await (const summary of agent.repository.list({ signal, onProblem: note })) {
    try {
      const { pod } = podDescription(summary);
      items.push({ id: summary.id, lineage: summary.lineage, createdMs: summary.createdMs, storedBytes: summary.bytes.stored, namespace: pod.namespace ?? '', name: pod.name, pinned: pins.has(summary.id) });
    } catch (error) {
      note(`manifests/${summary.id}`, error);
    }
  }
  return items;
}
