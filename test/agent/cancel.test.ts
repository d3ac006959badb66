/** Cancelled, too late or too long: at every step the container goes on as if nothing had happened, and nothing is left. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { CHECKPOINT_STEPS } from '../../src/agent/checkpoint/checkpoint.ts';
import { RESTORE_STEPS } from '../../src/agent/restore/restore.ts';
import { processAlive } from '../../src/host/proc.ts';
import {
  assertClean, checkpoint, checkpointIds, makeHome, oneAfterTheOther, removeHome, restore, type AgentHome, type TestAgent,
} from '../support/agent.ts';
import { startCounter, type Counter } from '../support/counter.ts';
import { startVictim } from '../support/victim.ts';

let home: AgentHome;
let agent: TestAgent;
let counter: Counter;

const agents = oneAfterTheOther(() => home);

before(async () => {
  home = makeHome();
  counter = await startCounter('runc');
});

after(async () => {
  await counter?.stop();
  await removeHome(home);
});

/** Long enough to be sure that the cancel came while it slept. */
const SLEEP = 20_000;

async function sleepAt(place: string, ms = SLEEP): Promise<void> {
  agent = await agents.now();
  agent.arm(`${place}=sleep ${ms}`);
}

async function codeOf(attempt: Promise<unknown>): Promise<string> {
  return attempt.then(() => 'none', (error: unknown) => (error as { code?: string }).code ?? String(error));
}

async function stepOf(operationId: string): Promise<string | undefined> {
  for await (const event of agent.client.watchOperations({}, { signal: undefined })) {
    return event.type === 'snapshot' ? event.snapshot.operations.find(({ id }) => id === operationId)?.progress.step : undefined;
  }
  return undefined;
}

/** The outcome of an operation that is cancelled while it sleeps at a place of this step. */
async function cancelled(place: string, start: (operationId: string) => Promise<unknown>, ready?: () => Promise<void>): Promise<string> {
  const [, step = '', inside] = place.split('.');
  const operationId = `cancel-${step}-${Math.random().toString(36).slice(2)}`;
  const outcome = codeOf(start(operationId));
  let over: string | undefined;
  void outcome.then((code) => {
    over = code;
  });
  while (await stepOf(operationId) !== step) {
    assert.equal(over, undefined, 'it ended before it could be cancelled');
    await delay(20);
  }
  // It sleeps as soon as a step begins; how far it is inside a step nobody tells.
  await (ready?.() ?? delay(inside === undefined ? 20 : 300));
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
      // Until criu has begun the two are the same.
      if (leaveRunning && !/after|thaw|seal|commit/.test(place)) continue;
      void it(`${leaveRunning ? 'leave running' : 'stop'}: in ${place}`, async () => {
        await sleepAt(place);
        const code = await cancelled(place, (operationId) => checkpoint(agent, counter.id, { leaveRunning, operationId }));
        assert.equal(code, 'CANCELLED');
        await counter.assertCounting();
        assert.deepEqual(await checkpointIds(agent), []);
        await assertClean(agent);
      });
    }
  }

  void it('after the commit it comes too late: the checkpoint stands, and the caller hears so', async () => {
    for (const place of ['checkpoint.commit.after', 'checkpoint.finish']) {
      await sleepAt(place, 2000);
      const dead = async (): Promise<void> => {
        while (processAlive(counter.pid, counter.pidStart)) await delay(10);
      };
      assert.equal(await cancelled(place, (operationId) => checkpoint(agent, counter.id, { operationId }), dead), 'none');
      assert.equal(processAlive(counter.pid, counter.pidStart), false);
      const [id] = await checkpointIds(agent);
      await counter.adopt(await restore(agent, id ?? ''));
      await counter.assertCounting();
      await assertClean(agent);
      await forget();
    }
  });
});

void describe('cancel of a restore', () => {
  let id: string;

  before(async () => {
    agent = await agents.now();
    agent.arm('');
    id = (await checkpoint(agent, counter.id)).checkpoint;
  });

  // Whatever is left of the container hinders the next restore, which comes further.
  for (const place of [...RESTORE_STEPS.map((step) => `restore.${step}`), 'restore.restore.after']) {
    void it(`in ${place}: nothing of the container is left`, async () => {
      await sleepAt(place);
      assert.equal(await cancelled(place, (operationId) => restore(agent, id, { operationId })), 'CANCELLED');
      await assertClean(agent);
      const { containers } = await agent.client.listContainers({ all: true }, { signal: undefined });
      assert.deepEqual(containers.filter((container) => container.id === counter.id), []);
    });
  }

  void it('after all of them it can be restored', async () => {
    agent.arm('');
    await counter.adopt(await restore(agent, id));
    await counter.assertCounting();
    await forget();
  });
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
      await sleepAt(place);
      const started = performance.now();
      assert.equal(await codeOf(checkpoint(agent, counter.id, more)), code);
      assert.ok(performance.now() - started < 5000, 'it was told late');
      await counter.assertCounting();
      assert.deepEqual(await checkpointIds(agent), []);
      await assertClean(agent);
    });
  }

  void it('a dump that takes longer than the freeze budget is ended, and the heap is whole', async () => {
    const victim = await startVictim('runc', 64);
    try {
      agent = await agents.now();
      agent.arm('');
      // Less than criu takes to begin: the guard ends it wherever it is.
      for (const leaveRunning of [true, false]) {
        assert.equal(await codeOf(checkpoint(agent, victim.id, { leaveRunning, freezeBudgetMs: 40 })), 'FREEZE_BUDGET_EXCEEDED');
        await victim.assertWhole();
        await assertClean(agent);
      }
    } finally {
      await victim.stop();
    }
  });

  void it('an agent that is told to stop undoes what runs, and says so', async () => {
    await sleepAt('checkpoint.seal');
    const outcome = codeOf(checkpoint(agent, counter.id));
    await delay(1200);
    process.kill(agent.pid, 'SIGTERM');
    assert.equal(await outcome, 'AGENT_STOPPING');
    await agent.exited;
    await counter.assertCounting();
    agent = await agents.now();
    await assertClean(agent);
    assert.deepEqual(await checkpointIds(agent), []);
  });
});
