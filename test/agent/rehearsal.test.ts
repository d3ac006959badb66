/**
 * A container is stopped for its checkpoint only when that could be rebuilt. What cannot come back goes on; a rehearsal that
 * is killed, cancelled or too long lets the container go on, too; and nothing of one is ever left or seen by anybody.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { readMountinfo } from '../../src/host/mountinfo.ts';
import { listPids, readStat } from '../../src/host/proc.ts';
import {
  assertClean, atFailpoint, checkpoint, checkpointIds, makeHome, oneAfterTheOther, removeHome, restore, type AgentHome, type TestAgent,
} from '../support/agent.ts';
import { startCounter, type Counter } from '../support/counter.ts';
import { killIfThere } from '../support/victim.ts';

let home: AgentHome;

const agents = oneAfterTheOther(() => home);

before(() => {
  home = makeHome();
});

after(() => removeHome(home));

async function armed(failpoint: string): Promise<TestAgent> {
  const agent = await agents.now();
  agent.arm(failpoint);
  return agent;
}

function sessions(): number[] {
  const directory = join(home.run, 'rehearsals');
  if (!existsSync(directory)) return [];
  return readdirSync(directory).flatMap((name) => {
    try {
      return [Number.parseInt(readFileSync(join(directory, name, 'session'), 'utf8'), 10)];
    } catch {
      return [];
    }
  });
}

/** Processes of rehearsals: all that are below one's first process, by name if wanted. */
function actors(session: number, comm?: string): number[] {
  return listPids().filter((pid) => {
    const stat = readStat(pid);
    return stat?.session === session && stat.state !== 'Z' && (comm === undefined || stat.comm === comm);
  });
}

function cgroups(): string[] {
  return execFileSync('find', ['/sys/fs/cgroup', '-maxdepth', '3', '-name', 'stasis-rehearsal-*'], { encoding: 'utf8' }).split('\n').filter(Boolean);
}

/** Soon after: no process, mount, cgroup or file of a rehearsal. */
async function assertNothingLeft(): Promise<void> {
  const left = (): unknown[] => [
    ...(existsSync(join(home.run, 'rehearsals')) ? readdirSync(join(home.run, 'rehearsals')) : []), ...cgroups(),
    ...readMountinfo('self').map(({ mountPoint }) => mountPoint).filter((path) => path.includes('/rehearsals/')),
  ];
  for (let waited = 0; waited < 10_000 && left().length > 0; waited += 50) await delay(50);
  assert.deepEqual(left(), []);
}

async function rejection(attempt: Promise<unknown>): Promise<{ code: string; message: string; hint: string }> {
  return attempt.then(() => assert.fail('the stop must fail'), (error: unknown) => error as { code: string; message: string; hint: string });
}

/** The session of the rehearsal that goes on now, when its tasks are rebuilt. */
async function rebuilt(): Promise<number> {
  for (let waited = 0; waited < 30_000; waited += 10) {
    for (const name of existsSync(join(home.run, 'rehearsals')) ? readdirSync(join(home.run, 'rehearsals')) : []) {
      if (existsSync(join(home.run, 'rehearsals', name, 'gate/pre-resume'))) return sessions()[0] ?? 0;
    }
    await delay(10);
  }
  throw new Error('no rehearsal was seen');
}

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`rehearsal of a ${runtime} container`, () => {
    let counter: Counter;
    let agent: TestAgent;

    before(async () => {
      counter = await startCounter(runtime);
    });
    after(() => counter.stop());

    void it('the first stop of a lineage is rehearsed, and the container comes back', async () => {
      agent = await armed('');
      const told = agent.log.length;
      const stopped = await checkpoint(agent, counter.id);
      assert.equal(stopped.rehearsal?.done, true, stopped.rehearsal?.reason);
      assert.ok(agent.log.slice(told).some(({ event }) => event === 'checkpoint.rehearsed'));
      await assertNothingLeft();
      await counter.adopt(await restore(agent, stopped.checkpoint));
      await counter.assertCounting();
      const detail = await agent.client.inspectCheckpoint({ checkpoint: stopped.checkpoint }, { signal: undefined });
      assert.equal((JSON.parse(detail.descriptionJson) as { rehearsal?: { done: boolean } }).rehearsal?.done, true);
    });

    void it('auto: not one that is left running, and no stop like the one before; never: none; always: every one', async () => {
      agent = await armed('');
      const running = await checkpoint(agent, counter.id, { leaveRunning: true });
      assert.match(running.rehearsal?.reason ?? '', /left running/);
      const always = await checkpoint(agent, counter.id, { leaveRunning: true, rehearsal: 'always' });
      assert.equal(always.rehearsal?.done, true, always.rehearsal?.reason);
      const never = await checkpoint(agent, counter.id, { rehearsal: 'never' });
      assert.equal(never.rehearsal?.done, false);
      await counter.adopt(await restore(agent, never.checkpoint));
      const first = await checkpoint(agent, counter.id);
      await counter.adopt(await restore(agent, first.checkpoint));
      const second = await checkpoint(agent, counter.id);
      assert.match(second.rehearsal?.reason ?? '', /nothing that matters has changed/);
      await counter.adopt(await restore(agent, second.checkpoint));
      await counter.assertCounting();
    });

    void it('images that cannot be restored: the container goes on, with the cause', async () => {
      agent = await armed('checkpoint.rehearse=stop');
      const before = await checkpointIds(agent);
      const failed = rejection(checkpoint(agent, counter.id, { rehearsal: 'always' }));
      await atFailpoint(agent, () => {
        const images = join(home.run, 'staging', readdirSync(join(home.run, 'staging'))[0] ?? '', 'images');
        for (const name of readdirSync(images).filter((name) => name.startsWith('fdinfo-'))) truncateSync(join(images, name), 4);
      });
      const error = await failed;
      assert.equal(error.code, 'REHEARSAL_FAILED', error.message);
      await counter.assertCounting();
      assert.deepEqual(await checkpointIds(agent), before);
      await assertNothingLeft();
      await assertClean(agent);
    });

    void it('a cancel in the middle lets the container go on at once', async () => {
      agent = await armed('checkpoint.rehearse.rebuilt=sleep 20000');
      const failed = rejection(checkpoint(agent, counter.id, { rehearsal: 'always', operationId: `cancel-${runtime}` }));
      const session = await rebuilt();
      assert.ok(actors(session, 'criu').length > 0);
      await agent.client.cancelOperation({ operationId: `cancel-${runtime}` }, { signal: undefined });
      assert.equal((await failed).code, 'CANCELLED');
      await counter.assertCounting();
      await assertNothingLeft();
      await assertClean(agent);
    });

    for (const prey of ['criu', runtime, 'agent', 'guard'] as const) {
      void it(`kill -9 of ${prey} in the middle: nothing is lost, nothing left`, () => strike(counter, prey));
    }
  });
}

async function strike(counter: Counter, prey: string): Promise<void> {
  let agent = await armed('checkpoint.rehearse.rebuilt=sleep 2000');
  const known = await checkpointIds(agent);
  const outcome = checkpoint(agent, counter.id, { rehearsal: 'always' }).then(({ checkpoint: id }) => id, () => undefined);
  const session = await rebuilt();
  if (prey === 'agent') killIfThere(agent.pid);
  else if (prey === 'guard') readdirSync(join(home.run, 'guards')).forEach((name) => killIfThere(Number(readFileSync(join(home.run, 'guards', name, 'guard.pid'), 'utf8'))));
  else actors(session, prey).forEach(killIfThere);
  const made = await outcome;
  if (prey === 'agent') {
    await agent.exited;
    // All of it dies with the agent, before there is another one.
    for (let waited = 0; waited < 10_000 && actors(session).length > 0; waited += 20) await delay(20);
    assert.deepEqual(actors(session), []);
    await counter.assertCounting();
    agent = await agents.now();
  }
  if (made === undefined) assert.deepEqual(await checkpointIds(agent), known);
  else await counter.adopt(await restore(agent, made));
  await counter.assertCounting();
  await assertNothingLeft();
  await assertClean(agent);
}
