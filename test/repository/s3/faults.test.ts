import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, beforeEach, test } from 'node:test';
import type { StasisError } from '../../../src/core/errors.ts';
import type { S3Store } from '../../../src/repository/store/s3/s3.ts';
import { startRadosgw } from '../../support/radosgw.ts';
import type { Radosgw } from '../../support/radosgw.ts';
import { startFaultProxy } from '../../support/s3-fault-proxy.ts';
import type { Fault, FaultProxy } from '../../support/s3-fault-proxy.ts';
import { anySignal, codeOf, load, nextId, piecesOf, save, withRepository } from '../support.ts';
import { createBucket, quick, s3Options, testStore, useTestCredentials } from './setup.ts';

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

const passing: readonly Fault[] = ['slow-down', 'internal-error', 'reset-up', 'reset-down', 'blackhole', 'trickle', 'ok-with-error', 'lost-reply', 'wrong-range', 'short-body'];
const lasting: readonly (readonly [Fault, string, RegExp])[] = [
  ['slow-down', 'STORE_UNAVAILABLE', /SlowDown.*attempts/],
  ['blackhole', 'STORE_UNAVAILABLE', /not done within \d+ ms.*attempts/],
  ['ok-with-error', 'STORE_UNAVAILABLE', /attempts/],
  ['expired-token', 'PERMISSION_DENIED', /ExpiredToken/],
  ['clock-skew', 'HOST_UNSUPPORTED', /clock of this node differs .* by (1 h|59 min|60 min)/],
  ['access-denied', 'PERMISSION_DENIED', /AccessDenied/],
];

/** What lies in the bucket below a store's prefix, asked past the proxy. */
/** Without fences, which stay after a failure against a put that comes late. */
async function objectsOf(prefix: string): Promise<string[]> {
  const direct = await testStore(server.endpoint, { prefix });
  const names: string[] = [];
  for (const folder of ['packs/', 'manifests/', 'lineages/', 'writers/']) names.push(...(await Array.fromAsync(direct.list(folder, anySignal))).map(({ name }) => name).filter((name) => !name.endsWith('.fenced')));
  await direct.close();
  return names;
}

async function withStore(more: Parameters<typeof s3Options>[1], use: (store: S3Store, prefix: string) => Promise<void>): Promise<void> {
  const options = s3Options(proxy.endpoint, more);
  const store = await testStore(proxy.endpoint, options);
  try {
    await use(store, options.prefix);
  } finally {
    await store.close();
  }
}

for (const fault of passing) {
  void test(`a repository rides out ${fault} that goes by`, { timeout: 60_000 }, () => withStore({}, (store) => withRepository({ store }, async (repository) => {
    const bytes = randomBytes(9 << 20);
    // Every third request, and all of the first ones, as in a burst.
    proxy.decide = ({ count }) => (count < first + 3 || count % (fault === 'blackhole' ? 11 : 3) === 0 ? fault : undefined);
    const first = proxy.seen.length;
    const { id } = await save(repository, { bytes });
    assert.deepEqual(await load(repository, id), bytes);
    const report = await repository.verify(id, anySignal);
    assert.deepEqual(report.problems, []);
    assert.ok(proxy.seen.slice(first).some((seen) => seen.fault === fault), 'it was injected');
    await repository.delete(id, anySignal);
  })));
}

for (const [fault, code, message] of lasting) {
  void test(`${fault} that does not go by is a clear error, and nothing is half-visible`, { timeout: 60_000 }, () => withStore({ patienceMs: 1500 }, async (store, prefix) => {
    await withRepository({ store }, async (repository) => {
      const bytes = randomBytes(5 << 20);
      const good = await save(repository, { bytes });
      const before = await objectsOf(prefix);
      const first = proxy.seen.length;
      proxy.decide = ({ count }) => (count >= first + 2 ? fault : undefined);
      const id = nextId();
      const error = await save(repository, { bytes: randomBytes(40 << 20), id }).then(() => undefined, (thrown: unknown) => thrown as StasisError);
      assert.equal(codeOf(error), code, error?.message);
      assert.match(error?.message ?? '', message);
      assert.ok((error?.hint ?? '').length > 20, 'it says what can be done');
      const reading = await load(repository, good.id).then(() => undefined, (thrown: unknown) => thrown as StasisError);
      assert.equal(codeOf(reading), code, reading?.message);
      proxy.decide = () => undefined;
      await repository.discard(id, anySignal);
      assert.deepEqual(await objectsOf(prefix), before, 'the failed checkpoint left nothing');
      assert.deepEqual(await load(repository, good.id), bytes);
    });
  }));
}

void test('a checkpoint whose commit got no reply is whole, or not there', { timeout: 60_000 }, () => withStore({ patienceMs: 800 }, async (store, prefix) => {
  await withRepository({ store }, async (repository) => {
    const id = nextId();
    const bytes = randomBytes(3 << 20);
    let lost = 0;
    proxy.decide = ({ method, url }) => (method === 'PUT' && url.includes('/manifests/') && lost++ < 100 ? 'lost-reply' : undefined);
    assert.equal(await save(repository, { bytes, id }).then(() => 'committed', codeOf), 'STORE_UNAVAILABLE');
    assert.ok(lost > 1, 'it was tried again');
    assert.deepEqual(await objectsOf(prefix), [], 'what the caller was told to have failed is not there');
    lost = 99;
    const saved = await save(repository, { bytes, id: nextId() });
    assert.deepEqual(await load(repository, saved.id), bytes);
  });
}));

void test('a late answer is asked for a second time, and the first to come wins', () => withStore({}, async (store) => {
  const bytes = randomBytes(1 << 20);
  await store.put('packs/a', [bytes], anySignal);
  for (let i = 0; i < 10; i += 1) await store.get('packs/a', { offset: 0, length: 1 << 20 }, anySignal);
  const first = proxy.seen.length;
  proxy.decide = ({ count }) => (count === first ? 'trickle' : undefined);
  const into = new Uint8Array(1 << 20);
  const started = performance.now();
  const view = await store.get('packs/a', { offset: 0, length: 1 << 20 }, { signal: undefined, into });
  const ms = performance.now() - started;
  assert.equal(view.buffer, into.buffer);
  assert.deepEqual(Buffer.from(into), bytes);
  assert.equal(proxy.seen.length - first, 2);
  assert.ok(ms < 700, `${ms} ms`);
}));

void test('a store that is slow for everybody is not asked twice as much', { timeout: 60_000 }, () => withStore({ tuning: { ...quick, pace: { ...quick.pace, stallMs: 5000, hedgeLeastMs: 1, hedgeMostMs: 1 } } }, async (store) => {
  await store.put('packs/a', [randomBytes(100_000)], anySignal);
  const first = proxy.seen.length;
  for (let i = 0; i < 60; i += 1) await store.get('packs/a', { offset: 0, length: 100_000 }, anySignal);
  const more = proxy.seen.length - first - 60;
  assert.ok(more > 0 && more <= 12, `${more} second requests`);
}));

void test('a cancelled request ends at once and leaves its memory alone', () => withStore({}, async (store) => {
  const bytes = randomBytes(2 << 20);
  await store.put('packs/a', [bytes], anySignal);
  proxy.decide = () => 'trickle';
  const controller = new AbortController();
  const into = new Uint8Array(2 << 20);
  const reading = store.get('packs/a', { offset: 0, length: 2 << 20 }, { signal: controller.signal, into });
  setTimeout(() => controller.abort(new Error('enough')), 150);
  await assert.rejects(reading, /enough/);
  into.fill(0);
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.ok(into.every((byte) => byte === 0), 'nothing is written after the end');
  proxy.decide = () => 'blackhole';
  const writing = new AbortController();
  setTimeout(() => writing.abort(new Error('enough')), 100);
  await assert.rejects(store.put('packs/b', [bytes], { signal: writing.signal }), /enough/);
}));

void test('pieces of a checkpoint that fails are not read any more', { timeout: 60_000 }, () => withStore({ patienceMs: 300 }, (store) => withRepository({ store }, async (repository) => {
  proxy.decide = ({ url }) => (url.includes('/packs/') ? 'access-denied' : undefined);
  const writer = await repository.begin({ id: nextId(), lineage: undefined }, anySignal);
  const outcome = await (async () => {
    await writer.append('memory', piecesOf(randomBytes(64 << 20), 1 << 20), anySignal);
    await writer.commit({}, anySignal);
  })().then(() => 'committed', codeOf);
  assert.equal(outcome, 'PERMISSION_DENIED');
  await writer.abort();
})));
