/** A heap program that was checkpointed, restored lazily, and what tests of that wait for. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { processAlive } from '../../src/host/proc.ts';
import type { Operation, RestoreRequest, RestoreResult } from '../../src/rpc/api.ts';
import { checkpoint, restore, type Agents, type TestAgent } from './agent.ts';
import { startContainer, type TestContainer } from './containers.ts';
import { waitForLooks } from './workloads/checked-heap.ts';

/** Whatever is killed, the container must be dead by then; a loaded machine included. */
const DEATH_MS = 5000;

export interface Subject {
  readonly agent: TestAgent;
  readonly container: TestContainer;
  readonly checkpoint: string;
  /** What the restored program says. */
  readonly output: string;
}

/** In the middle of the fill no page comes for a while: whoever touches a missing one waits. */
export const STALL = 'fill.answer:30=sleep 3000';

/** A heap program that was checkpointed, ready to be restored with this failpoint. The agent may be ended by the test. */
export async function withHeap(
  agents: Agents, id: string, args: readonly string[], failpoint: string, use: (subject: Subject) => Promise<void>,
): Promise<void> {
  const agent = await agents.now();
  const container = await startContainer({ runtime: 'runc', id, args });
  try {
    await waitForLooks(container.outputFile, 50);
    const { checkpoint: saved } = await checkpoint(agent, id);
    agent.arm(failpoint);
    await use({ agent, container, checkpoint: saved, output: join(agent.home.state, 'output', `${id}.stdout.log`) });
  } finally {
    await container.stop();
  }
}

export async function ended(agent: TestAgent, operationId: string): Promise<Operation> {
  for await (const event of agent.client.watchOperations({ operationId }, { signal: undefined })) {
    const [operation] = event.type === 'snapshot' ? event.snapshot.operations : [event.changed];
    if (operation !== undefined && operation.state !== 'running' && operation.state !== 'queued') return operation;
  }
  throw new Error('the stream ended before the operation');
}

export async function restoreLazily({ agent, checkpoint: saved }: Pick<Subject, 'agent' | 'checkpoint'>, more: Partial<RestoreRequest> = {}): Promise<RestoreResult & { readonly fillOperationId: string }> {
  const result = await restore(agent, saved, { lazy: 'always', ...more });
  assert.ok(result.fillOperationId !== undefined, 'nothing is left to come');
  return { ...result, fillOperationId: result.fillOperationId };
}

export async function assertDead(pid: number, pidStart: number): Promise<void> {
  const until = performance.now() + DEATH_MS;
  while (processAlive(pid, pidStart)) {
    assert.ok(performance.now() < until, 'the container lives on although its memory cannot arrive');
    await delay(5);
  }
}
