import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { HeadObjectCommand, ListMultipartUploadsCommand } from '@aws-sdk/client-s3';
import { startRadosgw } from '../../support/radosgw.ts';
import type { Radosgw } from '../../support/radosgw.ts';
import { kmsKeyId } from '../../support/radosgw.ts';
import { storeSuite } from '../store-suite.ts';
import { anySignal, failure, load, save, withDirectory, withRepository } from '../support.ts';
import { bucket, createBucket, quick, rawClient, s3Options, testStore, useTestCredentials } from './setup.ts';

let server: Radosgw;
/** The one for uploads in parts, encryption and TLS. */
let posix: Radosgw;
before(async () => {
  useTestCredentials();
  server = await startRadosgw();
  posix = await startRadosgw({ backend: 'posix', secure: true });
  await Promise.all([server, posix].map(({ endpoint }) => createBucket(endpoint)));
});
after(async () => {
  await server?.[Symbol.asyncDispose]();
  await posix?.[Symbol.asyncDispose]();
});

storeSuite('s3', async (use) => {
  const store = await testStore(server.endpoint);
  try {
    await use(store);
  } finally {
    await store.close();
  }
});

void test('s3: keys lie below the prefix, and what is not ours there is passed over', async () => {
  const options = s3Options(server.endpoint, { prefix: 'all/of-it' });
  const store = await testStore(server.endpoint, options);
  await store.put('packs/a', [Buffer.from('here')], anySignal);
  const client = rawClient(server.endpoint);
  assert.equal((await client.send(new HeadObjectCommand({ Bucket: bucket, Key: 'all/of-it/packs/a' }))).ContentLength, 4);
  const other = await testStore(server.endpoint, { prefix: 'all/of-it-too' });
  await other.put('packs/b', [Buffer.from('there')], anySignal);
  const { PutObjectCommand } = await import('@aws-sdk/client-s3');
  await client.send(new PutObjectCommand({ Bucket: bucket, Key: 'all/of-it/packs/deep/er', Body: 'stranger' }));
  assert.deepEqual((await Array.fromAsync(store.list('packs/', anySignal))).map(({ name }) => name), ['packs/a']);
});

void test('s3: lists of many pages are whole and in order', async () => {
  const store = await testStore(server.endpoint, { tuning: { ...quick, pageSize: 7 } });
  const names = Array.from({ length: 40 }, (_, i) => `packs/p-${String(i).padStart(3, '0')}`);
  await Promise.all(names.map((name) => store.put(name, [Buffer.from(name)], anySignal)));
  assert.deepEqual((await Array.fromAsync(store.list('packs/', anySignal))).map(({ name }) => name), names);
});

void test('s3: objects above the threshold go up in parts, and a cancelled upload leaves none', async () => {
  const tuning = { ...quick, multipartAbove: 6 << 20, partBytes: 5 << 20 };
  const store = await testStore(posix.endpoint, { tuning });
  const bytes = randomBytes(13 << 20);
  await store.put('packs/large', [bytes.subarray(0, 1000), bytes.subarray(1000)], anySignal);
  assert.deepEqual(Buffer.from(await store.get('packs/large', undefined, anySignal)), bytes);
  assert.deepEqual(Buffer.from(await store.get('packs/large', { offset: (5 << 20) - 10, length: 20 }, anySignal)), bytes.subarray((5 << 20) - 10, (5 << 20) + 10));

  const slow = await testStore(posix.endpoint, { tuning, bandwidth: 4 << 20 });
  const controller = new AbortController();
  const put = slow.put('packs/cancelled', [bytes], { signal: controller.signal });
  setTimeout(() => controller.abort(new Error('enough')), 1000);
  await assert.rejects(put, /enough/);
  assert.equal(await store.head('packs/cancelled', anySignal), undefined);
  const uploads = await rawClient(posix.endpoint).send(new ListMultipartUploadsCommand({ Bucket: bucket }));
  assert.deepEqual(uploads.Uploads ?? [], []);
});

void test('s3: a limited bandwidth is kept in both directions', async () => {
  const store = await testStore(server.endpoint, { bandwidth: 4 << 20 });
  const bytes = randomBytes(4 << 20);
  const timed = async (work: Promise<unknown>): Promise<number> => {
    const started = performance.now();
    await work;
    return performance.now() - started;
  };
  const up = await timed(Promise.all([0, 1].map((i) => store.put(`packs/${i}`, [bytes.subarray(i << 21, (i + 1) << 21)], anySignal))));
  const down = await timed(Promise.all([0, 1].map((i) => store.get(`packs/${i}`, undefined, anySignal))));
  for (const ms of [up, down]) assert.ok(ms > 800 && ms < 2500, `${ms} ms for one second's worth`);
});

void test('s3: what the provider encrypts comes back, and the customer key is needed for it', () =>
  withDirectory(async (directory) => {
    const keyFile = join(directory, 'key');
    await writeFile(keyFile, randomBytes(32).toString('base64'));
    const bytes = randomBytes(100_000);
    for (const encryption of [{ kind: 'customer', keyFile }, { kind: 'kms', keyId: kmsKeyId }] as const) {
      const options = { encryption, prefix: encryption.kind };
      const store = await testStore(posix.endpoint, options);
      await store.put('packs/a', [bytes], anySignal);
      assert.deepEqual(Buffer.from(await store.get('packs/a', { offset: 70_000, length: 30_000 }, anySignal)), bytes.subarray(70_000));
      assert.equal((await store.head('packs/a', anySignal))?.size, bytes.length);
      await store.put('packs/parts', [bytes], anySignal);
      const open = await testStore(posix.endpoint, { prefix: encryption.kind });
      const outcome = await failure(open.get('packs/a', undefined, anySignal));
      assert.equal(outcome, encryption.kind === 'customer' ? 'CONFIG_INVALID' : 'none');
    }
    await writeFile(keyFile, 'too short');
    assert.equal(await failure(testStore(posix.endpoint, { encryption: { kind: 'customer', keyFile } })), 'CONFIG_INVALID');
  }));

void test('s3: every refusal has its code and a hint', async () => {
  const nowhere = await testStore(server.endpoint, { bucket: 'no-such-bucket' });
  assert.equal(await failure(nowhere.put('packs/a', [Buffer.of(1)], anySignal)), 'CONFIG_INVALID');
  assert.equal(await failure(Array.fromAsync(nowhere.list('packs/', anySignal))), 'CONFIG_INVALID');
  process.env['AWS_SECRET_ACCESS_KEY'] = 'wrong';
  try {
    const wrong = await testStore(server.endpoint);
    for (const work of [() => wrong.put('packs/a', [Buffer.of(1)], anySignal), () => wrong.get('packs/a', undefined, anySignal), () => wrong.head('packs/a', anySignal)]) {
      const error = await work().then(() => undefined, (thrown: unknown) => thrown as { code: string; message: string; hint: string });
      assert.equal(error?.code, 'PERMISSION_DENIED');
      assert.match(error?.message ?? '', /SignatureDoesNotMatch/);
      assert.match(error?.hint ?? '', /check the access key/);
    }
  } finally {
    useTestCredentials();
  }
  const silent = await testStore('http://127.0.0.1:1', { patienceMs: 300 });
  await assert.rejects(silent.head('packs/a', anySignal), /ECONNREFUSED.*\(\d+ attempts in/);
});

void test('s3: over TLS, with a certificate that only the configuration trusts', async () => {
  const { endpoint = '', caFile } = posix.secure ?? {};
  const store = await testStore(endpoint, { caFile });
  const bytes = randomBytes(3_000_001);
  await Promise.all([0, 1, 2].map((i) => store.put(`packs/${i}`, [bytes.subarray(i)], anySignal)));
  for (const i of [0, 1, 2]) assert.deepEqual(Buffer.from(await store.get(`packs/${i}`, undefined, anySignal)), bytes.subarray(i));
  const controller = new AbortController();
  const slow = await testStore(endpoint, { caFile, bandwidth: 1 << 20 });
  setTimeout(() => controller.abort(new Error('enough')), 300);
  await assert.rejects(slow.put('packs/cancelled', [bytes], { signal: controller.signal }), /enough/);
  assert.equal(await store.head('packs/cancelled', anySignal), undefined);
  const distrustful = await testStore(endpoint, { patienceMs: 300 });
  assert.equal(await failure(distrustful.put('packs/0', [bytes], anySignal)), 'CONFIG_INVALID');
  await Promise.all([store, slow, distrustful].map((one) => one.close()));
});

void test('s3: a repository lives on it', async () => {
  const store = await testStore(server.endpoint);
  await withRepository({ store }, async (repository) => {
    const bytes = randomBytes(20 << 20);
    const { id } = await save(repository, { bytes });
    assert.deepEqual(await load(repository, id), bytes);
    assert.deepEqual((await repository.verify(id, anySignal)).problems, []);
    await repository.delete(id, anySignal);
    for (const prefix of ['packs/', 'manifests/', 'lineages/', 'writers/']) assert.deepEqual(await Array.fromAsync(store.list(prefix, anySignal)), []);
  });
});
