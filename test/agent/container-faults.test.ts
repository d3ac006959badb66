/** Containers that change while they are saved: they end, are killed, fork, were paused before, or are gone. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { after, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Freezer } from '../../src/host/cgroup.ts';
import {
  assertClean, atFailpoint, checkpoint, checkpointIds, makeHome, oneAfterTheOther, removeHome, restore, type AgentHome, type TestAgent,
} from '../support/agent.ts';
import { startContainer, waitForOutput, type TestContainer } from '../support/containers.ts';
import { startCounter } from '../support/counter.ts';
import { findSession, killIfThere, startVictim } from '../support/victim.ts';

let home: AgentHome;
let agent: TestAgent;

const agents = oneAfterTheOther(() => home);

before(() => {
  home = makeHome();
});

after(async () => {
  await removeHome(home);
});

beforeEach(async () => {
  agent = await agents.now();
  agent.arm('');
});

async function failure(attempt: Promise<unknown>): Promise<{ code: string; message: string }> {
  return attempt.then(() => ({ code: 'none', message: '' }), (error: unknown) => error as { code: string; message: string });
}

async function done(): Promise<void> {
  await assertClean(agent);
  for (const id of await checkpointIds(agent)) await agent.client.deleteCheckpoint({ checkpoint: id, reason: 'test' }, { signal: undefined });
}

/** It has said how many children it has, and makes and ends more all the time. */
function forker(runtime: 'runc' | 'crun', id: string): Promise<TestContainer> {
  const program = 'i=0; while :; do i=$((i+1)); (sleep 0.05 & sleep 0.05 & true) & echo $i >> /count; [ $((i % 8)) = 0 ] && wait; done';
  return startContainer({ runtime, id, args: ['/bin/sh', '-c', program] });
}

void describe('a container that ends', () => {
  for (const place of ['checkpoint.examine', 'checkpoint.read-ahead', 'checkpoint.freeze', 'checkpoint.dump', 'checkpoint.seal']) {
    // Until the dump is over the two are the same.
    for (const leaveRunning of place === 'checkpoint.seal' ? [true, false] : [false]) {
      void it(`is killed in ${place}, ${leaveRunning ? 'leave running' : 'stop'}`, async () => {
        agent.arm(`${place}=stop`);
        const counter = await startCounter('runc');
        try {
          const outcome = failure(checkpoint(agent, counter.id, { leaveRunning }));
          await atFailpoint(agent, () => killIfThere(counter.pid));
          const { code, message } = await outcome;
          // Images that are complete are a checkpoint, whatever happens to the container afterwards.
          if (place === 'checkpoint.seal') assert.equal(code, 'none', message);
          else assert.match(code, /^(CONTAINER_EXITED|NOT_CHECKPOINTABLE)$/, message);
          await done();
        } finally {
          await counter.stop();
        }
      });
    }
  }

  for (const runtime of ['runc', 'crun'] as const) {
    void it(`is killed in the middle of its memory (${runtime})`, async () => {
      const victim = await startVictim(runtime, 96);
      try {
        const outcome = failure(checkpoint(agent, victim.id));
        const session = await findSession(home, { imageBytes: 16 * 1024 * 1024 });
        killIfThere(victim.pid);
        const { code, message } = await outcome;
        // A task under criu's hands dies when criu lets it go, or at once.
        assert.match(code, /^(CONTAINER_EXITED|DUMP_FAILED)$/, message);
        await session.assertGone();
        await done();
      } finally {
        await victim.stop();
      }
    });
  }

  void it('is deleted between look-up and dump', async () => {
    agent.arm('checkpoint.read-ahead=stop');
    const counter = await startCounter('runc');
    try {
      const outcome = failure(checkpoint(agent, counter.id));
      await atFailpoint(agent, () => execFileSync('runc', ['delete', '--force', counter.id]));
      assert.equal((await outcome).code, 'CONTAINER_EXITED');
      assert.equal((await failure(checkpoint(agent, counter.id))).code, 'CONTAINER_NOT_FOUND');
      await done();
    } finally {
      await counter.stop();
    }
  });

  void it('is replaced by another of its id while the operation waits: that one is not touched', async () => {
    agent.arm('checkpoint.examine=stop');
    const counter = await startCounter('runc');
    try {
      const outcome = failure(checkpoint(agent, counter.id));
      const second = await atFailpoint(agent, () => {
        execFileSync('runc', ['delete', '--force', counter.id]);
        return startCounter('runc', { id: counter.id });
      });
      try {
        assert.match((await outcome).code, /^(CONTAINER_EXITED|NOT_CHECKPOINTABLE)$/);
        await second.assertCounting();
        await done();
      } finally {
        await second.stop();
      }
    } finally {
      await counter.stop();
    }
  });
});

void describe('a container that forks all the time', () => {
  for (const runtime of ['runc', 'crun'] as const) {
    void it(`goes on after it was saved, and after it was brought back (${runtime})`, async () => {
      const container = await forker(runtime, `forker-${runtime}-${process.pid}`);
      const count = (pid: number): number => readFileSync(`/proc/${pid}/root/count`, 'utf8').split('\n').length;
      const moves = async (pid: number): Promise<void> => {
        const before = count(pid);
        for (let waited = 0; waited < 3000 && count(pid) <= before; waited += 20) await delay(20);
        assert.ok(count(pid) > before, 'it stands still');
      };
      try {
        for (let round = 0; round < 2; round++) {
          await checkpoint(agent, container.id, { leaveRunning: true });
          await moves(container.pid);
        }
        const { checkpoint: id } = await checkpoint(agent, container.id);
        await moves((await restore(agent, id)).pid);
        await done();
      } finally {
        await container.stop();
      }
    });
  }
});

void describe('a container that was paused before', () => {
  for (const runtime of ['runc', 'crun'] as const) {
    void it(`stays paused, also when the checkpoint fails or the agent dies; a stop saves it too (${runtime})`, async () => {
      const victim = await startVictim(runtime, 4);
      const freezer = new Freezer({ version: 1, directory: `/sys/fs/cgroup/freezer/${victim.id}` });
      const assertPaused = (): void => assert.ok(freezer.frozen(), 'it was paused and is not any more');
      try {
        execFileSync(runtime, ['pause', victim.id]);
        await checkpoint(agent, victim.id, { leaveRunning: true });
        assertPaused();
        // The agent alone knows that it was paused.
        for (const action of runtime === 'runc' ? ['fail', 'kill'] : ['kill']) {
          agent.arm(`checkpoint.dump.after=${action}`);
          assert.notEqual((await failure(checkpoint(agent, victim.id, { leaveRunning: true }))).code, 'none');
          if (action === 'kill') await agent.exited;
          agent = await agents.now();
          await assertClean(agent);
          assertPaused();
        }
        execFileSync(runtime, ['resume', victim.id]);
        await victim.assertWhole();
        execFileSync(runtime, ['pause', victim.id]);
        const { checkpoint: id } = await checkpoint(agent, victim.id);
        victim.adopt(await restore(agent, id));
        await victim.assertWhole();
        await done();
      } finally {
        await victim.stop();
      }
    });
  }
});

void describe('a container that waits in vfork', () => {
  void it('is refused, running or paused, and not held: criu would wait for ever', async () => {
    // The child shares the memory of its parent and sleeps instead of starting a program.
    const program = '$| = 1; print "ready\\n"; my $child = syscall(58); if ($child == 0) { 1 while select(undef, undef, undef, 1000) == 0 }';
    const container = await startContainer({ runtime: 'runc', id: `vfork-${process.pid}`, args: ['/usr/bin/perl', '-e', program] });
    try {
      await waitForOutput(container.outputFile, (text) => text.includes('ready'));
      await delay(100);
      const freezer = new Freezer((await container.inspect()).freezer!);
      for (const leaveRunning of [true, false]) {
        const { code, message } = await failure(checkpoint(agent, container.id, { leaveRunning }));
        assert.equal(code, 'NOT_CHECKPOINTABLE', message);
        assert.match(message, /waits in vfork/);
        assert.equal(freezer.frozen(), false);
      }
      execFileSync('runc', ['pause', container.id]);
      assert.equal((await failure(checkpoint(agent, container.id))).code, 'NOT_CHECKPOINTABLE');
      assert.equal(freezer.frozen(), true);
      await done();
    } finally {
      await container.stop();
    }
  });
});

void describe('a container that is not running', () => {
  void it('is refused: created, stopped, unknown', async () => {
    const short = await startContainer({ runtime: 'runc', id: `short-${process.pid}`, args: ['/bin/sh', '-c', 'echo done'] });
    try {
      await waitForOutput(short.outputFile, (text) => text.includes('done'));
      await delay(200);
      assert.equal((await failure(checkpoint(agent, short.id))).code, 'NOT_CHECKPOINTABLE');
      assert.equal((await failure(checkpoint(agent, 'nobody-knows-this'))).code, 'CONTAINER_NOT_FOUND');
      await done();
    } finally {
      await short.stop();
    }
  });

  void it('has a state that cannot be read: refused with its path, and the others are listed', async () => {
    const counter = await startCounter('runc');
    const broken = `/run/runc/broken-${process.pid}`;
    try {
      execFileSync('mkdir', ['-p', broken]);
      writeFileSync(`${broken}/state.json`, '{"id":');
      assert.equal((await failure(checkpoint(agent, `broken-${process.pid}`))).code, 'RUNTIME_FAILED');
      const { containers } = await agent.client.listContainers({ all: true }, { signal: undefined });
      assert.ok(containers.some(({ id }) => id === counter.id));
      await checkpoint(agent, counter.id, { leaveRunning: true });
      await done();
    } finally {
      execFileSync('rm', ['-r', broken]);
      await counter.stop();
    }
  });
});
