/**
 * The bad days: the agent fails or is killed at every numbered step of a checkpoint. After each the container runs, or is
 * dead with a committed checkpoint; nothing half-made is visible; nothing leaks; the next operation works.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { CHECKPOINT_STEPS } from '../../src/agent/checkpoint/checkpoint.ts';
import { processAlive } from '../../src/host/proc.ts';
import {
  assertClean, checkpoint, checkpointIds, endAgents, makeHome, oneAfterTheOther, removeHome, restore, startAgent, type AgentHome, type TestAgent,
} from '../support/agent.ts';
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

async function assertNextWorks(agent: TestAgent): Promise<void> {
  const result = await checkpoint(agent, counter.id, { leaveRunning: true });
  assert.ok((await checkpointIds(agent)).includes(result.checkpoint), 'the next checkpoint works');
  for (const id of await checkpointIds(agent)) await agent.client.deleteCheckpoint({ checkpoint: id, reason: 'test' }, { signal: undefined });
}

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`checkpoint of a ${runtime} container, at every step`, () => {
    const agents = oneAfterTheOther(() => home);
    before(async () => {
      counter = await startCounter(runtime);
    });
    after(() => counter.stop());

    // The agent that failed goes on to the next step: whatever it kept shows there, for that attempt comes further.
    async function fails(place: string, leaveRunning: boolean): Promise<void> {
      const agent = await agents.now();
      const before = await checkpointIds(agent);
      agent.arm(`${place}=fail`);
      await assert.rejects(checkpoint(agent, counter.id, { leaveRunning }));
      agent.arm('');
      await assertNothingLost(agent, before);
    }

    async function dies(place: string, leaveRunning: boolean): Promise<void> {
      let agent = await agents.now();
      const before = await checkpointIds(agent);
      agent.arm(`${place}=kill`);
      await assert.rejects(checkpoint(agent, counter.id, { leaveRunning }));
      await agent.exited;
      // Promise 1 holds without any agent: nobody is frozen for longer than it takes the guard to see the death.
      if (processAlive(counter.pid, counter.pidStart)) await counter.assertCounting();
      agent = await agents.now();
      await assertNothingLost(agent, before);
      await assertNextWorks(agent);
    }

    for (const leaveRunning of [true, false]) {
      const mode = leaveRunning ? 'leave running' : 'stop';
      const steps = CHECKPOINT_STEPS.filter((step) => leaveRunning || step !== 'thaw');
      const places = steps.flatMap((step) => [`checkpoint.${step}`, `checkpoint.${step}.after`]);
      if (!leaveRunning) places.push('checkpoint.commit.manifest');
      for (const place of places) {
        // One runtime goes through all; for the other, which differs only in the dump, the steps around it.
        if (runtime === 'crun' && !/dump|freeze|commit/.test(place)) continue;
        void it(`${mode}: ${place}=fail`, async () => fails(place, leaveRunning));
        void it(`${mode}: ${place}=kill`, async () => dies(place, leaveRunning));
      }
      void it(`${mode}: after all of them`, async () => assertNextWorks(await agents.now()));
    }
  });
}

void describe('an agent that was paused and wakes up too late', () => {
  afterEach(endAgents);

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
