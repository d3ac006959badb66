/**
 * The agent fails or is killed at every numbered step of a restore: nothing of the container is left, its checkpoint is as it
 * was, and the next restore works.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { RESTORE_STEPS } from '../../src/agent/restore/restore.ts';
import { assertClean, checkpoint, makeHome, oneAfterTheOther, removeHome, restore, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startCounter, type Counter } from '../support/counter.ts';

let home: AgentHome;
let counter: Counter;
let id: string;

const agents = oneAfterTheOther(() => home);

before(async () => {
  home = makeHome();
  counter = await startCounter('runc');
  id = (await checkpoint(await agents.now(), counter.id)).checkpoint;
});

after(async () => {
  await counter?.stop();
  await removeHome(home);
});

/** True: the container is there, and counts. */
async function adopted(agent: TestAgent): Promise<boolean> {
  const { containers } = await agent.client.listContainers({ all: true }, { signal: undefined });
  const survivor = containers.find((container) => container.id === counter.id);
  if (survivor === undefined) return false;
  await counter.adopt({ container: survivor.id, pid: survivor.pid });
  await counter.assertCounting();
  return true;
}

async function attempt(place: string, action: 'fail' | 'kill'): Promise<void> {
  let agent = await agents.now();
  agent.arm(`${place}=${action}`);
  await assert.rejects(restore(agent, id));
  if (action === 'kill') await agent.exited;
  agent = await agents.now();
  agent.arm('');
  await assertClean(agent);
  const survives = await adopted(agent);
  // After the last step the container belongs to its user; before, nothing of it may be left.
  assert.equal(survives, place === 'restore.finish.after');
  // Whatever an agent that failed has kept shows at the next step: that attempt comes further.
  if (!survives && action === 'kill') {
    await counter.adopt(await restore(agent, id));
    await counter.assertCounting();
  }
  if (survives || action === 'kill') id = (await checkpoint(agent, counter.id)).checkpoint;
}

void describe('restore, at every step', () => {
  for (const place of RESTORE_STEPS.flatMap((step) => [`restore.${step}`, `restore.${step}.after`])) {
    for (const action of ['fail', 'kill'] as const) void it(`${place}=${action}`, async () => attempt(place, action));
  }
  void it('after all of them', async () => {
    await counter.adopt(await restore(await agents.now(), id));
    await counter.assertCounting();
  });
});
