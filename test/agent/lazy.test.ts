/** Lazy restore with a real criu and runc: the program checks its own memory all the time, whatever happens around it. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { listPids, processAlive, readProc, readStat } from '../../src/host/proc.ts';
import { assertClean, checkpoint, makeHome, oneAfterTheOther, removeHome, restore } from '../support/agent.ts';
import { startContainer } from '../support/containers.ts';
import { STALL, assertDead, ended, restoreLazily, withHeap, type Subject } from '../support/lazy-subject.ts';
import { assertNothingWrong, checkedHeapArgs, forkingHeapArgs, heapLines, looks, waitForLooks, waitForRounds } from '../support/workloads/checked-heap.ts';

const home = makeHome();
const agents = oneAfterTheOther(() => home);
after(() => removeHome(home));

let serial = 0;

function withSubject(args: readonly string[], failpoint: string, use: (subject: Subject) => Promise<void>): Promise<void> {
  return withHeap(agents, `lazy-${(serial += 1)}`, args, failpoint, use);
}

function killHard(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // One of the others took it along.
  }
}

void test('a heap is whole while it is filled, and cannot be checkpointed meanwhile', { timeout: 120_000 }, async () => {
  await withSubject(checkedHeapArgs(32), STALL, async (subject) => {
    const { agent, container, output } = subject;
    const result = await restoreLazily(subject);
    await assert.rejects(checkpoint(agent, container.id), { code: 'NOT_CHECKPOINTABLE' });
    await assert.rejects(agent.client.deleteCheckpoint({ checkpoint: subject.checkpoint, reason: '' }, { signal: undefined }), { code: 'CHECKPOINT_IN_USE' });
    const { containers } = await agent.client.listContainers({ all: false, container: container.id }, { signal: undefined });
    assert.equal(containers[0]?.filling?.bytesTotal, result.lazyBytes);
    assert.equal(containers[0]?.findings[0]?.kind, 'filling');
    const end = await ended(agent, result.fillOperationId);
    assert.equal(end.state, 'succeeded', JSON.stringify(end));
    await waitForRounds(output);
    assertNothingWrong(output);
    await assertClean(agent);
    await checkpoint(agent, container.id);
  });
});

void test('what was touched first comes with the eager pages the next time', { timeout: 120_000 }, async () => {
  // The stall lets the program run into missing pages before the background has brought them, on a fast machine, too.
  await withSubject(checkedHeapArgs(64, 64, 256), STALL, async (subject) => {
    const { agent, container, output } = subject;
    const lazyBytes: number[] = [];
    const said = agent.log.length;
    for (let turn = 0; turn < 2; turn += 1) {
      const result = await restoreLazily(subject);
      lazyBytes.push(result.lazyBytes);
      assert.equal((await ended(agent, result.fillOperationId)).state, 'succeeded');
      await waitForLooks(output, looks(output));
      assertNothingWrong(output);
      await checkpoint(agent, container.id);
    }
    const faults = agent.log.slice(said).filter(({ event }) => event === 'fill.finished').map((entry) => Number(entry['faults']));
    assert.ok(faults[0]! > 0, 'the program never waited for a page');
    // How many faults that spares depends on the machine: scripts/bench --only lazy measures it.
    assert.ok(lazyBytes[1]! < lazyBytes[0]!, `lazy bytes: ${lazyBytes.join(', ')}; faults: ${faults.join(', ')}`);
  });
});

const helper = (word: string): number[] => listPids().filter((pid) => readProc(pid, 'cmdline')?.includes(word) === true && readStat(pid)?.state !== 'Z');

const victims: Readonly<Record<string, (subject: Subject) => readonly number[]>> = {
  'criu lazy-pages': () => helper('lazy-pages\0--page-server').filter((pid) => readProc(pid, 'comm')?.trim() === 'criu'),
  'its guard': () => helper('stasis-lazy-guard\0fill'),
  'a holder': () => helper('stasis-lazy-guard\0hold'),
  'criu lazy-pages and its guard': () => [...helper('stasis-lazy-guard\0fill'), ...helper('lazy-pages\0--page-server')],
  'the agent': ({ agent }) => [agent.pid],
};

for (const [name, find] of Object.entries(victims)) {
  for (const afterMs of name === 'criu lazy-pages' || name === 'the agent' ? [0, 500] : [500]) {
    void test(`kill -9 of ${name} after ${afterMs} ms: no wrong page is ever seen`, { timeout: 120_000 }, async () => {
      await withSubject(checkedHeapArgs(32), STALL, async (subject) => {
        const { agent, container, output } = subject;
        const result = await restoreLazily(subject);
        const pidStart = readStat(result.pid)?.startTime ?? 0;
        await delay(afterMs);
        const seen = looks(output);
        const pids = find(subject);
        assert.ok(pids.length > 0, 'there is nobody to kill');
        for (const pid of pids) killHard(pid);
        if (name === 'a holder') {
          assert.equal((await ended(agent, result.fillOperationId)).state, 'succeeded');
          await waitForRounds(output);
          await checkpoint(agent, container.id);
        } else {
          await assertDead(result.pid, pidStart);
          if (afterMs > 0) assert.equal(looks(output), seen, 'it went on without its memory');
        }
        if (name === 'the agent') await recovered(subject);
        else if (name !== 'a holder') {
          const end = await ended(agent, result.fillOperationId);
          assert.equal(end.state, 'failed');
          assert.equal(end.error?.code, 'RESTORE_FAILED');
          await assertClean(agent);
        }
        assertNothingWrong(output);
      });
    });
  }
}

/** The next agent finds nothing alive, and the container can be restored again. */
async function recovered({ checkpoint: saved, container, output }: Subject): Promise<void> {
  const agent = await agents.now();
  assert.deepEqual(readdirSync(join(home.run, 'fills')), []);
  await assertClean(agent);
  const again = await restoreLazily({ agent, checkpoint: saved });
  assert.equal((await ended(agent, again.fillOperationId)).state, 'succeeded');
  await waitForRounds(output);
  await checkpoint(agent, container.id);
}

void test('damage of the store ends the container, with the reason', { timeout: 120_000 }, async () => {
  await withSubject(checkedHeapArgs(64), STALL, async (subject) => {
    const { agent, output } = subject;
    const packs = join(home.state, 'repository/packs');
    const result = await restoreLazily(subject);
    const pidStart = readStat(result.pid)?.startTime ?? 0;
    for (const name of readdirSync(packs).filter((pack) => pack.startsWith(subject.checkpoint))) rmSync(join(packs, name));
    await assertDead(result.pid, pidStart);
    const end = await ended(agent, result.fillOperationId);
    assert.equal(end.error?.code, 'OBJECT_MISSING');
    assertNothingWrong(output);
    assert.equal(existsSync(result.bundle), false);
  });
});

void test('cancelling the fill ends the container', { timeout: 120_000 }, async () => {
  await withSubject(checkedHeapArgs(32), STALL, async (subject) => {
    const { agent, output } = subject;
    const result = await restoreLazily(subject);
    const pidStart = readStat(result.pid)?.startTime ?? 0;
    await agent.client.cancelOperation({ operationId: result.fillOperationId }, { signal: undefined });
    await assertDead(result.pid, pidStart);
    assert.equal((await ended(agent, result.fillOperationId)).state, 'cancelled');
    assertNothingWrong(output);
    await assertClean(agent);
  });
});

void test('a container that ends while it is filled is no failure of ours', { timeout: 120_000 }, async () => {
  await withSubject(checkedHeapArgs(32), STALL, async (subject) => {
    const { agent } = subject;
    const result = await restoreLazily(subject);
    process.kill(result.pid, 'SIGKILL');
    const end = await ended(agent, result.fillOperationId);
    assert.ok(end.state === 'succeeded' || end.error?.code === 'CONTAINER_EXITED', JSON.stringify(end));
  });
});

void test('two clones of one checkpoint fill at the same time', { timeout: 120_000 }, async () => {
  await withSubject(checkedHeapArgs(32), STALL, async (subject) => {
    const { agent, output } = subject;
    const names = ['lazy-clone-a', 'lazy-clone-b'];
    const results = await Promise.all(names.map((container) => restoreLazily(subject, { clone: true, container })));
    try {
      for (const { fillOperationId } of results) assert.equal((await ended(agent, fillOperationId)).state, 'succeeded');
      for (const name of names) {
        const own = output.replace(/[^/]+$/, `${name}.stdout.log`);
        await waitForRounds(own);
        assertNothingWrong(own);
      }
    } finally {
      for (const name of names) await checkpoint(agent, name);
    }
  });
});

void test('an agent that is asked to stop lets the fill end first', { timeout: 120_000 }, async () => {
  await withSubject(checkedHeapArgs(32), STALL, async (subject) => {
    const { agent, container, output } = subject;
    const result = await restoreLazily(subject);
    const pidStart = readStat(result.pid)?.startTime ?? 0;
    const told = agent.log.length;
    assert.equal(await agent.stop(), 0);
    assert.equal(agent.log.slice(told).some(({ event }) => event === 'fill.finished'), true);
    assert.equal(processAlive(result.pid, pidStart), true);
    await waitForRounds(output);
    assertNothingWrong(output);
    const next = await agents.now();
    await assertClean(next);
    await checkpoint(next, container.id);
  });
});

void test('when all who watch are killed at once, the next agent ends the container', { timeout: 120_000 }, async () => {
  await withSubject(checkedHeapArgs(32), STALL, async (subject) => {
    const { agent } = subject;
    const result = await restoreLazily(subject);
    const pidStart = readStat(result.pid)?.startTime ?? 0;
    await delay(500);
    for (const pid of [agent.pid, ...helper('stasis-lazy-guard'), ...helper('lazy-pages\0--page-server')]) killHard(pid);
    await agent.exited;
    const next = await agents.now();
    await assertDead(result.pid, pidStart);
    await assertClean(next);
  });
});

void test('children that are forked while it fills see whole memory', { timeout: 120_000 }, async () => {
  await withSubject(forkingHeapArgs(32), STALL, async (subject) => {
    const { agent, container, output } = subject;
    const result = await restoreLazily(subject);
    await waitForLooks(output, looks(output));
    assert.equal((await ended(agent, result.fillOperationId)).state, 'succeeded');
    await waitForLooks(output, looks(output) + 8);
    assertNothingWrong(output);
    await checkpoint(agent, container.id);
  });
});

void test('crun cannot be lazy: asked for it refuses, auto goes the eager way', { timeout: 60_000 }, async () => {
  const agent = await agents.now();
  agent.arm('');
  const container = await startContainer({ runtime: 'crun', id: 'lazy-crun', args: checkedHeapArgs(8) });
  try {
    await waitForLooks(container.outputFile, 50);
    const saved = await checkpoint(agent, 'lazy-crun');
    await assert.rejects(restore(agent, saved.checkpoint, { lazy: 'always' }), { code: 'RESTORE_INCOMPATIBLE' });
    const result = await restore(agent, saved.checkpoint, { lazy: 'auto' });
    assert.equal(result.fillOperationId, undefined);
    assert.ok(heapLines(container.outputFile).length > 0 && readFileSync(`/proc/${result.pid}/stat`).length > 0);
  } finally {
    await container.stop();
  }
});
