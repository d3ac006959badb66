/** Lazy restore from a real S3 server that is slow, silent, gone or damaged; and what auto makes of its speed. */
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { join } from 'node:path';
import { GetObjectCommand, ListObjectsV2Command, PutObjectCommand } from '@aws-sdk/client-s3';
import type { StasisError } from '../../src/core/errors.ts';
import { processAlive, readStat } from '../../src/host/proc.ts';
import { assertClean, checkpoint, makeHome, oneAfterTheOther, removeHome, restore, startAgent, type TestAgent } from '../support/agent.ts';
import { STALL, assertDead, ended, restoreLazily, withHeap, type Subject } from '../support/lazy-subject.ts';
import { startBucket, type TestBucket } from '../support/s3-bucket.ts';
import { startFaultProxy, type Fault, type FaultProxy } from '../support/s3-fault-proxy.ts';
import { assertNothingWrong, checkedHeapArgs, looks, waitForLooks, waitForRounds } from '../support/workloads/checked-heap.ts';

const home = makeHome();
const other = makeHome();
const prefix = 'lazy';
let bucket: TestBucket;
let proxy: FaultProxy;

const agents = oneAfterTheOther(() => home, () => onS3());

before(async () => {
  bucket = await startBucket('lazy-test');
  proxy = await startFaultProxy(Number(new URL(bucket.endpoint).port));
});

after(async () => {
  await removeHome(home);
  await removeHome(other);
  await proxy?.[Symbol.asyncDispose]();
  await bucket?.[Symbol.asyncDispose]();
});

afterEach(() => { proxy.decide = () => undefined; });

const onS3 = (): Record<string, string> => ({ ...bucket.agentEnvironment(prefix), STASIS_REPOSITORY_S3_ENDPOINT: proxy.endpoint, STASIS_REPOSITORY_S3_PATIENCE: '3s' });

let serial = 0;

const withSubject = (mib: number, failpoint: string, use: (subject: Subject) => Promise<void>): Promise<void> =>
  withHeap(agents, `lazy-s3-${(serial += 1)}`, checkedHeapArgs(mib), failpoint, use);

/** From now on reads of packs meet the fault, until it is taken back. */
function fail(fault: Fault): { readonly met: () => number } {
  let met = 0;
  proxy.decide = ({ method, url }) => {
    if (method !== 'GET' || !url.includes('/packs/')) return undefined;
    met += 1;
    return fault;
  };
  return { met: () => met };
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (let waited = 0; !holds(); waited += 20) {
    assert.ok(waited < 30_000, what);
    await delay(20);
  }
}

const said = (agent: TestAgent, event: string): Record<string, unknown> | undefined => agent.log.findLast((entry) => entry['event'] === event);

void test('auto: a quick store and little memory bring all at once, a slow store lets the program go first', { timeout: 120_000 }, async () => {
  await withSubject(8, '', async ({ agent, container, checkpoint: saved, output }) => {
    const quick = await restore(agent, saved, { lazy: 'auto' });
    assert.equal(quick.fillOperationId, undefined);
    assert.match(quick.lazyReason ?? '', /can come later, and the store gives .* a second: all is there in about/);
    assert.deepEqual([said(agent, 'restore.laziness')?.['lazy'], said(agent, 'restore.laziness')?.['reason']], [false, quick.lazyReason]);
    await waitForLooks(output, looks(output));
    const again = await checkpoint(agent, container.id);
    // Another agent has not read anything yet: it measures.
    await agent.stop();
    const fresh = await agents.now();
    fail('trickle');
    const restoring = restore(fresh, again.checkpoint, { lazy: 'auto' });
    await until('it does not decide', () => said(fresh, 'restore.laziness') !== undefined);
    proxy.decide = () => undefined;
    const slow = await restoring;
    assert.match(slow.lazyReason ?? '', /the store gives .* a second: all would be there/);
    assert.equal(said(fresh, 'restore.laziness')?.['lazy'], true);
    assert.ok(slow.fillOperationId !== undefined && slow.lazyBytes > 0);
    assert.equal((await ended(fresh, slow.fillOperationId)).state, 'succeeded');
    await waitForRounds(output);
    assertNothingWrong(output);
  });
});

void test('a store that is silent for a while makes faults wait; then all comes', { timeout: 120_000 }, async () => {
  await withSubject(96, STALL, async (subject) => {
    const { agent, output } = subject;
    const told = agent.log.length;
    const result = await restoreLazily(subject);
    const { met } = fail('blackhole');
    await until('the fill met no fault', () => met() > 0);
    await delay(5000);
    assert.ok(agent.log.slice(told).every(({ event }) => event !== 'fill.finished' && event !== 'fill.failed'), 'it is over already');
    proxy.decide = () => undefined;
    assert.equal((await ended(agent, result.fillOperationId)).state, 'succeeded');
    await waitForRounds(output);
    assertNothingWrong(output);
    await checkpoint(agent, result.container);
  });
});

void test('a store that is gone for good: the container waits until somebody ends it', { timeout: 120_000 }, async () => {
  await withSubject(96, STALL, async (subject) => {
    const { agent, output } = subject;
    const told = agent.log.length;
    const result = await restoreLazily(subject);
    fail('internal-error');
    const pidStart = readStat(result.pid)?.startTime ?? 0;
    await until('nobody was told that it waits', () => agent.log.slice(told).some(({ event }) => event === 'fill.stalled'));
    await delay(3000);
    assert.equal(processAlive(result.pid, pidStart), true);
    const { containers } = await agent.client.listContainers({ all: false, container: result.container }, { signal: undefined });
    const { bytesDone = 0, bytesTotal = 0 } = containers[0]?.filling ?? {};
    assert.ok(bytesDone < bytesTotal, `${bytesDone} of ${bytesTotal}`);
    await agent.client.cancelOperation({ operationId: result.fillOperationId }, { signal: undefined });
    await assertDead(result.pid, pidStart);
    assert.equal((await ended(agent, result.fillOperationId)).state, 'cancelled');
    assertNothingWrong(output);
    proxy.decide = () => undefined;
    await assertClean(agent);
  });
});

void test('a damaged chunk in the middle ends the container before anybody sees it', { timeout: 120_000 }, async () => {
  await withSubject(96, STALL, async (subject) => {
    const { agent, output } = subject;
    const { Contents: packs = [] } = await bucket.client.send(new ListObjectsV2Command({ Bucket: bucket.name, Prefix: `${prefix}/packs/${subject.checkpoint}` }));
    const largest = packs.toSorted((a, b) => (b.Size ?? 0) - (a.Size ?? 0))[0]?.Key ?? '';
    const { Body } = await bucket.client.send(new GetObjectCommand({ Bucket: bucket.name, Key: largest }));
    const bytes = Buffer.from(await Body!.transformToByteArray());
    bytes[bytes.length >> 1]! ^= 1;
    await bucket.client.send(new PutObjectCommand({ Bucket: bucket.name, Key: largest, Body: bytes }));
    // What is read ahead may show it before the container runs.
    const code = await restoreLazily(subject).then(async ({ fillOperationId }) => (await ended(agent, fillOperationId)).error?.code, (error: unknown) => (error as StasisError).code);
    assert.equal(code, 'OBJECT_CORRUPT');
    assertNothingWrong(output);
    await assert.rejects(agent.client.listContainers({ all: true, container: subject.container.id }, { signal: undefined }), { code: 'CONTAINER_NOT_FOUND' });
    await assertClean(agent);
  });
});

void test('what another agent deletes stays until nobody is filled from it', { timeout: 120_000 }, async () => {
  await withSubject(96, STALL, async (subject) => {
    const { agent, output } = subject;
    const stranger = await startAgent(other, { ...bucket.agentEnvironment(prefix), STASIS_KEYS_FILE: join(home.state, 'keys/node.key') });
    const result = await restoreLazily(subject);
    const { met } = fail('internal-error');
    await until('the fill met no fault', () => met() > 0);
    await stranger.client.deleteCheckpoint({ checkpoint: subject.checkpoint, reason: '' }, { signal: undefined });
    const packs = async (): Promise<number> => (await bucket.client.send(new ListObjectsV2Command({ Bucket: bucket.name, Prefix: `${prefix}/packs/${subject.checkpoint}` }))).KeyCount ?? 0;
    assert.ok((await packs()) > 0);
    proxy.decide = () => undefined;
    assert.equal((await ended(agent, result.fillOperationId)).state, 'succeeded');
    await waitForRounds(output);
    assertNothingWrong(output);
    await checkpoint(agent, result.container);
    await stranger.stop();
  });
});
