/**
 * Memory that is read in rounds before the freeze. The real thing needs a kernel that tracks written pages:
 * scripts/vm -- node --test /opt/stasis/dist/test/agent/pre-dump.test.js
 */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { parseContainerId } from '../../src/core/ids.ts';
import type { CheckpointResult } from '../../src/rpc/api.ts';
import { remove } from '../../src/runtime/index.ts';
import { assertClean, checkpoint, endAgents, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startContainer, toolchain, type TestContainer } from '../support/containers.ts';
import { assertUntouched, guardFiles, openSession, startVictim } from '../support/victim.ts';
import { busyHeapArgs } from '../support/workloads/busy-heap.ts';
import { heapReady, wrongBlocks } from '../support/workloads/heap.ts';

const tracked = (await toolchain()).features['mem_dirty_track'] === true;
const skip = tracked ? false : 'the kernel does not track written pages (CONFIG_MEM_SOFT_DIRTY); scripts/vm has one that does';
const MIB = 32;

let home: AgentHome;
before(() => { home = makeHome(); });
afterEach(endAgents);
after(() => removeHome(home));

async function busy(runtime: 'runc' | 'crun', id: string, pages = 1): Promise<TestContainer> {
  const container = await startContainer({ runtime, id, args: busyHeapArgs(MIB, pages) });
  await heapReady(container.pid);
  return container;
}

async function assertRounds(agent: TestAgent, result: CheckpointResult): Promise<void> {
  assert.equal(result.plainBecause, undefined);
  assert.ok(result.preDumpRounds.length >= 2, JSON.stringify(result.preDumpRounds));
  const [first, second] = result.preDumpRounds;
  assert.ok((second?.pages ?? 0) < (first?.pages ?? 0), 'the second round is smaller than the first');
  for await (const event of agent.client.verifyCheckpoint({ checkpoint: result.checkpoint }, { signal: undefined })) {
    if (event.type === 'report') assert.deepEqual(event.report.problems, []);
  }
}

void test('where the kernel does not track written pages the dump is plain, and says why', { skip: tracked && 'it does' }, async () => {
  const agent = await startAgent(home);
  const container = await busy('runc', 'predump-plain');
  try {
    const result = await checkpoint(agent, container.id, { leaveRunning: true, preDump: 'auto' });
    assert.match(result.plainBecause ?? '', /does not track written pages/);
    assert.deepEqual(result.preDumpRounds, []);
    const never = await checkpoint(agent, container.id, { leaveRunning: true });
    assert.match(never.plainBecause ?? '', /switched off/);
  } finally {
    await container.stop();
  }
});

void describe('rounds before the freeze', { skip }, () => {
  for (const [runtime, memoryPath] of [['runc', 'directory'], ['runc', 'page-server'], ['crun', 'directory']] as const) {
    void it(`${runtime}, ${memoryPath}: every block of a heap that is written to is right after each restore`, { timeout: 300_000 }, async (t) => {
      const agent = await startAgent(home, { STASIS_MEMORY_PRE_DUMP: 'auto' });
      const container = await busy(runtime, `predump-${runtime}-${memoryPath}`);
      try {
        const first = await checkpoint(agent, container.id, { leaveRunning: true, memoryPath });
        await assertRounds(agent, first);
        assert.equal(await wrongBlocks(container.pid), 0, 'the container that goes on');
        const second = await checkpoint(agent, container.id, { memoryPath });
        await assertRounds(agent, second);
        t.diagnostic(JSON.stringify({ rounds: second.preDumpRounds, frozenMs: second.frozenMs, phases: second.phases, bytes: second.bytes }));
        await assertClean(agent);
        const restored = await restore(agent, second.checkpoint);
        assert.equal(await wrongBlocks(restored.pid), 0, 'the one that was stopped');
        await agent.client.deleteCheckpoint({ checkpoint: second.checkpoint, reason: 'test' }, { signal: undefined });
        await remove(container.at, parseContainerId(container.id), { force: true, signal: undefined });
        const again = await restore(agent, first.checkpoint);
        assert.equal(await wrongBlocks(again.pid), 0, 'the one that went on, restored');
      } finally {
        await container.stop();
      }
    });
  }

  void it('a round that fails leaves the container alone, and the dump is a plain one', { timeout: 300_000 }, async () => {
    const container = await busy('runc', 'predump-fails');
    const directory = mkdtempSync('/srv/predump-');
    const wrapper = join(directory, 'runc');
    // The second round fails after criu has done its work: what it took for saved must be dumped again.
    writeFileSync(wrapper, `#!/bin/sh\ncase "$*" in *--pre-dump*--parent-path*) runc "$@"; exit 3 ;; esac\nexec runc "$@"\n`);
    chmodSync(wrapper, 0o755);
    const agent = await startAgent(home, { STASIS_MEMORY_PRE_DUMP: 'auto', STASIS_RUNTIMES_RUNC_BINARY: wrapper });
    try {
      for (const memoryPath of ['directory', 'page-server'] as const) {
        const result = await checkpoint(agent, container.id, { memoryPath });
        assert.match(result.plainBecause ?? '', /^round 2 failed: /);
        assert.equal(result.preDumpRounds.length, 1);
        assert.ok(agent.log.some(({ event }) => event === 'predump.failed'));
        await assertClean(agent);
        const restored = await restore(agent, result.checkpoint);
        assert.equal(await wrongBlocks(restored.pid), 0, memoryPath);
      }
    } finally {
      await container.stop();
    }
  });

  void it('a cancel ends a round at once, wherever it is, and leaves the container alone', { timeout: 400_000 }, async () => {
    const victim = await startVictim('runc', 200);
    const agent = await startAgent(home, { STASIS_MEMORY_PRE_DUMP: 'auto' });
    try {
      for (const [round, laterMs] of [0, 100, 300, 800, 2000].entries()) {
        const operationId = `predump-cancel-${round}`;
        const inRound = Promise.withResolvers<void>();
        const outcome = checkpoint(agent, victim.id, { leaveRunning: true, operationId }, ({ step }) => { if (step === 'pre-dump') inRound.resolve(); }).then(() => 'done', (error: { code: string }) => error.code);
        await inRound.promise;
        await delay(laterMs);
        const [session] = guardFiles(home, 'session').flatMap((number) => openSession(number) ?? []);
        for (const pid of round % 2 === 1 ? session?.pids('criu') ?? [] : []) process.kill(pid, 'SIGSTOP');
        await agent.client.cancelOperation({ operationId }, { signal: undefined });
        assert.equal(await outcome, 'CANCELLED', `after ${laterMs} ms`);
        await session?.assertGone();
        assert.doesNotMatch(readFileSync(`/proc/${victim.pid}/maps`, 'utf8'), /CRIUMFD/);
        await assertUntouched(agent, victim);
      }
      await assertRounds(agent, await checkpoint(agent, victim.id, { leaveRunning: true }));
    } finally {
      await victim.stop();
    }
  });

  void it('an agent that dies in a round leaves nothing frozen and nothing behind', { timeout: 400_000 }, async () => {
    const container = await busy('runc', 'predump-dies');
    try {
      for (const laterMs of [0, 700, 2500]) {
        let agent = await startAgent(home, { STASIS_MEMORY_PRE_DUMP: 'auto' });
        const inRound = Promise.withResolvers<void>();
        const outcome = checkpoint(agent, container.id, { leaveRunning: true }, ({ step }) => { if (step === 'pre-dump') inRound.resolve(); }).then(() => undefined, (error: unknown) => error);
        await inRound.promise;
        await delay(laterMs);
        await agent.kill();
        await outcome;
        await delay(3000);
        assert.equal(await wrongBlocks(container.pid), 0, `killed after ${laterMs} ms`);
        agent = await startAgent(home, { STASIS_MEMORY_PRE_DUMP: 'auto' });
        await assertClean(agent);
        const result = await checkpoint(agent, container.id, { leaveRunning: true });
        await assertRounds(agent, result);
        await agent.client.deleteCheckpoint({ checkpoint: result.checkpoint, reason: 'test' }, { signal: undefined });
        await agent.stop();
      }
    } finally {
      await container.stop();
    }
  });
});
