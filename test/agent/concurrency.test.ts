/** Several requests at once: what belongs together is joined, what would collide is refused, what need not wait runs. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { assertClean, checkpoint, checkpointIds, endAgents, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startCounter, type Counter } from '../support/counter.ts';

let home: AgentHome;
let agent: TestAgent;

before(() => {
  home = makeHome();
});

after(async () => {
  await removeHome(home);
});

afterEach(endAgents);

async function withCounters(count: number, body: (...counters: Counter[]) => Promise<void>): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const counters: Counter[] = [];
  for (let n = 0; n < count; n++) {
    const counter = await startCounter('runc');
    stack.defer(() => counter.stop());
    counters.push(counter);
  }
  await body(...counters);
  await assertClean(agent);
  for (const id of await checkpointIds(agent)) await agent.client.deleteCheckpoint({ checkpoint: id, reason: 'test' }, { signal: undefined });
  assert.equal(await agent.stop(), 0);
}

const slow = (place: string, ms: number): Record<string, string> => ({ STASIS_TESTING_FAILPOINT: `${place}=sleep ${ms}` });

async function codeOf(attempt: Promise<unknown>): Promise<string> {
  return attempt.then(() => 'none', (error: unknown) => (error as { code?: string }).code ?? String(error));
}

/** Waits until an operation has come to a step. */
async function inStep(step: string): Promise<string> {
  for (let waited = 0; waited < 10_000; waited += 20) {
    for await (const event of agent.client.watchOperations({}, { signal: undefined })) {
      if (event.type !== 'snapshot') break;
      const found = event.snapshot.operations.find((operation) => operation.state === 'running' && operation.progress.step === step);
      if (found !== undefined) return found.id;
      break;
    }
    await delay(20);
  }
  throw new Error(`no operation came to step ${step}`);
}

async function kill(counter: Counter): Promise<void> {
  execFileSync('runc', ['delete', '--force', counter.id]);
}

void describe('two at once', () => {
  void it('a second checkpoint of one container is refused, by id and by a beginning of it', async () => {
    agent = await startAgent(home, slow('checkpoint.read-ahead', 800));
    await withCounters(1, async (counter) => {
      const first = checkpoint(agent, counter.id, { leaveRunning: true });
      await inStep('read-ahead');
      assert.equal(await codeOf(checkpoint(agent, counter.id, { leaveRunning: true })), 'CONTAINER_BUSY');
      assert.equal(await codeOf(checkpoint(agent, counter.id.slice(0, -1), { leaveRunning: true })), 'CONTAINER_BUSY');
      await first;
      await counter.assertCounting();
      assert.equal((await checkpointIds(agent)).length, 1);
    });
  });

  void it('the same operation id twice is one effect, also after its end; for something else it is refused', async () => {
    agent = await startAgent(home, slow('checkpoint.read-ahead', 500));
    await withCounters(2, async (counter, other) => {
      const request = { leaveRunning: true, operationId: 'twice' };
      const [first, second] = await Promise.all([checkpoint(agent, counter.id, request), delay(100).then(() => checkpoint(agent, counter.id, request))]);
      const third = await checkpoint(agent, counter.id, request);
      assert.deepEqual([second.checkpoint, third.checkpoint], [first.checkpoint, first.checkpoint]);
      assert.equal(await codeOf(checkpoint(agent, other.id, request)), 'USAGE');
      assert.equal((await checkpointIds(agent)).length, 1);
      await counter.assertCounting();
    });
  });

  void it('a stop that is asked for again with its id tells the same, although the container is gone', async () => {
    agent = await startAgent(home);
    await withCounters(1, async (counter) => {
      const first = await checkpoint(agent, counter.id, { operationId: 'stop-once' });
      const again = await checkpoint(agent, counter.id, { operationId: 'stop-once' });
      assert.equal(again.checkpoint, first.checkpoint);
      const request = { operationId: 'restore-once' };
      const [one, two] = await Promise.all([restore(agent, first.checkpoint, request), restore(agent, first.checkpoint, request)]);
      assert.equal(one.pid, two.pid);
      await counter.adopt(one);
      await counter.assertCounting();
    });
  });

  void it('more operations than operations.parallel wait their turn, and all end well', async () => {
    agent = await startAgent(home, { STASIS_OPERATIONS_PARALLEL: '1' });
    await withCounters(3, async (...counters) => {
      const results = await Promise.all(counters.map((counter) => checkpoint(agent, counter.id, { leaveRunning: true })));
      assert.equal(new Set(results.map((result) => result.checkpoint)).size, 3);
      for (const counter of counters) await counter.assertCounting();
    });
  });

  void it('one that waits can be cancelled, and its container is not touched', async () => {
    agent = await startAgent(home, { STASIS_OPERATIONS_PARALLEL: '1', ...slow('checkpoint.read-ahead', 1500) });
    await withCounters(2, async (first, second) => {
      const running = checkpoint(agent, first.id, { leaveRunning: true });
      await inStep('read-ahead');
      const waiting = codeOf(checkpoint(agent, second.id, { operationId: 'waits' }));
      await delay(200);
      await agent.client.cancelOperation({ operationId: 'waits' }, { signal: undefined });
      assert.equal(await waiting, 'CANCELLED');
      await second.assertCounting();
      await running;
    });
  });

  void it('two containers are saved side by side', async () => {
    agent = await startAgent(home, slow('checkpoint.seal', 300));
    await withCounters(2, async (first, second) => {
      const [one, two] = await Promise.all([checkpoint(agent, first.id, { leaveRunning: true }), checkpoint(agent, second.id)]);
      assert.notEqual(one.lineage, two.lineage);
      await first.assertCounting();
      await second.adopt(await restore(agent, two.checkpoint));
      await second.assertCounting();
    });
  });
});

void describe('while a restore is running', () => {
  void it('the container cannot be checkpointed, nor restored a second time, nor its checkpoint deleted', async () => {
    agent = await startAgent(home, slow('restore.restore.after', 3000));
    await withCounters(1, async (counter) => {
      const before = await checkpoint(agent, counter.id, { leaveRunning: true });
      const { checkpoint: id } = await checkpoint(agent, counter.id);
      const running = restore(agent, id);
      await inStep('restore');
      for (let seen = false; !seen; await delay(20)) {
        seen = (await agent.client.listContainers({ all: false }, { signal: undefined })).containers.some((container) => container.id === counter.id);
      }
      assert.equal(await codeOf(checkpoint(agent, counter.id)), 'CONTAINER_BUSY');
      assert.equal(await codeOf(restore(agent, id)), 'CONTAINER_BUSY');
      assert.equal(await codeOf(restore(agent, before.checkpoint)), 'CONTAINER_BUSY');
      assert.equal(await codeOf(restore(agent, before.checkpoint, { container: `${counter.id}-b` })), 'CONTAINER_BUSY', 'of the same lineage, not as a clone');
      assert.equal(await codeOf(agent.client.deleteCheckpoint({ checkpoint: id, reason: '' }, { signal: undefined })), 'CHECKPOINT_IN_USE');
      await counter.adopt(await running);
      await counter.assertCounting();
    });
  });

  void it('two restores of one container from different checkpoints: one wins, and the other does it no harm', async () => {
    agent = await startAgent(home);
    await withCounters(1, async (counter) => {
      const ids = [await checkpoint(agent, counter.id, { leaveRunning: true }), await checkpoint(agent, counter.id)].map((result) => result.checkpoint);
      const outcomes = await Promise.allSettled(ids.map((id) => restore(agent, id)));
      const won = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
      assert.equal(won.length, 1);
      await delay(200);
      await counter.adopt(won[0]!);
      await counter.assertCounting();
      const lost = outcomes.find((outcome) => outcome.status === 'rejected')?.reason as { code?: string };
      assert.match(lost.code ?? '', /CONTAINER_BUSY|CONTAINER_EXISTS/);
    });
  });

  void it('somebody makes a container of that id meanwhile: it is left alone', async () => {
    agent = await startAgent(home, slow('restore.restore', 1500));
    await withCounters(1, async (counter) => {
      const { checkpoint: id } = await checkpoint(agent, counter.id);
      const running = codeOf(restore(agent, id));
      await inStep('restore');
      const stranger = await startCounter('runc', { id: counter.id });
      try {
        assert.equal(await running, 'CONTAINER_EXISTS');
        await assertClean(agent);
        await stranger.assertCounting();
        await kill(stranger);
        await counter.adopt(await restore(agent, id));
        await counter.assertCounting();
        await kill(counter);
      } finally {
        await stranger.stop();
      }
    });
  });
});
