/** Deleting and pruning: at each call of the store, all that others do happens, or death. What comes by chance is in prune-model.test.ts. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { systemClock } from '../../src/core/clock.ts';
import { isStasisError } from '../../src/core/errors.ts';
import type { CheckpointId } from '../../src/core/ids.ts';
import { MemoryStore, openRepository } from '../../src/repository/index.ts';
import type { CheckpointWriter, ObjectInfo, Repository, Store } from '../../src/repository/index.ts';
import type { CheckReport } from '../../src/repository/types.ts';
import { anySignal, FaultyStore, load, nextId, piecesOf, save, testKeys } from './support.ts';

/** Passes everything on; before the n-th call it lets something else happen. */
class Interrupted implements Store {
  readonly description = 'interrupted';
  store: Store = new MemoryStore();
  calls = 0;
  at = 0;
  meanwhile: () => Promise<void> = () => Promise.resolve();

  async #run<T>(work: () => Promise<T>): Promise<T> {
    this.calls += 1;
    if (this.calls === this.at) await this.meanwhile();
    return work();
  }

  put: Store['put'] = (...args) => this.#run(() => this.store.put(...args));
  get: Store['get'] = (...args) => this.#run(() => this.store.get(...args));
  head: Store['head'] = (...args) => this.#run(() => this.store.head(...args));
  delete: Store['delete'] = (...args) => this.#run(() => this.store.delete(...args));
  freeBytes: Store['freeBytes'] = () => this.store.freeBytes();
  async *list(prefix: string, options: { signal: AbortSignal | undefined }): AsyncIterable<ObjectInfo> {
    for (const info of await this.#run(() => Array.fromAsync(this.store.list(prefix, options)))) yield info;
  }
}

const keys = testKeys();
const clock = { ...systemClock, sleep: () => Promise.resolve() };
const stores = [new Interrupted(), new Interrupted(), new Interrupted()] as const;
const repositories: Repository[] = [];

before(async () => {
  for (const [i, store] of stores.entries()) repositories.push(await openRepository({ store, keys, clock, workers: 1, owner: `agent ${i}`, graceMs: 1000 }));
});

after(async () => {
  for (const repository of repositories) await repository.close();
});

const refused = (error: unknown): void => assert.ok(isStasisError(error, 'CHECKPOINT_IN_USE') || isStasisError(error, 'KEY_MISSING') || isStasisError(error, 'CHECKPOINT_NOT_FOUND'), String(error));

for (const order of ['the writer first', 'the other deleter first'] as const) {
  void test(`two who delete and one who writes, ${order}`, async () => {
    const [first, second, third] = repositories as [Repository, Repository, Repository];
    for (let at = 1; ; at += 1) {
      const memory = new MemoryStore();
      for (const store of stores) [store.store, store.at, store.calls] = [memory, 0, 0];
      const bytes = randomBytes(200_000);
      const oldest = await save(third, { bytes });
      const newest = await save(third, { bytes, lineage: oldest.lineage });
      let writer: CheckpointWriter | undefined;
      const write = async (): Promise<void> => {
        try {
          writer = await third.begin({ id: nextId(), lineage: oldest.lineage }, anySignal);
        } catch (error) {
          refused(error);
        }
        await writer?.append('memory', piecesOf(bytes, 65_536), anySignal);
      };
      const remove = (): Promise<void> => second.delete(newest.id, anySignal).catch(refused);
      const interrupted = stores[0];
      [interrupted.calls, interrupted.at] = [0, at];
      interrupted.meanwhile = async () => {
        for (const one of order === 'the writer first' ? [write, remove] : [remove, write]) await one();
      };
      await first.delete(oldest.id, anySignal).catch(refused);
      const done = interrupted.calls < at;
      if (writer !== undefined) {
        const { id } = await writer.commit({}, anySignal);
        assert.ok((await load(third, id)).equals(bytes), `the checkpoint is whole, at call ${at}`);
      }
      if (done) break;
    }
  });
}

/** What there is to prune: a dead writer's packs, one's whose mark went first, a dead sweeper, a reader, a lineage that ended, and a manifest that came too late. */
async function litter(memory: MemoryStore, repository: Repository): Promise<{ bytes: Buffer; living: CheckpointId }> {
  const bytes = randomBytes(100_000);
  const { id: living, lineage } = await save(repository, { bytes });
  for (const leavesMark of [true, false]) {
    const writer = await repository.begin({ id: nextId(), lineage }, anySignal);
    await writer.append('memory', piecesOf(randomBytes(70_000), 65_536), anySignal);
    const names = new Set(memory.objects.keys());
    // Its death: what it has uploaded stays.
    stores[2].store = new FaultyStore(memory, 1, { dead: true });
    await writer.abort();
    stores[2].store = memory;
    assert.ok([...names].every((name) => memory.objects.has(name)));
    if (!leavesMark) memory.objects.delete(`writers/${lineage}-${writer.id}`);
  }
  const mark = Buffer.alloc(56);
  for (const kind of ['sweep', 'read']) await memory.put(`writers/${lineage}-0000000000000000dead.${kind}`, [mark], anySignal);
  const ended = await save(repository, { bytes: randomBytes(1000) });
  memory.objects.delete(`manifests/${ended.id}`);
  const late = await save(repository, { bytes: Buffer.concat([bytes, randomBytes(1000)]), lineage });
  for (const name of memory.objects.keys()) if (name.startsWith(`packs/${late.id}`)) memory.objects.delete(name);
  await memory.put(`writers/${lineage}-${late.id}.fenced`, [mark], anySignal);
  await repository.maintenance.pin({ checkpoint: ended.id, by: '', reason: '', atMs: 0 }, anySignal).catch(refused);
  await memory.put(`pins/${ended.id}`, [Buffer.from('{}')], anySignal);
  return { bytes, living };
}

void test('prune dies at store call n, for all n: two later ones leave what is needed and nothing else', async () => {
  const [first, , third] = repositories as [Repository, Repository, Repository];
  for (let at = 1; ; at += 1) {
    let now = 1_000_000;
    const memory = new MemoryStore(() => now);
    for (const store of stores) [store.store, store.at, store.calls] = [memory, 0, 0];
    const { bytes, living } = await litter(memory, third);
    // A first one has fenced whoever seems dead: what dies is the second, which removes.
    const prune = (): Promise<unknown> => first.maintenance.prune({ signal: undefined, dryRun: false });
    now += 5000;
    await prune();
    now += 5000;
    const interrupted = stores[0];
    [interrupted.calls, interrupted.at] = [0, at];
    interrupted.meanwhile = () => {
      interrupted.store = new FaultyStore(memory, 1, { dead: true });
      return Promise.resolve();
    };
    const died = await prune().then(() => false, (error: unknown) => isStasisError(error, 'STORE_UNAVAILABLE'));
    [interrupted.store, interrupted.at] = [memory, 0];
    assert.ok((await load(third, living)).equals(bytes), `at call ${at}`);
    for (let i = 0; i < 2; i += 1) {
      now += 5000;
      await prune();
    }
    assert.ok((await load(third, living)).equals(bytes), `at call ${at}`);
    const report = await third.maintenance.check({ signal: undefined, readData: true });
    assert.deepEqual([report.problems, report.loose, report.checkpoints], [[], { packs: 0, bytes: 0 }, 1]);
    await third.delete(living, anySignal);
    assert.deepEqual([...memory.objects.keys()].filter((name) => !name.endsWith('.fenced')), [], `at call ${at}`);
    if (!died) break;
  }
});

void test('fences go, too, after ten graces', async () => {
  const [first, , third] = repositories as [Repository, Repository, Repository];
  let now = 1_000_000;
  const memory = new MemoryStore(() => now);
  for (const store of stores) [store.store, store.at] = [memory, 0];
  const { living } = await litter(memory, third);
  for (let i = 0; i < 4; i += 1) {
    await first.maintenance.prune({ signal: undefined, dryRun: false });
    now += 11_000;
  }
  await third.delete(living, anySignal);
  assert.deepEqual([...memory.objects.keys()], []);
});

void test('a pack that is lost or cut short is stored again by the next checkpoint, and told by check', async () => {
  const [first] = repositories as [Repository];
  for (const damage of ['lost', 'cut', 'flipped'] as const) {
    const memory = new MemoryStore();
    stores[0].store = memory;
    const bytes = randomBytes(300_000);
    const { id, lineage } = await save(first, { bytes });
    const [pack = ''] = [...memory.objects.keys()].filter((name) => name.startsWith('packs/'));
    const whole = memory.objects.get(pack) ?? Buffer.alloc(0);
    if (damage === 'lost') memory.objects.delete(pack);
    else if (damage === 'cut') memory.objects.set(pack, whole.subarray(0, -1));
    else whole[1000] = (whole[1000] ?? 0) ^ 1;
    const check = (readData: boolean): Promise<CheckReport> => first.maintenance.check({ signal: undefined, readData });
    const code = damage === 'lost' ? 'OBJECT_MISSING' : 'OBJECT_CORRUPT';
    const { problems } = await check(true);
    assert.deepEqual(problems.map((problem) => [problem.object, problem.code]), [[pack, code]], damage);
    assert.ok(problems[0]?.message.includes(id));
    assert.equal((await check(false)).problems.length, damage === 'flipped' ? 0 : 1);
    if (damage === 'flipped') continue;
    const next = await save(first, { bytes, lineage });
    assert.ok((await load(first, next.id)).equals(bytes), damage);
  }
});

void test('a pack whose header names another lineage is not taken for garbage of that one', async () => {
  const [first] = repositories as [Repository];
  for (const packs of ['one', 'all'] as const) {
    const memory = new MemoryStore();
    stores[0].store = memory;
    const bytes = randomBytes(300_000);
    const before = await save(first, { bytes });
    const after = await save(first, { bytes, lineage: before.lineage });
    await first.delete(before.id, { signal: undefined });
    const names = [...memory.objects.keys()].filter((name) => name.startsWith(`packs/${before.id}`));
    assert.ok(names.length > 0, 'the second checkpoint builds on the first');
    for (const name of packs === 'all' ? names : names.slice(0, 1)) {
      const whole = memory.objects.get(name) ?? Buffer.alloc(0);
      const at = whole.indexOf(Buffer.from(before.lineage, 'hex'));
      assert.ok(at >= 0);
      whole[at] = (whole[at] ?? 0) ^ 1;
    }
    for (let again = 0; again < 2; again += 1) await first.maintenance.prune({ signal: undefined, dryRun: false });
    assert.ok((await load(first, after.id)).equals(bytes), packs);
  }
});

void test('check finds a missing key, a manifest that cannot be read, a stray name and loose packs', async () => {
  const [first] = repositories as [Repository];
  const memory = new MemoryStore();
  stores[0].store = memory;
  const saved = [await save(first, { bytes: randomBytes(1000) }), await save(first, { bytes: randomBytes(1000) }), await save(first, { bytes: randomBytes(1000) })] as const;
  memory.objects.delete(`lineages/${saved[0].lineage}`);
  const manifest = memory.objects.get(`manifests/${saved[1].id}`) ?? Buffer.alloc(0);
  manifest[manifest.length - 100] = (manifest[manifest.length - 100] ?? 0) ^ 1;
  memory.objects.set('manifests/stray', Buffer.alloc(3));
  const [pack = Buffer.alloc(0)] = memory.objects.values();
  memory.objects.set(`packs/${nextId()}-0011223344556677`, pack);
  const { problems, loose } = await first.maintenance.check({ signal: undefined, readData: false });
  assert.deepEqual(problems.map(({ object, code }) => [object, code]).sort(), [
    [`lineages/${saved[0].lineage}`, 'KEY_MISSING'], [`manifests/${saved[1].id}`, 'SIGNATURE_INVALID'], ['manifests/stray', 'USAGE'],
  ].sort());
  assert.deepEqual(loose, { packs: 1, bytes: pack.length });
});

void test('a checkpoint is deleted while it is read: the reader goes on, and the packs go with a later prune', async () => {
  const [first, second, third] = repositories as [Repository, Repository, Repository];
  let now = 1_000_000;
  const memory = new MemoryStore(() => now);
  for (const store of stores) [store.store, store.at] = [memory, 0];
  const bytes = randomBytes(200_000);
  const { id } = await save(third, { bytes });
  {
    await using _held = await first.maintenance.hold(id, anySignal);
    const reader = await first.open(id, anySignal);
    await second.delete(id, anySignal);
    await third.maintenance.prune({ signal: undefined, dryRun: false });
    assert.equal((await Array.fromAsync(first.list(anySignal))).length, 0);
    const buffer = new SharedArrayBuffer(bytes.length);
    await reader.extract([{ blob: 'memory', sink: ({ offset }) => ({ kind: 'memory', buffer, offset }) }], anySignal);
    assert.ok(Buffer.from(buffer).equals(bytes));
  }
  now += 1;
  await third.maintenance.prune({ signal: undefined, dryRun: false });
  assert.deepEqual([...memory.objects.keys()], []);
});
