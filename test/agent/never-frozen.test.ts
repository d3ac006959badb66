/** A container whose agent and guard were both killed goes on as soon as an agent starts, whatever else is missing. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Freezer } from '../../src/host/cgroup.ts';
import { isStasisError } from '../../src/core/errors.ts';
import { agentProgram, assertClean, atFailpoint, checkpoint, makeHome, removeHome, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { removeCgroups } from '../support/cgroups.ts';
import { startContainer, type TestContainer } from '../support/containers.ts';
import { assertUntouched, findSession, killIfThere, startVictim } from '../support/victim.ts';

let home: AgentHome;
let running: (TestContainer & { freezer: Freezer }) | undefined;

before(() => {
  home = makeHome();
});
after(() => removeHome(home));
afterEach(async () => {
  running?.freezer.thaw();
  await running?.stop();
  running = undefined;
});

async function start(id: string, cgroupsPath = `/${id}`): Promise<Freezer> {
  const container = await startContainer({ runtime: 'runc', id, args: ['/bin/sh', '-c', 'while :; do sleep 0.1; done'], edit: (spec) => { spec['linux'].cgroupsPath = cgroupsPath; } });
  const freezer = new Freezer((await container.inspect()).freezer!);
  running = { ...container, freezer };
  return freezer;
}

async function untilThawed(freezer: Freezer): Promise<void> {
  for (let waited = 0; freezer.frozen(); waited += 20) {
    assert.ok(waited < 15_000, 'the container is still frozen');
    await delay(20);
  }
}

/** Kills the agent at its failpoint, and before it everything of the guard that stands by. */
async function killBoth(agent: TestAgent): Promise<void> {
  await atFailpoint(agent, () => {
    for (const name of readdirSync(join(home.run, 'guards'))) {
      const guard = Number(readFileSync(join(home.run, 'guards', name, 'guard.pid'), 'utf8'));
      const children = readFileSync(`/proc/${guard}/task/${guard}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
      for (const pid of [guard, ...children]) killIfThere(pid);
    }
    process.kill(agent.pid, 'SIGKILL');
  });
  await agent.kill();
}

void describe('nobody stays frozen', () => {
  for (const step of ['freeze.after', 'dump.after', 'commit.manifest']) {
    void it(`stop, agent and guard killed at ${step}: an agent without its store and criu thaws`, async () => {
      const freezer = await start(`never-${step.replace('.', '-')}`);
      const agent = await startAgent(home, { STASIS_TESTING_FAILPOINT: `checkpoint.${step}=stop` });
      const outcome = checkpoint(agent, running!.id).catch((error: unknown) => error);
      await killBoth(agent);
      await outcome;
      const crippled = spawn(process.execPath, [agentProgram], {
        stdio: 'ignore',
        env: {
          ...process.env, STASIS_STATE_DIRECTORY: home.state, STASIS_RUN_DIRECTORY: home.run, STASIS_SOCKET: join(home.run, 'agent.sock'), STASIS_METRICS_LISTEN: '',
          STASIS_CRIU_BINARY: '/nowhere/criu', STASIS_KEYS_FILE: '/nowhere/node.key', STASIS_REPOSITORY_S3_BUCKET: 'bucket', STASIS_REPOSITORY_S3_ENDPOINT: 'http://127.0.0.1:9',
        },
      });
      const ended = once(crippled, 'exit');
      try {
        await untilThawed(freezer);
      } finally {
        crippled.kill('SIGKILL');
        await ended;
      }
      const next = await startAgent(home);
      await assertClean(next);
      await next.stop();
      assert.equal(freezer.frozen(), false);
      assert.ok(freezer.pids().length > 0, 'the container is dead without a checkpoint');
    });
  }

  void it('a failed checkpoint thaws a container whatever its cgroup is called', async () => {
    try {
      for (const name of ['my pod', 'tab\there\\040', '-n) (x FROZEN']) {
        // A failpoint strikes once: each name has an agent of its own.
        const agent = await startAgent(home, { STASIS_TESTING_FAILPOINT: 'checkpoint.dump=fail' });
        const freezer = await start('never-named', `/never/${name}`);
        await assert.rejects(checkpoint(agent, 'never-named', { leaveRunning: true }), { code: 'INTERNAL' }, name);
        assert.equal(freezer.closed(), false, name);
        await running!.stop();
        running = undefined;
        await assertClean(agent);
        await agent.stop();
      }
    } finally {
      await removeCgroups('never');
    }
  });

  void it('no time at all is no budget and no deadline, and a century is no millisecond', async () => {
    const agent = await startAgent(home);
    try {
      const freezer = await start('never-budget');
      const refused = (error: unknown): boolean => isStasisError(error, 'USAGE');
      for (const freezeBudgetMs of [0, -1, 2 ** 31]) await assert.rejects(checkpoint(agent, 'never-budget', { freezeBudgetMs }), refused);
      for (const deadlineMs of [0, -1]) await assert.rejects(checkpoint(agent, 'never-budget', { deadlineMs }), refused);
      await checkpoint(agent, 'never-budget', { leaveRunning: true, deadlineMs: 100 * 365 * 86_400_000, freezeBudgetMs: 2 ** 31 - 1 });
      assert.equal(freezer.frozen(), false);
      await assertClean(agent);
    } finally {
      await agent.stop();
    }
  });
});

void describe('a cancelled dump', () => {
  /** Of the memory that criu has written; 0 is as soon as it is there. */
  const moments = [0, 1, 8, 60, 150];
  void it('lets the container go on at once and whole, wherever criu is and although it does nothing any more', async () => {
    const agent = await startAgent(home);
    const victim = await startVictim('runc', 250);
    try {
      for (const [round, mib] of moments.entries()) {
        const operationId = `cancel-dump-${round}`;
        const outcome = checkpoint(agent, victim.id, { operationId, leaveRunning: round % 2 === 0 }).then(() => 'none', (error: { code: string }) => error.code);
        const session = await findSession(home, { imageBytes: mib * 1024 * 1024 });
        const hangs = round % 3 !== 2;
        for (const pid of hangs ? session.pids('criu') : []) process.kill(pid, 'SIGSTOP');
        await agent.client.cancelOperation({ operationId }, { signal: undefined });
        assert.equal(await outcome, 'CANCELLED');
        await assertUntouched(agent, victim);
        await session.assertGone();
      }
    } finally {
      await victim.stop();
      await agent.stop();
    }
  });
});
