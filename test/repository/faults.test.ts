import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { systemClock } from '../../src/core/clock.ts';
import { isStasisError } from '../../src/core/errors.ts';
import { MiB } from '../../src/core/units.ts';
import { MemoryStore, openRepository } from '../../src/repository/index.ts';
import type { CheckpointSummary, KeyProvider, Repository } from '../../src/repository/index.ts';
import { StagePool } from '../../src/repository/stage/pool.ts';
import { anySignal, codeOf, failure, FaultyStore, load, nextId, piecesOf, save, testKeys, withRepository } from './support.ts';

const keys: KeyProvider = testKeys();
const bytes = randomBytes(600_000);
const changed = Buffer.concat([bytes.subarray(0, 400_000), randomBytes(200_000)]);

/** Everything that is listed is whole, and the ones from before are still there. */
async function assertWhole(repository: Repository, before: readonly CheckpointSummary[]): Promise<void> {
  const problems: string[] = [];
  const listed = await Array.fromAsync(repository.list({ signal: undefined, onProblem: (object, error) => problems.push(`${object}: ${error.message}`) }));
  assert.deepEqual(problems, []);
  for (const { id } of listed) assert.deepEqual((await repository.verify(id, anySignal)).problems, []);
  for (const { id } of before) assert.ok((await load(repository, id)).equals(bytes));
}

async function clone(store: MemoryStore): Promise<MemoryStore> {
  const copy = new MemoryStore();
  for (const [name, content] of store.objects) copy.objects.set(name, content);
  return Promise.resolve(copy);
}

async function prepared(): Promise<{ store: MemoryStore; first: CheckpointSummary }> {
  const store = new MemoryStore();
  const first = await withRepository({ store, keys }, (repository) => save(repository, { bytes }));
  return { store, first };
}

type Scenario = (repository: Repository, first: CheckpointSummary, id: CheckpointSummary['id']) => Promise<unknown>;
const scenarios: Record<string, Scenario> = {
  'a new lineage': (repository, _first, id) => save(repository, { bytes: changed, id }),
  'the next of a lineage': (repository, first, id) => save(repository, { bytes: changed, lineage: first.lineage, id }),
};

for (const [name, scenario] of Object.entries(scenarios)) {
  for (const how of [{ dead: false, after: false }, { dead: false, after: true }, { dead: true, after: false }, { dead: true, after: true }]) {
    void test(`saving ${name}: store call n ${how.dead ? 'is the last' : 'fails'}${how.after ? ' after its work' : ''}, for all n`, async () => {
      const { store: pristine, first } = await prepared();
      for (let n = 1; ; n += 1) {
        assert.ok(n < 100, 'the scenario ends');
        const store = await clone(pristine);
        const faulty = new FaultyStore(store, n, how);
        const repository = await openRepository({ store: faulty, keys, owner: 'the one agent', clock: systemClock, workers: n % 3 === 0 ? 2 : 1 });
        const id = nextId();
        const error: unknown = await scenario(repository, first, id).then(
          () => undefined,
          (reason: unknown) => reason,
        );
        await repository.close();
        if (error !== undefined) assert.equal(codeOf(error), 'STORE_UNAVAILABLE');
        await withRepository({ store, keys, workers: 1 }, async (after) => {
          await assertWhole(after, [first]);
          if (await after.exists(id, anySignal)) await after.delete(id, anySignal);
          else await after.discard(id, anySignal);
          await assertWhole(after, [first]);
        });
        // A fence stays for a while: a put of the manifest could still be on its way.
        assert.deepEqual([...store.objects.keys()].filter((object) => !pristine.objects.has(object) && !object.endsWith('.fenced')), lineageKeyOnly(store, pristine), `call ${n}: nothing is left`);
        if (faulty.calls < n) break;
      }
    });
  }
}

/** A lineage key without anything else may stay: no writer ever told anybody about it, and it holds no data. */
function lineageKeyOnly(store: MemoryStore, pristine: MemoryStore): string[] {
  const fresh = [...store.objects.keys()].filter((object) => !pristine.objects.has(object));
  return fresh.filter((object) => object.startsWith('lineages/') && fresh.length === 1);
}

for (const how of [{ dead: false }, { dead: true }]) {
  void test(`deleting: store call n ${how.dead ? 'is the last' : 'fails'}, for all n`, async () => {
    const { store: pristine, first } = await prepared();
    const second = await withRepository({ store: pristine, keys }, (repository) => save(repository, { bytes, lineage: first.lineage }));
    for (let n = 1; ; n += 1) {
      const store = await clone(pristine);
      const faulty = new FaultyStore(store, n, how);
      const repository = await openRepository({ store: faulty, keys, owner: 'the one agent', clock: systemClock, workers: 1 });
      const code = await failure(repository.delete(first.id, anySignal));
      assert.ok(['none', 'STORE_UNAVAILABLE'].includes(code), code);
      await repository.close();
      await withRepository({ store, keys, workers: 1 }, (after) => assertWhole(after, [second]));
      if (faulty.calls < n) break;
    }
  });
}

void test('a full store: NO_SPACE, and after abort nothing of it is left', async () => {
  const { store, first } = await prepared();
  const before = [...store.objects.keys()];
  for (let n = 1; n < 12; n += 1) {
    const faulty = new FaultyStore(store, n, { code: 'NO_SPACE' });
    const repository = await openRepository({ store: faulty, keys, owner: 'the one agent', clock: systemClock, workers: 2 });
    const id = nextId();
    const code = await failure(save(repository, { bytes: changed, lineage: first.lineage, id }));
    await repository.close();
    if (code === 'none') {
      await withRepository({ store, keys }, (after) => after.delete(id, anySignal));
      break;
    }
    assert.equal(code, 'NO_SPACE');
    assert.deepEqual([...store.objects.keys()].sort(), before.sort());
  }
  await withRepository({ store, keys, workers: 1 }, (after) => assertWhole(after, [first]));
});

void test('a put that fails stops the append: nothing more is read for a checkpoint that cannot be', async () => {
  // After the look whether the id is free, and the writer's mark.
  const store = new FaultyStore(new MemoryStore(), 3, { dead: true });
  await withRepository({ store, keys }, async (repository) => {
    const writer = await repository.begin({ id: nextId(), lineage: undefined }, anySignal);
    let read = 0;
    const data = randomBytes(8 * MiB);
    function* pieces(): ReturnType<typeof piecesOf> {
      for (let round = 0; round < 100; round += 1) {
        data.writeUInt32LE(round);
        for (const piece of piecesOf(Buffer.concat([data, randomBytes(8)]), MiB)) {
          read += 1;
          yield piece;
        }
        data.set(randomBytes(MiB), (round % 8) * MiB);
      }
    }
    assert.equal(await failure(writer.append('x', pieces(), anySignal)), 'STORE_UNAVAILABLE');
    assert.ok(read < 800, `${read} pieces`);
    assert.equal(await failure(writer.commit({}, anySignal)), 'STORE_UNAVAILABLE');
    await writer.abort();
  });
});

void test('a stage worker that dies fails who used it; the next checkpoint works', async () => {
  const pool = new StagePool({ workers: 2, memoryBytes: 60 * MiB, sodium: 'auto' });
  const [victim] = pool.workers;
  assert.ok(victim);
  const secrets = { lineage: '00'.repeat(16) as never, cipher: 1 as const, idKey: randomBytes(32), chunkKey: randomBytes(32), pageKey: randomBytes(32) };
  const session = pool.register({ onPack: () => undefined, onStarved: () => undefined, onDeath: () => undefined });
  const buffer = await pool.buffers.acquire(anySignal);
  const task = { chunk: 0, id: randomBytes(32), at: 0, stored: 100, raw: 60, codec: 0, parts: [] };
  const opened = pool.open({ secrets, pack: 'packs/x', base: 0, buffer, verify: true, tasks: [task] }, [], pool.buffers);
  await victim.close();
  const outcome = await opened.then(
    (problems) => problems.map(({ error }) => error.code),
    (error: unknown) => codeOf(error),
  );
  assert.ok(outcome === 'INTERNAL' || (Array.isArray(outcome) && outcome[0] === 'OBJECT_CORRUPT'));
  assert.notEqual(pool.workers[0], victim, 'another thread took its place');
  const again = await pool.open({ secrets, pack: 'packs/x', base: 0, buffer: await pool.buffers.acquire(anySignal), verify: true, tasks: [task] }, [], pool.buffers);
  assert.deepEqual(again.map(({ error }) => error.code), ['OBJECT_CORRUPT']);
  pool.unregister(session);
  await pool.close();
});

void test('reading: store call n fails, for all n', async () => {
  const { store, first } = await prepared();
  for (let n = 1; ; n += 1) {
    const faulty = new FaultyStore(store, n, {});
    const repository = await openRepository({ store: faulty, keys, owner: 'the one agent', clock: systemClock, workers: 2 });
    const [read, verified] = [await failure(load(repository, first.id)), await repository.verify(first.id, anySignal).catch((error: unknown) => error)];
    await repository.close();
    assert.ok(['none', 'STORE_UNAVAILABLE'].includes(read), read);
    assert.ok(isStasisError(verified, 'STORE_UNAVAILABLE') || (verified as { problems: unknown[] }).problems.length === 0);
    if (faulty.calls < n) break;
  }
});
