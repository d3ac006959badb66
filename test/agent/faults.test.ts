/**
 * The bad days: the agent fails or is killed at every numbered step of a checkpoint and of a restore. After each the
 * container runs, or is dead with a committed checkpoint; nothing half-made is visible; nothing leaks; the next operation works.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { CHECKPOINT_STEPS } from '../../src/agent/checkpoint/checkpoint.ts';
import { RESTORE_STEPS } from '../../src/agent/restore/restore.ts';
import { processAlive } from '../../src/host/proc.ts';
import { assertClean, checkpoint, checkpointIds, endAgents, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startCounter, type Counter } from '../support/counter.ts';

let home: AgentHome;
let counter: Counter;

before(() => {
  home = makeHome();
});

after(async () => {
  await counter?.stop();
  await removeHome(home);
});

afterEach(endAgents);

/** Whatever happened: the counter moves, or it is dead and the newest checkpoint holds it. */
async function assertNothingLost(agent: TestAgent, before: readonly string[]): Promise<void> {
  await assertClean(agent);
  const ids = await checkpointIds(agent);
  if (processAlive(counter.pid, counter.pidStart)) {
    await counter.assertCounting();
    return;
  }
  const made = ids.filter((id) => !before.includes(id));
  assert.equal(made.length, 1, 'the container is dead, so exactly one checkpoint must have been committed');
  const result = await restore(agent, made[0] ?? '');
  await counter.adopt(result);
  await counter.assertCounting();
}

async function attempt(failpoint: string, leaveRunning: boolean): Promise<void> {
  let agent = await startAgent(home, { STASIS_TESTING_FAILPOINT: failpoint });
  const before = await checkpointIds(agent);
  await assert.rejects(checkpoint(agent, counter.id, { leaveRunning }));
  if (failpoint.endsWith('=kill')) {
    await agent.exited;
    // Promise 1 holds without any agent: nobody is frozen for longer than it takes the guard to see the death.
    if (processAlive(counter.pid, counter.pidStart)) await counter.assertCounting();
  } else {
    await agent.stop();
  }
  agent = await startAgent(home);
  await assertNothingLost(agent, before);
  const result = await checkpoint(agent, counter.id, { leaveRunning: true });
  assert.ok((await checkpointIds(agent)).includes(result.checkpoint), 'the next checkpoint works');
  for (const id of await checkpointIds(agent)) await agent.client.deleteCheckpoint({ checkpoint: id, reason: 'test' }, { signal: undefined });
  assert.equal(await agent.stop(), 0);
}

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`checkpoint of a ${runtime} container, at every step`, () => {
    before(async () => {
      counter = await startCounter(runtime);
    });
    after(() => counter.stop());

    for (const leaveRunning of [true, false]) {
      const steps = CHECKPOINT_STEPS.filter((step) => leaveRunning || step !== 'thaw');
      const places = steps.flatMap((step) => [`checkpoint.${step}`, `checkpoint.${step}.after`]);
      if (!leaveRunning) places.push('checkpoint.commit.manifest');
      for (const place of places) {
        // One runtime goes through all; for the other, which differs only in the dump, the steps around it.
        if (runtime === 'crun' && !/dump|freeze|commit/.test(place)) continue;
        for (const action of ['fail', 'kill']) {
          void it(`${leaveRunning ? 'leave running' : 'stop'}: ${place}=${action}`, async () => attempt(`${place}=${action}`, leaveRunning));
        }
      }
    }
  });
}

void describe('restore, at every step', () => {
  before(async () => {
    counter = await startCounter('runc');
  });
  after(() => counter.stop());

  for (const place of RESTORE_STEPS.flatMap((step) => [`restore.${step}`, `restore.${step}.after`])) {
    for (const action of ['fail', 'kill']) {
      void it(`${place}=${action}`, async () => {
        let agent = await startAgent(home, { STASIS_TESTING_FAILPOINT: `${place}=${action}` });
        const { checkpoint: id } = await checkpoint(agent, counter.id);
        await assert.rejects(restore(agent, id));
        if (action === 'kill') await agent.exited;
        else await agent.stop();
        agent = await startAgent(home);
        await assertClean(agent);
        const { containers } = await agent.client.listContainers({ all: true }, { signal: undefined });
        const survivor = containers.find((container) => container.id === counter.id);
        // After the last step the container belongs to its user; before, nothing of it may be left.
        if (survivor === undefined) await counter.adopt(await restore(agent, id));
        else {
          assert.equal(place, 'restore.finish.after');
          await counter.adopt({ container: survivor.id, pid: survivor.pid });
        }
        await counter.assertCounting();
        await agent.client.deleteCheckpoint({ checkpoint: id, reason: 'test' }, { signal: undefined });
        assert.equal(await agent.stop(), 0);
      });
    }
  }
});

void describe('an agent that was paused and wakes up too late', () => {
  void it('finds that the guard has decided, and takes its checkpoint back', async () => {
    counter = await startCounter('runc');
    const agent = await startAgent(home, { STASIS_TESTING_FAILPOINT: 'checkpoint.commit.manifest=stop' });
    const failed = assert.rejects(checkpoint(agent, counter.id, { freezeBudgetMs: 1500 }), (error) => (error as { code?: string }).code === 'FREEZE_BUDGET_EXCEEDED');
    while (!/^State:\s+T/m.test(readFileSync(`/proc/${agent.pid}/status`, 'utf8'))) await delay(20);
    await delay(2500);
    await counter.assertCounting();
    process.kill(agent.pid, 'SIGCONT');
    await failed;
    assert.deepEqual(await checkpointIds(agent), []);
    await assertClean(agent);
    await counter.assertCounting();
    await agent.stop();
    await counter.stop();
  });
});
