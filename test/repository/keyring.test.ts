import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { MemoryStore } from '../../src/repository/index.ts';
import { hex } from '../../src/repository/trust.ts';
import { anySignal, failure, load, nextId, save, testKeys, withRepository } from './support.ts';

void test('rotation: other recipients, a higher epoch, not a pack touched; the old key is refused once it matters', async () => {
  const [old, fresh] = [testKeys(), testKeys()];
  const trustedSigners = [old, fresh].map(({ signer }) => hex(signer));
  const store = new MemoryStore();
  const bytes = randomBytes(50_000);
  const first = await withRepository({ store, keys: old }, (repository) => save(repository, { bytes }));
  const name = `lineages/${first.lineage}`;
  const packs = [...store.objects].filter(([object]) => object.startsWith('packs/') || object.startsWith('manifests/'));
  const before = store.objects.get(name) ?? Buffer.alloc(0);
  await withRepository({ store, keys: old }, async (repository) => {
    assert.equal(await repository.keyring.rewrap(first.lineage, (recipients) => [...recipients, ...fresh.recipients.map(hex)], anySignal), 2);
    assert.equal(await repository.keyring.rewrap(first.lineage, () => fresh.recipients.map(hex), anySignal), 3);
    assert.equal(await failure(load(repository, first.id)), 'KEY_WRONG');
    assert.equal(await failure(repository.keyring.rewrap(first.lineage, (all) => all, anySignal)), 'KEY_WRONG');
    const [info] = await repository.keyring.list(anySignal);
    assert.deepEqual(info, { lineage: first.lineage, epoch: 3, recipients: fresh.recipients.map(hex), signer: hex(old.signer), checkpoints: 1 });
  });
  for (const [object, content] of packs) assert.equal(store.objects.get(object), content, object);
  await withRepository({ store, keys: fresh, trustedSigners }, async (repository) => {
    assert.ok((await load(repository, first.id)).equals(bytes));
    const second = await save(repository, { bytes, lineage: first.lineage });
    assert.ok(second.bytes.reused > 40_000);
    assert.equal(await failure(repository.keyring.rewrap(first.lineage, () => [], anySignal)), 'USAGE');
    store.objects.set(name, before);
    await withRepository({ store, keys: old, trustedSigners }, async (rolledBack) => assert.equal(await failure(load(rolledBack, second.id)), 'OBJECT_CORRUPT'));
  });
});

void test('shred: nobody reads it any more; not while somebody writes', () =>
  withRepository({}, async (repository) => {
    const { id, lineage } = await save(repository, { bytes: randomBytes(5000) });
    const writer = await repository.begin({ id: nextId(), lineage }, anySignal);
    assert.equal(await failure(repository.keyring.shred(lineage, anySignal)), 'CHECKPOINT_IN_USE');
    await writer.abort();
    await repository.keyring.shred(lineage, anySignal);
    assert.equal(await failure(load(repository, id)), 'KEY_MISSING');
    assert.equal(await failure(repository.keyring.shred(lineage, anySignal)), 'KEY_MISSING');
    assert.deepEqual(await repository.keyring.list(anySignal), []);
    await repository.delete(id, anySignal);
  }));
