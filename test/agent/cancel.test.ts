/** Cancelled, too late or too long: at every step the container goes on as if nothing had happened, and nothing is left. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { CHECKPOINT_STEPS } from '../../src/agent/checkpoint/checkpoint.ts';
import { RESTORE_STEPS } from '../../src/agent/restore/restore.ts';
import { processAlive } from '../../src/host/proc.ts';
import { assertClean, checkpoint, checkpointIds, endAgents, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startCounter, type Counter } from '../support/counter.ts';
import { startVictim } from '../support/victim.ts';

let home: AgentHome;
let agent: TestAgent;
let counter: Counter;

before(async () => {
  home = makeHome();
  counter = await startCounter('runc');
});

after(async () => {
  await counter?.stop();
  await removeHome(home);
});

afterEach(endAgents);

/** Long enough to be sure that the cancel came while it slept. */
const SLEEP = 20_000;
const asleep = (place: string, ms = SLEEP): Record<string, string> => ({ STASIS_TESTING_FAILPOINT: `${place}=sleep ${ms}` });

async function codeOf(attempt: Promise<unknown>): Promise<string> {
  return attempt.then(() => 'none', (error: unknown) => (error as { code?: string }).code ?? String(error));
}

/** The outcome of an operation that is cancelled while it sleeps at a place of this step. */
async function cancelled(step: string, start: (operationId: string) => Promise<unknown>, ready?: () => Promise<void>): Promise<string> {
  const operationId = `cancel-${step}-${Math.random().toString(36).slice(2)}`;
  const outcome = codeOf(start(operationId));
  for (;;) {
    const { value } = await agent.client.watchOperations({}, { signal: undefined })[Symbol.asyncIterator]().next() as { value: { snapshot: { operations: readonly { id: string; progress: { step: string } }[] } } };
    if (value.snapshot.operations.some(({ id, progress }) => id === operationId && progress.step === step)) break;
    await delay(20);
  }
  await (ready === undefined ? delay(300) : ready());
  await agent.client.cancelOperation({ operationId }, { signal: undefined });
  return outcome;
}

async function forget(): Promise<void> {
  for (const id of await checkpointIds(agent)) await agent.client.deleteCheckpoint({ checkpoint: id, reason: 'test' }, { signal: undefined });
}

void describe('cancel of a checkpoint', () => {
  for (const leaveRunning of [true, false]) {
    const steps = CHECKPOINT_STEPS.filter((step) => step !== 'finish' && (leaveRunning || step !== 'thaw'));
    for (const place of [...steps.map((step) => `checkpoint.${step}`), 'checkpoint.dump.after', 'checkpoint.commit.manifest']) {
      // Where nothing is frozen yet the two are the same.
      if (leaveRunning && /examine|prepare|read-ahead/.test(place)) continue;
      void it(`${leaveRunning ? 'leave running' : 'stop'}: in ${place}`, async () => {
        agent = await startAgent(home, asleep(place));
        const code = await cancelled(place.split('.')[1] ?? '', (operationId) => checkpoint(agent, counter.id, { leaveRunning, operationId }));
        assert.equal(code, 'CANCELLED');
        await counter.assertCounting();
        assert.deepEqual(await checkpointIds(agent), []);
        await assertClean(agent);
        assert.equal(await agent.stop(), 0);
      });
    }
  }

  void it('after the commit it comes too late: the checkpoint stands, and the caller hears so', async () => {
    for (const place of ['checkpoint.commit.after', 'checkpoint.finish']) {
      agent = await startAgent(home, asleep(place, 2000));
      const dead = async (): Promise<void> => {
        while (processAlive(counter.pid, counter.pidStart)) await delay(10);
      };
      assert.equal(await cancelled(place.split('.')[1] ?? '', (operationId) => checkpoint(agent, counter.id, { operationId }), dead), 'none');
      assert.equal(processAlive(counter.pid, counter.pidStart), false);
      const [id] = await checkpointIds(agent);
      await counter.adopt(await restore(agent, id ?? ''));
      await counter.assertCounting();
      await assertClean(agent);
      await forget();
      assert.equal(await agent.stop(), 0);
    }
  });
});

void describe('cancel of a restore', () => {
  for (const place of [...RESTORE_STEPS.map((step) => `restore.${step}`), 'restore.restore.after']) {
    void it(`in ${place}: nothing of the container is left, and it can be restored`, async () => {
      agent = await startAgent(home, asleep(place));
      const { checkpoint: id } = await checkpoint(agent, counter.id);
      assert.equal(await cancelled(place.split('.')[1] ?? '', (operationId) => restore(agent, id, { operationId })), 'CANCELLED');
      await assertClean(agent);
      const { containers } = await agent.client.listContainers({ all: true }, { signal: undefined });
      assert.deepEqual(containers.filter((container) => container.id === counter.id), []);
      await counter.adopt(await restore(agent, id));
      await counter.assertCounting();
      await forget();
      assert.equal(await agent.stop(), 0);
    });
  }
});

void describe('too long', () => {
  const cases = [
    { name: 'the deadline of a request', more: { deadlineMs: 700 }, place: 'checkpoint.read-ahead', code: 'DEADLINE_EXCEEDED' },
    { name: 'the deadline while frozen', more: { deadlineMs: 900 }, place: 'checkpoint.dump.after', code: 'DEADLINE_EXCEEDED' },
    { name: 'the freeze budget before the dump', more: { freezeBudgetMs: 600, leaveRunning: true }, place: 'checkpoint.dump', code: 'FREEZE_BUDGET_EXCEEDED' },
    { name: 'the freeze budget after the dump', more: { freezeBudgetMs: 1500, leaveRunning: true }, place: 'checkpoint.dump.after', code: 'FREEZE_BUDGET_EXCEEDED' },
    { name: 'the freeze budget of a stop', more: { freezeBudgetMs: 1500 }, place: 'checkpoint.seal', code: 'FREEZE_BUDGET_EXCEEDED' },
    { name: 'the freeze budget between manifest and decision', more: { freezeBudgetMs: 1500 }, place: 'checkpoint.commit.manifest', code: 'FREEZE_BUDGET_EXCEEDED' },
  ];
  for (const { name, more, place, code } of cases) {
    void it(`${name} ends it`, async () => {
      agent = await startAgent(home, asleep(place));
      const started = performance.now();
      assert.equal(await codeOf(checkpoint(agent, counter.id, more)), code);
      assert.ok(performance.now() - started < 5000, 'it was told late');
      await counter.assertCounting();
      assert.deepEqual(await checkpointIds(agent), []);
      await assertClean(agent);
      assert.equal(await agent.stop(), 0);
    });
  }

  void it('a dump that takes longer than the freeze budget is ended, and the heap is whole', async () => {
    const victim = await startVictim('runc', 300);
    try {
      agent = await startAgent(home);
      // Less than criu takes to begin: the guard ends it wherever it is.
      for (const leaveRunning of [true, false]) {
        assert.equal(await codeOf(checkpoint(agent, victim.id, { leaveRunning, freezeBudgetMs: 40 })), 'FREEZE_BUDGET_EXCEEDED');
        await victim.assertWhole();
        await assertClean(agent);
      }
      assert.equal(await agent.stop(), 0);
    } finally {
      await victim.stop();
    }
  });

  void it('an agent that is told to stop undoes what runs, and says so', async () => {
    agent = await startAgent(home, asleep('checkpoint.seal'));
    const outcome = codeOf(checkpoint(agent, counter.id));
    await delay(1200);
    process.kill(agent.pid, 'SIGTERM');
    assert.equal(await outcome, 'AGENT_STOPPING');
    await agent.exited;
    await counter.assertCounting();
    agent = await startAgent(home);
    await assertClean(agent);
    assert.deepEqual(await checkpointIds(agent), []);
    assert.equal(await agent.stop(), 0);
  });
});
