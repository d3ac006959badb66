/** Lazy restore with a real criu and runc: the program checks its own memory all the time, whatever happens around it. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { listPids, processAlive, readProc, readStat } from '../../src/host/proc.ts';
import type { Operation, RestoreResult } from '../../src/rpc/api.ts';
import { assertClean, checkpoint, endAgents, makeHome, removeHome, restore, startAgent, type TestAgent } from '../support/agent.ts';
import { startContainer, type TestContainer } from '../support/containers.ts';
import { assertNothingWrong, checkedHeapArgs, heapLines, looks, waitForLooks, waitForRounds } from '../support/workloads/checked-heap.ts';

const home = makeHome();
after(() => removeHome(home));

/** Whatever is killed, the container must be dead by then; a loaded machine included. */
const DEATH_MS = 5000;

interface Subject {
  readonly agent: TestAgent;
  readonly container: TestContainer;
  readonly checkpoint: string;
  /** What the restored program says. */
  readonly output: string;
}

let serial = 0;

/** In the middle of the fill no page comes for a while: whoever touches a missing one waits. */
const STALL = { STASIS_TESTING_FAILPOINT: 'fill.answer:30=sleep 3000' };

/** A heap program that was checkpointed, ready to be restored. */
async function withSubject(args: readonly string[], environment: Record<string, string>, use: (subject: Subject) => Promise<void>): Promise<void> {
  const id = `lazy-${(serial += 1)}`;
  const agent = await startAgent(home, environment);
  const container = await startContainer({ runtime: 'runc', id, args });
  try {
    await waitForLooks(container.outputFile, 50);
    const { checkpoint: saved } = await checkpoint(agent, id);
    await use({ agent, container, checkpoint: saved, output: join(home.state, 'output', `${id}.stdout.log`) });
    await agent.stop();
  } finally {
    await container.stop();
    await endAgents();
  }
}

async function ended(agent: TestAgent, operationId: string): Promise<Operation> {
  for await (const event of agent.client.watchOperations({ operationId }, { signal: undefined })) {
    const [operation] = event.type === 'snapshot' ? event.snapshot.operations : [event.changed];
    if (operation !== undefined && operation.state !== 'running' && operation.state !== 'queued') return operation;
  }
  throw new Error('the stream ended before the operation');
}

async function restoreLazily({ agent, checkpoint: saved }: Pick<Subject, 'agent' | 'checkpoint'>): Promise<RestoreResult & { readonly fillOperationId: string }> {
  const result = await restore(agent, saved, { lazy: 'always' });
  assert.ok(result.fillOperationId !== undefined, 'nothing is left to come');
  return { ...result, fillOperationId: result.fillOperationId };
}

function killHard(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // One of the others took it along.
  }
}

async function assertDead(pid: number, pidStart: number): Promise<void> {
  const until = performance.now() + DEATH_MS;
  while (processAlive(pid, pidStart)) {
    assert.ok(performance.now() < until, 'the container lives on although its memory cannot arrive');
    await delay(5);
  }
}

void test('a heap is whole while it is filled, and cannot be checkpointed meanwhile', { timeout: 120_000 }, async () => {
  await withSubject(checkedHeapArgs(64), STALL, async (subject) => {
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
    for (let turn = 0; turn < 2; turn += 1) {
      const result = await restoreLazily(subject);
      lazyBytes.push(result.lazyBytes);
      assert.equal((await ended(agent, result.fillOperationId)).state, 'succeeded');
      await waitForLooks(output, looks(output));
      assertNothingWrong(output);
      await checkpoint(agent, container.id);
    }
    const faults = agent.log.filter(({ event }) => event === 'fill.finished').map((entry) => Number(entry['faults']));
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
      await withSubject(checkedHeapArgs(64), STALL, async (subject) => {
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
  const agent = await startAgent(home);
  assert.deepEqual(readdirSync(join(home.run, 'fills')), []);
  await assertClean(agent);
  const again = await restoreLazily({ agent, checkpoint: saved });
  assert.equal((await ended(agent, again.fillOperationId)).state, 'succeeded');
  await waitForRounds(output);
  await checkpoint(agent, container.id);
  await agent.stop();
}

void test('damage of the store ends the container, with the reason', { timeout: 120_000 }, async () => {
  await withSubject(checkedHeapArgs(128), STALL, async (subject) => {
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
  await withSubject(checkedHeapArgs(64), STALL, async (subject) => {
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
  await withSubject(checkedHeapArgs(64), STALL, async (subject) => {
    const { agent } = subject;
    const result = await restoreLazily(subject);
    process.kill(result.pid, 'SIGKILL');
    const end = await ended(agent, result.fillOperationId);
    assert.ok(end.state === 'succeeded' || end.error?.code === 'CONTAINER_EXITED', JSON.stringify(end));
  });
});

void test('crun cannot be lazy: asked for it refuses, auto goes the eager way', { timeout: 60_000 }, async () => {
  const agent = await startAgent(home);
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
    await agent.stop();
  }
});
