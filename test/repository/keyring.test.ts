import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import type { LineageId } from '../../src/core/ids.ts';
import { newLineageId } from '../../src/core/ids.ts';
import { MemoryStore, withRecipients } from '../../src/repository/index.ts';
import type { CheckpointWriter, KeyChange, Store } from '../../src/repository/index.ts';
import { hex } from '../../src/repository/trust.ts';
import { anySignal, failure, FaultyStore, load, nextId, piecesOf, save, testKeys, withRepository } from './support.ts';

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
    const rewrap = (change: (recipients: readonly string[]) => readonly string[]) => repository.keyring.rewrap(first.lineage, ({ recipients, ended }) => ({ recipients: change(recipients), ended }), anySignal);
    assert.deepEqual(await rewrap((recipients) => [...recipients, ...fresh.recipients.map(hex)]), { epoch: 2, changed: true });
    const puts = store.objects.get(name);
    assert.deepEqual(await rewrap((recipients) => recipients.toReversed()), { epoch: 2, changed: false });
    assert.equal(store.objects.get(name), puts, 'nothing to do is not done');
    assert.deepEqual(await rewrap(() => fresh.recipients.map(hex)), { epoch: 3, changed: true });
    assert.equal(await failure(load(repository, first.id)), 'KEY_WRONG');
    assert.equal(await failure(rewrap((all) => [...all, ...old.recipients.map(hex)])), 'KEY_WRONG');
    const [info] = await repository.keyring.list(anySignal);
    assert.deepEqual(info, { lineage: first.lineage, epoch: 3, recipients: fresh.recipients.map(hex), signer: hex(old.signer), ended: false, openable: false, checkpoints: [first.id] });
  });
  for (const [object, content] of packs) assert.equal(store.objects.get(object), content, object);
  await withRepository({ store, keys: fresh, trustedSigners }, async (repository) => {
    assert.ok((await load(repository, first.id)).equals(bytes));
    const second = await save(repository, { bytes, lineage: first.lineage });
    assert.ok(second.bytes.reused > 40_000);
    assert.equal(await failure(repository.keyring.rewrap(first.lineage, ({ ended }) => ({ recipients: [], ended }), anySignal)), 'USAGE');
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

void test('many at once: what is as it should be stays, what others hold is told, and a second run finds nothing to do', async () => {
  const [node, other, fresh] = [testKeys(), testKeys(), hex(testKeys().recipients[0] ?? Buffer.alloc(0))];
  const store = new MemoryStore();
  const theirs = await withRepository({ store, keys: other }, (repository) => save(repository, { bytes: randomBytes(100) }));
  await withRepository({ store, keys: node, trustedSigners: [hex(other.signer)] }, async (repository) => {
    const ours = (await Promise.all(Array.from({ length: 12 }, () => save(repository, { bytes: randomBytes(100) })))).map(({ lineage }) => lineage).sort();
    const add: KeyChange = ({ recipients, ended }) => ({ recipients: [...recipients, fresh], ended });
    await repository.keyring.rewrap(ours[0] as LineageId, add, anySignal);
    const before = new Map(store.objects);
    const dry = await repository.keyring.rewrapAll(undefined, add, { signal: undefined, dryRun: true });
    assert.deepEqual([dry.changed, dry.unchanged, dry.sealed], [ours.slice(1), 1, [theirs.lineage]]);
    assert.deepEqual(new Map(store.objects), before);
    const told: string[] = [];
    const steps: number[] = [];
    const report = await repository.keyring.rewrapAll(undefined, add, { signal: undefined, dryRun: false, onLineage: (done) => steps.push(done), onChanged: (lineage, epoch) => told.push(`${lineage} ${epoch}`) });
    assert.deepEqual(report, { changed: ours.slice(1), unchanged: 1, sealed: [theirs.lineage], problems: [] });
    assert.deepEqual(told.sort(), ours.slice(1).map((lineage) => `${lineage} 2`));
    assert.deepEqual(steps, Array.from({ length: 13 }, (_, i) => i + 1));
    assert.deepEqual((await repository.keyring.rewrapAll(undefined, add, { signal: undefined, dryRun: false })).changed, []);
    const named = await repository.keyring.rewrapAll([ours[3] as LineageId, newLineageId()], ({ recipients, ended }) => ({ recipients: recipients.filter((key) => key !== fresh), ended }), { signal: undefined, dryRun: false });
    assert.deepEqual([named.changed, named.problems.map(({ code }) => code)], [[ours[3]], ['KEY_MISSING']]);
    const none = await repository.keyring.rewrapAll([ours[4] as LineageId], ({ ended }) => ({ recipients: [], ended }), { signal: undefined, dryRun: false });
    assert.deepEqual([none.changed, none.problems.map(({ code }) => code)], [[], ['USAGE']]);
  });
  assert.deepEqual([...store.objects.keys()].filter((name) => name.startsWith('writers/')), [], 'no marks are left');
});

void test('interrupted and killed at every request: nothing is lost, and a second run completes it', async () => {
  const node = testKeys();
  const fresh = hex(testKeys().recipients[0] ?? Buffer.alloc(0));
  const pristine = new MemoryStore();
  const bytes = randomBytes(500);
  const saved = await withRepository({ store: pristine, keys: node }, async (repository) => [await save(repository, { bytes }), await save(repository, { bytes })]);
  const rotate: KeyChange = ({ recipients, ended }) => ({ recipients: [...recipients, fresh], ended });
  for (let n = 1, ended = false; !ended; n += 1) {
    const store = new MemoryStore();
    for (const [name, content] of pristine.objects) store.objects.set(name, content);
    const faulty = new FaultyStore(store, n, { dead: true, after: n % 2 === 0 });
    ended = await withRepository({ store: faulty, keys: node, workers: 1 }, (repository) => repository.keyring.rewrapAll(undefined, rotate, { signal: undefined, dryRun: false }).then(({ changed }) => changed.length === 2, () => false));
    await withRepository({ store, keys: node, workers: 1 }, async (repository) => {
      await repository.maintenance.releaseOwn(anySignal);
      for (const { id } of saved) assert.ok((await load(repository, id)).equals(bytes), `call ${n}`);
      const report = await repository.keyring.rewrapAll(undefined, rotate, { signal: undefined, dryRun: false });
      assert.deepEqual([report.changed.length + report.unchanged, report.problems], [2, []], `call ${n}`);
      assert.ok((await repository.keyring.list(anySignal)).every(({ recipients }) => recipients.includes(fresh) && recipients.length === 2));
      for (const { id } of saved) assert.ok((await load(repository, id)).equals(bytes), `call ${n}`);
    });
    assert.ok(n < 100);
  }
});

void test('two agents at once: both changes are there at the end', async () => {
  const [keys, store] = [testKeys(), new MemoryStore()];
  const added = Array.from({ length: 2 }, () => hex(testKeys().recipients[0] ?? Buffer.alloc(0)));
  const lineages = await withRepository({ store, keys }, async (repository) => (await Promise.all(Array.from({ length: 5 }, () => save(repository, { bytes: randomBytes(50) })))).map(({ lineage }) => lineage));
  await withRepository({ store, keys, owner: 'one' }, (one) => withRepository({ store, keys, owner: 'two' }, async (two) => {
    const reports = await Promise.all([one, two].map((repository, i) => repository.keyring.rewrapAll(undefined, ({ recipients, ended }) => ({ recipients: [...recipients, added[i] ?? ''], ended }), { signal: undefined, dryRun: false })));
    assert.deepEqual(reports.map(({ changed, problems }) => [changed.length, problems]), [[lineages.length, []], [lineages.length, []]]);
    for (const { recipients, epoch } of await one.keyring.list(anySignal)) assert.deepEqual([added.every((key) => recipients.includes(key)), recipients.length, epoch], [true, 3, 3]);
  }));
});

void test('a lineage that has ended is read, and nobody goes on in it', async () => {
  await withRepository({}, async (repository) => {
    const bytes = randomBytes(500);
    const { id, lineage } = await save(repository, { bytes });
    await repository.keyring.rewrap(lineage, ({ recipients }) => ({ recipients, ended: true }), anySignal);
    assert.ok((await load(repository, id)).equals(bytes));
    assert.equal(await failure(repository.begin({ id: nextId(), lineage }, anySignal)), 'KEY_MISSING');
    assert.equal((await repository.keyring.list(anySignal))[0]?.ended, true);
    assert.deepEqual((await repository.verify(id, anySignal)).problems, []);
  });
});

void test('a checkpoint that goes on in an older lineage is for the recipients of today', async () => {
  const [node, escrow] = [testKeys(), testKeys()];
  const store = new MemoryStore();
  const bytes = randomBytes(20_000);
  const first = await withRepository({ store, keys: node }, (repository) => save(repository, { bytes }));
  const both = [...node.recipients, ...escrow.recipients].map(hex);
  const second = await withRepository({ store, keys: withRecipients(node, both) }, (repository) => save(repository, { bytes, lineage: first.lineage }));
  assert.deepEqual([second.lineage, second.bytes.reused > 15_000], [first.lineage, true]);
  await withRepository({ store, keys: escrow, trustedSigners: [hex(node.signer)] }, async (repository) => {
    for (const { id } of [first, second]) assert.ok((await load(repository, id)).equals(bytes));
  });
  // Another agent sits on the key: then the lineage is left, rather than that somebody could not read the checkpoint.
  await withRepository({ store, keys: withRecipients(node, [...both, hex(testKeys().recipients[0] ?? Buffer.alloc(0))]) }, async (repository) => {
    store.objects.set(`writers/${first.lineage}-${'0'.repeat(20)}.sweep`, Buffer.from('x'));
    assert.equal(await failure(repository.begin({ id: nextId(), lineage: first.lineage }, anySignal)), 'KEY_WRONG');
  });
});

void test('shred: a writer that comes in between keeps its key', async () => {
  const store = new MemoryStore();
  const keys = testKeys();
  const { lineage } = await withRepository({ store, keys }, (repository) => save(repository, { bytes: randomBytes(500) }));
  let writer: Promise<CheckpointWriter> | undefined;
  await withRepository({ store, keys, owner: 'writer' }, async (other) => {
    const slow: Store = new Proxy(store, {
      get: (target, name: keyof Store) => {
        if (name !== 'delete') return typeof target[name] === 'function' ? (target[name] as () => unknown).bind(target) : target[name];
        return async (object: string, options: { signal: AbortSignal | undefined }) => {
          if (object === `lineages/${lineage}`) writer ??= other.begin({ id: nextId(), lineage }, anySignal);
          await writer;
          await target.delete(object, options);
        };
      },
    });
    await withRepository({ store: slow, keys, owner: 'shredder' }, async (repository) => assert.equal(await failure(repository.keyring.shred(lineage, anySignal)), 'CHECKPOINT_IN_USE'));
    const open = await writer;
    assert.ok(open);
    await open.append('memory', piecesOf(randomBytes(100), 100), anySignal);
    const { id } = await open.commit({}, anySignal);
    assert.equal((await load(other, id)).length, 100);
  });
});
