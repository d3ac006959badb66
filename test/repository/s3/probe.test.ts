import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { after, before, beforeEach, test } from 'node:test';
import { ListObjectsV2Command } from '@aws-sdk/client-s3';
import { systemClock } from '../../../src/core/clock.ts';
import { MemoryStore, openDirectoryProbe, openS3Probe, probeStore } from '../../../src/repository/index.ts';
import type { ProbeGround, Store, StoreReport } from '../../../src/repository/index.ts';
import { startRadosgw } from '../../support/radosgw.ts';
import type { Radosgw } from '../../support/radosgw.ts';
import { startFaultProxy } from '../../support/s3-fault-proxy.ts';
import type { Fault, FaultProxy } from '../../support/s3-fault-proxy.ts';
import { anySignal, withDirectory } from '../support.ts';
import { bucket, createBucket, rawClient, s3Options, useTestCredentials } from './setup.ts';

let server: Radosgw;
let proxy: FaultProxy;
before(async () => {
  useTestCredentials();
  server = await startRadosgw();
  await createBucket(server.endpoint);
  proxy = await startFaultProxy(server.port);
});
after(async () => {
  await proxy[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
});
beforeEach(() => { proxy.decide = () => undefined; });

async function probe(opened: Promise<ProbeGround>): Promise<StoreReport> {
  await using ground = await opened;
  return await probeStore(ground, systemClock, anySignal);
}

const outcomes = ({ checks }: StoreReport): Record<string, string> => Object.fromEntries(checks.map(({ name, outcome }) => [name, outcome]));

async function keysBelow(prefix: string): Promise<string[]> {
  return ((await rawClient(server.endpoint).send(new ListObjectsV2Command({ Bucket: bucket, Prefix: prefix }))).Contents ?? []).map(({ Key }) => Key ?? '');
}

void test('probe of a good bucket: all that is required works, and nothing is left', async () => {
  const options = s3Options(proxy.endpoint);
  const report = await probe(openS3Probe(options));
  assert.deepEqual(report.checks.filter(({ required, outcome }) => required && outcome !== 'passed'), []);
  assert.equal(report.usable, true);
  assert.deepEqual(report.checks.map(({ name }) => name), ['put', 'read-after-write', 'list', 'ranges', 'many at once', 'overwrite', 'delete', 'latency', 'multipart', 'conditional put', 'clock']);
  assert.ok(report.putLatencyUs > 0 && report.getLatencyUs > 0 && report.putBytesPerSecond > 1e6 && report.getBytesPerSecond > 1e6);
  assert.deepEqual(await keysBelow(options.prefix), []);
});

const broken: readonly (readonly [string, (facts: { method: string; url: string }) => Fault | undefined, readonly string[]])[] = [
  ['no right to write', ({ method }) => (method === 'PUT' ? 'access-denied' : undefined), ['put', 'list']],
  ['no right to list', ({ url }) => (url.includes('list-type') ? 'access-denied' : undefined), ['list', 'many at once', 'delete']],
  ['no right to delete', ({ method }) => (method === 'DELETE' ? 'access-denied' : undefined), ['delete']],
  ['wrong ranges', ({ method }) => (method === 'GET' ? 'wrong-range' : undefined), ['ranges']],
];
for (const [name, decide, failed] of broken) {
  void test(`probe of a bucket with ${name} says so`, { timeout: 60_000 }, async () => {
    proxy.decide = decide;
    const report = await probe(openS3Probe(s3Options(proxy.endpoint, { patienceMs: 400 })));
    assert.equal(report.usable, false);
    assert.deepEqual(report.checks.filter(({ outcome }) => outcome === 'failed').map((check) => check.name).filter((check) => check !== 'multipart'), failed);
    assert.ok(report.checks.filter(({ outcome }) => outcome === 'failed').every(({ message }) => message.length > 20));
    if (failed[0] === 'put') assert.equal(outcomes(report)['ranges'], 'skipped');
  });
}

void test('probe of a directory works beside a repository and leaves nothing', () => withDirectory(async (directory) => {
  const report = await probe(openDirectoryProbe(directory));
  assert.equal(report.usable, true);
  assert.equal(outcomes(report)['free space'], 'passed');
  assert.deepEqual(await readdir(directory), []);
}));

/** Each keeps all of the contract but one promise. */
const lies: Readonly<Record<string, (store: MemoryStore) => Partial<Store>>> = {
  'read-after-write': (store) => ({ get: async (name, range, options) => Buffer.from(await store.get(name, range, options)).fill(0, 0, 1) }),
  ranges: (store) => ({ get: async (name, range, options) => (range === undefined ? store.get(name, range, options) : (await store.get(name, undefined, options)).subarray(0, range.length)) }),
  'many at once': (store) => ({ list: async function* (prefix, options) { if (!prefix.includes('many')) yield* store.list(prefix, options); } }),
  delete: () => ({ delete: () => Promise.resolve() }),
};
for (const [check, lie] of Object.entries(lies)) {
  void test(`probe finds a store out that lies: ${check}`, async () => {
    const memory = new MemoryStore();
    const honest: Store = { description: 'liar', put: memory.put.bind(memory), get: memory.get.bind(memory), head: memory.head.bind(memory), list: memory.list.bind(memory), delete: memory.delete.bind(memory), freeBytes: memory.freeBytes.bind(memory) };
    const report = await probeStore({ description: 'liar', store: { ...honest, ...lie(memory) }, more: [], [Symbol.asyncDispose]: () => Promise.resolve() }, systemClock, anySignal);
    assert.equal(report.usable, false);
    assert.equal(outcomes(report)[check], 'failed', JSON.stringify(report.checks));
  });
}
