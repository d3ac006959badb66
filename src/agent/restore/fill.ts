/** The operation behind a lazy restore: from the first instruction of the container until its last page has arrived. */
import { newOperationId } from '../../core/ids.ts';
import type { Container } from '../../runtime/types.ts';
import type { AgentContext } from '../context.ts';
import type { Operation } from '../operation.ts';
import type { Filling } from './filling.ts';
import type { RestorePlan } from './restore.ts';
import type { WorkingSet } from '../../image/lazy/index.ts';

/** A store may be away for long, and the container runs meanwhile: this is what a timer can count, 24 days. */
const DEADLINE_MS = 2 ** 31 - 1;

export interface FillOptions {
  readonly agent: AgentContext;
  readonly plan: RestorePlan;
  readonly container: Container;
  readonly filling: Filling;
  readonly workingSet: WorkingSet;
  /** Of the restore. */
  readonly principal: string;
  readonly reason: string;
  /** Removes all that the restore made, the container above all. */
  readonly undo: () => Promise<void>;
  /** Removes what is not needed any more. */
  readonly done: () => Promise<void>;
}

export function startFill(options: FillOptions): Operation {
  const { agent, container, plan } = options;
  // The restore ends before its pages have all been read.
  const held = plan.held.move();
  return agent.operations.start({
    id: newOperationId(), kind: 'fill', target: container.id, steps: ['fill'], deadlineMs: DEADLINE_MS, slots: 'none',
    // Not the container's own key: the restore has that until it has ended. Checkpoints ask agent.fills.
    exclusive: `fill ${container.at.root}/${container.id}`, principal: options.principal, reason: options.reason,
  }, async (operation) => {
    await using _held = held;
    await fill(options, operation);
  }).operation;
}

async function fill({ agent, plan, container, filling, workingSet, undo, done }: FillOptions, operation: Operation): Promise<void> {
  const fields = { operation_id: operation.id, container_id: container.id, checkpoint_id: plan.request.checkpoint };
  const started = agent.clock.monotonic();
  agent.log.event('fill.started', { ...fields, bytes: filling.totalBytes });
  try {
    await operation.step('fill', async (signal) => {
      operation.expectBytes(filling.totalBytes);
      await filling.complete({ signal, onBytes: (count) => operation.addBytes(count) });
    });
    agent.workingSets.save(plan.reader.summary.lineage, workingSet);
    agent.log.event('fill.finished', { ...fields, bytes: filling.filledBytes, faults: filling.faults, duration_ms: agent.clock.monotonic() - started });
  } catch (error) {
    agent.log.event('fill.failed', { ...fields, bytes: filling.filledBytes, err: error });
    await undo();
    throw error;
  }
  await done();
}
