/**
 * kill -9 of criu, the runtime, the guard and the agent, alone and together, in the middle of a dump and while criu
 * waits for the commit. The container goes on with every byte of its heap, nothing is left, and the next checkpoint works.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { MiB } from '../../src/core/units.ts';
import {
  assertClean, checkpoint, checkpointIds, makeHome, oneAfterTheOther, removeHome, restore, type AgentHome, type TestAgent,
} from '../support/agent.ts';
import { findSession, guardFiles, killIfThere, startVictim, type Victim } from '../support/victim.ts';

/** Takes criu long enough to be struck in the middle of it. */
const HEAP_MIB = 96;

let home: AgentHome;
let victim: Victim;

const agents = oneAfterTheOther(() => home);

before(() => {
  home = makeHome();
});

after(async () => {
  await removeHome(home);
});

type Prey = 'criu' | 'runtime' | 'guard' | 'agent';

interface Moment {
  readonly name: string;
  readonly leaveRunning: boolean;
  readonly wait: { readonly imageBytes?: number; readonly inHook?: boolean };
  /** The page server shows nothing in files: this long after criu began. */
  readonly laterMs?: number;
  /** Keeps criu in its hook long enough to be found there. */
  readonly failpoint?: string;
}

const moments: readonly Moment[] = [
  { name: 'leave running, criu begins', leaveRunning: true, wait: {} },
  { name: 'leave running, in the middle of the memory', leaveRunning: true, wait: { imageBytes: 16 * MiB } },
  { name: 'stop, in the middle of the memory on its way to the page server', leaveRunning: false, wait: {}, laterMs: 50 },
  { name: 'stop, in the middle of the memory', leaveRunning: false, wait: { imageBytes: 16 * MiB } },
  { name: 'stop, while criu waits for the commit', leaveRunning: false, wait: { inHook: true }, failpoint: 'checkpoint.seal=sleep 1000' },
];

/** On a busy machine the dump can be over before it is struck; then it counts for nothing, and is made again. */
const ATTEMPTS = 4;

async function strike(moment: Moment, prey: readonly Prey[], attempt = 1): Promise<void> {
  let agent = await agents.now();
  const ids = await checkpointIds(agent);
  agent.arm(moment.failpoint ?? '');
  const memoryPath = moment.laterMs === undefined ? 'auto' : 'page-server';
  const outcome = checkpoint(agent, victim.id, { leaveRunning: moment.leaveRunning, memoryPath }).then(
    () => undefined, (error: unknown) => error as { code?: string },
  );
  const session = await findSession(home, moment.wait);
  await delay(moment.laterMs ?? 0);
  const guard = Number(guardFiles(home, 'guard.pid')[0]);
  // The guard first: nobody else would notice that it is to die.
  if (prey.includes('guard')) killIfThere(guard);
  if (prey.includes('agent')) killIfThere(agent.pid);
  session.kill(...(prey.includes('runtime') ? ['runc', 'crun'] : []), ...(prey.includes('criu') ? ['criu'] : []));
  const error = await outcome;
  const missed = error === undefined && attempt < ATTEMPTS && prey.join() !== 'guard';
  assert.ok(missed || error !== undefined || prey.join() === 'guard', 'the checkpoint must have failed');
  if (prey.includes('agent')) {
    await agent.exited;
    // Without any agent: the guard alone sees to it. Where it died too, the next agent does.
    if (!prey.includes('guard')) await session.assertGone();
    agent = await agents.now();
  }
  agent.arm('');
  await session.assertGone();
  await assertClean(agent);
  await assertWhole(agent, ids);
  if (missed) return strike(moment, prey, attempt + 1);
  // Whatever hinders the next checkpoint shows at the next strike: that must come as far.
}

/** It runs, unhurt, or was stopped by a checkpoint that holds all of it. */
async function assertWhole(agent: TestAgent, before: readonly string[]): Promise<void> {
  const made = (await checkpointIds(agent)).filter((id) => !before.includes(id));
  if (!victim.alive()) {
    assert.equal(made.length, 1, 'the container is dead without a checkpoint');
    victim.adopt(await restore(agent, made[0] ?? ''));
  }
  await victim.assertWhole();
}

async function assertNextWorks(agent: TestAgent): Promise<void> {
  const next = await checkpoint(agent, victim.id, { leaveRunning: true });
  assert.ok(next.bytes.raw > HEAP_MIB * MiB);
  for (const id of await checkpointIds(agent)) await agent.client.deleteCheckpoint({ checkpoint: id, reason: 'test' }, { signal: undefined });
}

const all: readonly (readonly Prey[])[] = [
  ['criu'], ['runtime'], ['runtime', 'criu'], ['agent', 'runtime', 'criu'], ['guard'], ['guard', 'criu'], ['guard', 'agent'], ['guard', 'agent', 'runtime', 'criu'],
];
const few: readonly (readonly Prey[])[] = [['criu'], ['runtime'], ['agent', 'runtime', 'criu']];

/**
 * All where it is hardest; the runtimes differ in how they wait for criu, so the second gets one of each kind. Until criu
 * waits for the commit, leave running differs from a stop in nothing that could be killed.
 */
function preyAt(runtime: 'runc' | 'crun', moment: Moment): readonly (readonly Prey[])[] {
  if (runtime === 'crun') return moment.leaveRunning || moment.laterMs !== undefined ? [] : few;
  if (moment.laterMs !== undefined) return [['criu'], ['agent']];
  if (moment.leaveRunning) return moment.wait.imageBytes === undefined ? [['criu'], ['agent', 'runtime', 'criu']] : [['criu']];
  return moment.wait.inHook === true ? all : few;
}

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`kill -9 during the checkpoint of a ${runtime} container`, () => {
    before(async () => {
      victim = await startVictim(runtime, HEAP_MIB);
    });
    after(() => victim?.stop());

    for (const moment of moments) {
      for (const prey of preyAt(runtime, moment)) {
        void it(`${moment.name}: ${prey.join(' + ')}`, () => strike(moment, prey));
      }
    }
    void it('after all of them the next one works', async () => assertNextWorks(await agents.now()));
  });
}
