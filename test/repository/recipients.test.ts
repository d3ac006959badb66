import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { isStasisError } from '../../src/core/errors.ts';
import { MemoryStore, withRecipients } from '../../src/repository/index.ts';
import { hex } from '../../src/repository/trust.ts';
import { anySignal, failure, load, nextId, save, testKeys, withRepository } from './support.ts';

void test('a node writes what only others read, and says so when it is asked to', async () => {
  const [node, restorer] = [testKeys(), testKeys()];
  const store = new MemoryStore();
  const bytes = randomBytes(50_000);
  const { id, lineage } = await withRepository({ store, keys: withRecipients(node, restorer.recipients.map(hex)) }, async (repository) => {
    const saved = await save(repository, { bytes });
    await assert.rejects(load(repository, saved.id), (error) => isStasisError(error, 'KEY_WRONG') && error.details['recipient'] === false && (error.hint ?? '').includes('recipient'));
    const report = await repository.maintenance.check({ signal: undefined, readData: false });
    assert.deepEqual([report.checkpoints, report.sealed, report.problems], [1, 1, []], 'sealed is not damaged');
    assert.equal(await failure(repository.begin({ id: nextId(), lineage: saved.lineage }, anySignal)), 'KEY_WRONG');
    return saved;
  });
  await withRepository({ store, keys: restorer, trustedSigners: [hex(node.signer)] }, async (repository) => assert.ok((await load(repository, id)).equals(bytes)));
  // It can still be taken away where it was made.
  await withRepository({ store, keys: node }, (repository) => repository.delete(id, anySignal));
  assert.deepEqual([...store.objects.keys()].filter((name) => name.startsWith('packs/') || name.endsWith(lineage)), []);
});

void test('two recipients: both read', async () => {
  const [a, b] = [testKeys(), testKeys()];
  const store = new MemoryStore();
  const bytes = randomBytes(5000);
  const { id } = await withRepository({ store, keys: withRecipients(a, [...a.recipients, ...b.recipients].map(hex)) }, (repository) => save(repository, { bytes }));
  for (const keys of [a, b]) await withRepository({ store, keys, trustedSigners: [hex(a.signer)] }, async (repository) => assert.ok((await load(repository, id)).equals(bytes)));
});
