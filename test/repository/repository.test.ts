import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { closeSync, constants, mkdirSync, openSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import { MiB } from '../../src/core/units.ts';
import { systemClock } from '../../src/core/clock.ts';
import { MemoryStore, openDirectoryStore, openRepository } from '../../src/repository/index.ts';
import type { FileSlice, Piece, PieceResult, Store } from '../../src/repository/index.ts';
import { planMemory, StagePool } from '../../src/repository/stage/pool.ts';
import { anySignal, failure, load, nextId, piecesOf, save, shared, testKeys, withDirectory, withRepository } from './support.ts';

const packNames = async (store: Store): Promise<string[]> => (await Array.fromAsync(store.list('packs/', anySignal))).map(({ name }) => name);

void test('what was saved comes back, byte for byte, with every cipher and implementation', async () => {
  const bytes = Buffer.concat([randomBytes(300_000), Buffer.alloc(100_000), Buffer.alloc(200_000, 'text '), randomBytes(777)]);
  for (const sodium of ['auto', 'sodium-native', 'libsodium-wrappers'] as const) {
    for (const cipher of ['xchacha20-poly1305', 'null']) {
      await withRepository({ sodium }, async (repository) => {
        const { id } = await save(repository, { bytes, cipher });
        assert.ok((await load(repository, id)).equals(bytes));
        const reader = await repository.open(id, anySignal);
        assert.equal(reader.summary.cipher, cipher);
        assert.deepEqual(reader.summary.description, { about: 'a test' });
        assert.equal(Buffer.from(await reader.read('b.img', undefined, anySignal)).toString(), 'second small blob');
        assert.equal(Buffer.from(await reader.read('a.img', { offset: 6, length: 5 }, anySignal)).toString(), 'small');
        assert.deepEqual((await repository.verify(id, anySignal)).problems, []);
      });
    }
  }
});

void test('any sequence of pieces and holes, any range of it', async () => {
  await withRepository({}, async (repository) => {
    const part = fc.oneof(
      fc.record({ kind: fc.constant('random' as const), length: fc.integer({ min: 0, max: 20_000 }) }),
      fc.record({ kind: fc.constant('zero' as const), length: fc.integer({ min: 0, max: 20_000 }) }),
      fc.record({ kind: fc.constant('text' as const), length: fc.integer({ min: 0, max: 20_000 }) }),
      fc.record({ kind: fc.constant('hole' as const), length: fc.integer({ min: 0, max: 2_000_000 }) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(part, { maxLength: 8 }), fc.integer({ min: 1, max: 9000 }), fc.nat(), fc.nat(), async (parts, size, from, count) => {
        const writer = await repository.begin({ id: nextId(), lineage: undefined }, anySignal);
        const expected: Buffer[] = [];
        for (const { kind, length } of parts) {
          const bytes = kind === 'random' ? randomBytes(length) : Buffer.alloc(length, kind === 'text' ? 'words ' : 0);
          expected.push(bytes);
          if (kind === 'hole') writer.appendZeros('x', length);
          else await writer.append('x', piecesOf(bytes, size), anySignal);
        }
        const all = Buffer.concat(expected);
        const { id, bytes: counts } = await writer.commit({}, anySignal);
        assert.equal(counts.raw, all.length);
        const reader = await repository.open(id, anySignal);
        const length = reader.blobs.get('x') ?? 0;
        assert.equal(length, all.length);
        if (length === 0) return;
        assert.ok(Buffer.from(await reader.read('x', undefined, anySignal)).equals(all));
        const offset = from % length;
        const range = { offset, length: count % (length - offset + 1) };
        assert.ok(Buffer.from(await reader.read('x', range, anySignal)).equals(all.subarray(offset, offset + range.length)));
        const target = new SharedArrayBuffer(range.length);
        await reader.extract([{ blob: 'x', ...range, sink: (segment) => ({ kind: 'memory', buffer: target, offset: segment.offset - offset }) }], anySignal);
        assert.ok(Buffer.from(target).equals(all.subarray(offset, offset + range.length)));
        let at = 0;
        for (const segment of reader.segments('x')) {
          assert.equal(segment.offset, at);
          at += segment.length;
          if (segment.zero) assert.ok(!all.subarray(segment.offset, at).some((byte) => byte !== 0));
        }
        assert.equal(at, length);
        await repository.delete(id, anySignal);
      }),
      { numRuns: 40 },
    );
  });
});

void test('results come in the order of the pieces, whoever is faster', () =>
  withRepository({}, async (repository) => {
    const writer = await repository.begin({ id: nextId(), lineage: undefined }, anySignal);
    const sizes = Array.from({ length: 300 }, (_, i) => (i % 7 === 0 ? 200_000 : 1 + i));
    const seen: [number, number][] = [];
    const buffer = shared(randomBytes(200_000));
    const pieces = sizes.map((length) => ({ source: { kind: 'memory' as const, buffer, offset: 0, length }, zeroPages: true }));
    await writer.append('x', pieces, { signal: undefined, onPiece: ({ length }, index) => seen.push([length, index]) });
    assert.deepEqual(seen, sizes.map((length, i) => [length, i]));
    await writer.abort();
  }));

void test('pieces that come one by one go out at once: their source may wait for them', () =>
  withRepository({}, async (repository) => {
    const writer = await repository.begin({ id: nextId(), lineage: undefined }, anySignal);
    let read = Promise.withResolvers<void>();
    let count = 0;
    async function* pieces(): AsyncIterable<Piece> {
      for (let i = 0; i < 5; i += 1) {
        read = Promise.withResolvers<void>();
        yield { source: { kind: 'memory', buffer: shared(randomBytes(100)), offset: 0, length: 100 }, zeroPages: false };
        // As a bounded staging area does: nothing new before this one is read.
        await read.promise;
      }
    }
    const onPiece = (): void => {
      count += 1;
      read.resolve();
    };
    await writer.append('x', pieces(), { signal: AbortSignal.timeout(5000), onPiece });
    assert.equal(count, 5);
    await writer.abort();
  }));

void test('equal data of a lineage is stored once; a new lineage knows nothing of it', () =>
  withRepository({}, async (repository, store) => {
    const bytes = randomBytes(1_048_576);
    const first = await save(repository, { bytes: Buffer.concat([bytes, bytes.subarray(0, 65536 * 4)]) });
    assert.ok(first.bytes.reused >= 65536 * 3, 'equal within one checkpoint');
    bytes.fill(1, 0, 10);
    const second = await save(repository, { bytes, lineage: first.lineage });
    assert.ok(second.bytes.reused >= 1_048_576 - 65536, `reused ${second.bytes.reused}`);
    assert.ok(second.bytes.stored < 70_000, `stored ${second.bytes.stored}`);
    const other = await save(repository, { bytes });
    assert.equal(other.bytes.reused, 0);
    assert.notEqual(other.lineage, first.lineage);
    await repository.delete(first.id, anySignal);
    assert.ok((await load(repository, second.id)).equals(bytes), 'what the second needs of the first is still there');
    assert.deepEqual((await repository.verify(second.id, anySignal)).problems, []);
    await repository.delete(second.id, anySignal);
    await repository.delete(other.id, anySignal);
    assert.deepEqual([...(store as MemoryStore).objects.keys()], [], 'nothing is left at the end');
  }));

void test('a writer at work keeps the packs that it may be using', () =>
  withRepository({}, async (repository, store) => {
    const bytes = randomBytes(500_000);
    const first = await save(repository, { bytes });
    const writer = await repository.begin({ id: nextId(), lineage: first.lineage }, anySignal);
    await repository.delete(first.id, anySignal);
    await writer.append('memory', piecesOf(bytes, 65536), anySignal);
    const second = await writer.commit({}, anySignal);
    assert.ok(second.bytes.reused > 400_000);
    assert.ok((await load(repository, second.id)).equals(bytes));
    await repository.discard(first.id, anySignal);
    assert.ok((await load(repository, second.id)).equals(bytes), 'discard leaves what is used');
    await repository.delete(second.id, anySignal);
    assert.deepEqual(await packNames(store), []);
  }));

void test('a list has what is complete, oldest first; strangers are reported', () =>
  withRepository({}, async (repository, store) => {
    const ids = [];
    for (let i = 0; i < 3; i += 1) ids.push((await save(repository, { bytes: randomBytes(1000) })).id);
    const half = await repository.begin({ id: nextId(), lineage: undefined }, anySignal);
    await half.append('x', piecesOf(randomBytes(1000), 1000), anySignal);
    await store.put('manifests/stranger', [Buffer.from('hello')], anySignal);
    const problems: string[] = [];
    const listed = await Array.fromAsync(repository.list({ signal: undefined, onProblem: (object) => problems.push(object) }));
    assert.deepEqual(listed.map(({ id }) => id), ids);
    assert.deepEqual(problems, ['manifests/stranger']);
    assert.equal(await repository.exists(half.id, anySignal), false);
    assert.equal(await failure(repository.open(half.id, anySignal)), 'CHECKPOINT_NOT_FOUND');
    await half.abort();
    assert.equal(await failure(repository.delete(half.id, anySignal)), 'CHECKPOINT_NOT_FOUND');
  }));

void test('abort removes what was written; so does discard after a death', () =>
  withRepository({}, async (repository, store) => {
    const kept = await save(repository, { bytes: randomBytes(100_000) });
    const before = [...(store as MemoryStore).objects.keys()];
    for (const lineage of [undefined, kept.lineage]) {
      const writer = await repository.begin({ id: nextId(), lineage }, anySignal);
      await writer.append('x', piecesOf(randomBytes(40 * MiB), MiB), anySignal);
      await delay(50);
      await writer.abort();
      await writer.abort();
      assert.deepEqual([...(store as MemoryStore).objects.keys()], before);
    }
    const id = nextId();
    const dead = await repository.begin({ id, lineage: kept.lineage }, anySignal);
    await dead.append('x', piecesOf(randomBytes(40 * MiB), MiB), anySignal);
    await delay(50);
    assert.notDeepEqual([...(store as MemoryStore).objects.keys()], before, 'there is something to discard');
    await repository.discard(id, anySignal);
    assert.deepEqual([...(store as MemoryStore).objects.keys()], [...before, `writers/${kept.lineage}-${id}.fenced`], 'a manifest on its way would be known for what it is');
    assert.equal(await failure(repository.discard(kept.id, anySignal)), 'CHECKPOINT_IN_USE');
    assert.equal(await failure(repository.begin({ id: kept.id, lineage: undefined }, anySignal)), 'CHECKPOINT_IN_USE');
    await dead.abort();
  }));

void test('an append that is cancelled or cannot be read poisons the writer, and sources are left alone afterwards', () =>
  withRepository({}, async (repository) => {
    const writer = await repository.begin({ id: nextId(), lineage: undefined }, anySignal);
    const controller = new AbortController();
    async function* endless(): AsyncIterable<Piece> {
      for (;;) {
        yield { source: { kind: 'memory', buffer: shared(randomBytes(1000)), offset: 0, length: 1000 }, zeroPages: false };
        await delay(1);
      }
    }
    const append = writer.append('x', endless(), { signal: controller.signal });
    setTimeout(() => controller.abort(new Error('enough')), 30);
    await assert.rejects(append, /enough/);
    await assert.rejects(writer.commit({}, anySignal));
    await writer.abort();

    const second = await repository.begin({ id: nextId(), lineage: undefined }, anySignal);
    await assert.rejects(second.append('x', [{ source: { kind: 'fd', fd: 9999, offset: 0, length: 10 }, zeroPages: false }], anySignal), /EBADF/);
    await assert.rejects(second.commit({}, anySignal), /EBADF/);
    await second.abort();

    const third = await repository.begin({ id: nextId(), lineage: undefined }, anySignal);
    let given = 0;
    function* broken(): Iterable<Piece> {
      for (given = 1; given < 10_000; given += 1) yield { source: { kind: 'fd', fd: 9999, offset: 0, length: MiB }, zeroPages: false };
    }
    await assert.rejects(third.append('x', broken(), anySignal), /EBADF/);
    assert.ok(given < 200, `${given} pieces were taken in vain`);
    await third.abort();
  }));

void test('files: read below a directory, padded where torn, created below another', () =>
  withDirectory(async (directory) => {
    const [from, to] = [join(directory, 'from'), join(directory, 'to')];
    mkdirSync(join(from, 'sub'), { recursive: true });
    mkdirSync(join(to, 'sub'), { recursive: true });
    const large = randomBytes(3_000_000);
    const small = Array.from({ length: 2000 }, (_, i) => Buffer.from(`file ${i} `.repeat(1 + (i % 50))));
    writeFileSync(join(from, 'large'), large);
    small.forEach((bytes, i) => writeFileSync(join(from, 'sub', `${i}`), bytes));
    writeFileSync(join(from, 'short'), 'only this');
    symlinkSync('/etc/passwd', join(from, 'link'));
    symlinkSync('..', join(from, 'up'));
    const slices: FileSlice[] = [];
    for (let offset = 0; offset < large.length; offset += 700_000) slices.push({ path: Buffer.from('large'), offset, length: Math.min(700_000, large.length - offset) });
    small.forEach((bytes, i) => slices.push({ path: Buffer.from(`sub/${i}`), offset: 0, length: bytes.length }));
    for (const path of ['short', 'gone', 'link', 'sub', 'up/from/short', '../from/short', 'sub/0/x']) slices.push({ path: Buffer.from(path), offset: 0, length: 20 });
    const root = openSync(from, constants.O_RDONLY | constants.O_DIRECTORY);
    const target = openSync(to, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      await withRepository({}, async (repository) => {
        const pieces: Piece[] = [];
        for (let i = 0; i < slices.length; i += 100) pieces.push({ source: { kind: 'files', root, files: slices.slice(i, i + 100) }, zeroPages: false });
        const results: PieceResult[] = [];
        const writer = await repository.begin({ id: nextId(), lineage: undefined }, anySignal);
        await writer.append('files', pieces, { signal: undefined, onPiece: (result) => results.push(result) });
        const { id } = await writer.commit({}, anySignal);
        const stats = results.flatMap(({ slices: list }) => list ?? []);
        assert.equal(stats.length, slices.length);
        assert.deepEqual(stats.slice(-7).map(({ torn }) => torn), Array(7).fill(true));
        assert.ok(stats.slice(0, -7).every(({ torn }) => !torn));
        assert.equal(stats[0]?.size, 3_000_000n);
        const reader = await repository.open(id, anySignal);
        const tail = Buffer.from(await reader.read('files', { offset: (reader.blobs.get('files') ?? 0) - 140, length: 140 }, anySignal));
        assert.equal(tail.toString('latin1', 0, 20), `only this${'\0'.repeat(11)}`);
        assert.ok(tail.subarray(20).every((byte) => byte === 0), 'nothing of what lies outside was read');

        // Back into files: every segment knows which files it covers.
        const layout: { start: number; slice: FileSlice }[] = [];
        let at = 0;
        for (const slice of slices.slice(0, -7)) {
          layout.push({ start: at, slice });
          at += slice.length;
        }
        await reader.extract([{ blob: 'files', offset: 0, length: at, sink: ({ offset, length }) => ({ kind: 'files', root: target, files: cover(layout, offset, length) }) }], anySignal);
        assert.ok(readFileSync(join(to, 'large')).equals(large));
        small.forEach((bytes, i) => assert.ok(readFileSync(join(to, 'sub', `${i}`)).equals(bytes), `file ${i}`));
        await assert.rejects(reader.extract([{ blob: 'files', offset: 0, length: 10, sink: () => ({ kind: 'files', root: target, files: [{ path: Buffer.from('large'), offset: 0, length: 10 }] }) }], anySignal), /EEXIST/);
        for (const path of ['../escape', '/tmp/escape', 'up/escape']) {
          symlinkSync('..', join(to, 'up'), 'dir');
          await assert.rejects(reader.extract([{ blob: 'files', offset: 0, length: 10, sink: () => ({ kind: 'files', root: target, files: [{ path: Buffer.from(path), offset: 0, length: 10 }] }) }], anySignal));
          (await import('node:fs')).unlinkSync(join(to, 'up'));
        }
      });
    } finally {
      closeSync(root);
      closeSync(target);
    }
  }));

function cover(layout: readonly { start: number; slice: FileSlice }[], offset: number, length: number): FileSlice[] {
  return layout
    .filter(({ start, slice }) => start < offset + length && start + slice.length > offset)
    .map(({ start, slice }) => {
      const from = Math.max(offset, start);
      const to = Math.min(offset + length, start + slice.length);
      return { path: slice.path, offset: slice.offset + from - start, length: to - from };
    });
}

void test('a descriptor is read where it is told, and one that ends early is an error', () =>
  withDirectory(async (directory) => {
    const path = join(directory, 'pages');
    const bytes = randomBytes(200_000);
    writeFileSync(path, bytes);
    const file = await open(path, 'r');
    await withRepository({}, async (repository) => {
      const writer = await repository.begin({ id: nextId(), lineage: undefined }, anySignal);
      await writer.append('x', [{ source: { kind: 'fd', fd: file.fd, offset: 1000, length: 150_000 }, zeroPages: true }], anySignal);
      const { id } = await writer.commit({}, anySignal);
      const out = await open(join(directory, 'out'), 'w+');
      const reader = await repository.open(id, anySignal);
      await reader.extract([{ blob: 'x', sink: ({ offset }) => ({ kind: 'fd', fd: out.fd, offset: offset + 7 }) }], anySignal);
      assert.ok((await out.readFile()).subarray(7).equals(bytes.subarray(1000, 151_000)));
      await out.close();
      truncateSync(path, 1000);
      const second = await repository.begin({ id: nextId(), lineage: undefined }, anySignal);
      assert.equal(await failure(second.append('x', [{ source: { kind: 'fd', fd: file.fd, offset: 0, length: 2000 }, zeroPages: true }], anySignal)), 'INTERNAL');
      await second.abort();
    });
    await file.close();
  }));

void test('more writers at once than there are buffers all come to an end', () =>
  withRepository({ memoryBytes: 50 * MiB }, async (repository) => {
    const results = await Promise.all(
      Array.from({ length: 12 }, async () => {
        const bytes = randomBytes(3 * MiB);
        const { id } = await save(repository, { bytes });
        return (await load(repository, id)).equals(bytes);
      }),
    );
    assert.deepEqual(results, Array(12).fill(true));
  }));

void test('memory stays below its limit, whatever the size', async () => {
  for (const workers of [1, 2, 3, 8, 64]) {
    for (const memoryBytes of [1, 40 * MiB, 120 * MiB, 1024 * MiB]) {
      const plan = planMemory({ workers, memoryBytes });
      const used = plan.buffers * plan.packBytes + plan.workers * 12 * MiB;
      assert.ok(plan.workers >= 1 && plan.buffers >= 2 && plan.buffers > plan.workers && plan.packBytes >= 6 * MiB);
      if (memoryBytes >= 24 * MiB) assert.ok(used <= memoryBytes, `${workers} workers in ${memoryBytes}: ${used}`);
    }
  }
  const pool = new StagePool({ workers: 2, memoryBytes: 120 * MiB, sodium: 'auto' });
  const most = 120 * MiB;
  const lent = await Promise.all(Array.from({ length: 6 }, () => pool.buffers.acquire(anySignal)));
  assert.equal(await failure(pool.buffers.acquire({ signal: AbortSignal.timeout(20) })), 'not a StasisError: TimeoutError: The operation was aborted due to timeout');
  assert.ok(pool.memoryBytes <= most);
  lent.forEach((buffer) => pool.buffers.release(buffer));
  await pool.close();
});

void test('the process does not grow with the size of the checkpoint', async () => {
  // A store that keeps nothing: what remains is what the repository itself holds.
  const sink = new MemoryStore();
  sink.put = () => delay(5);
  const repository = await openRepository({ store: sink, keys: testKeys(), clock: systemClock, workers: 2 });
  const buffer = shared(randomBytes(8 * MiB));
  function* pieces(count: number): Iterable<Piece> {
    const view = new DataView(buffer);
    for (let i = 0; i < count; i += 1) {
      view.setFloat64((i % 8) * MiB, i + count);
      yield { source: { kind: 'memory', buffer, offset: (i % 8) * MiB, length: MiB }, zeroPages: false };
    }
  }
  const run = async (count: number): Promise<number> => {
    const writer = await repository.begin({ id: nextId(), lineage: undefined }, anySignal);
    await writer.append('x', pieces(count), anySignal);
    await writer.abort();
    return process.memoryUsage.rss();
  };
  const small = await run(200);
  const large = await run(1200);
  await repository.close();
  assert.ok(large - small < 100 * MiB, `${Math.round((large - small) / MiB)} MiB more for six times the data`);
});

void test('two repositories on one directory see each other\'s checkpoints', () =>
  withDirectory(async (directory) => {
    const keys = testKeys();
    const [one, two] = await Promise.all([openDirectoryStore(directory), openDirectoryStore(directory)]);
    await withRepository({ store: one, keys }, (a) =>
      withRepository({ store: two, keys }, async (b) => {
        const bytes = randomBytes(100_000);
        const saved = await Promise.all([save(a, { bytes }), save(b, { bytes })]);
        for (const repository of [a, b]) {
          const listed = await Array.fromAsync(repository.list(anySignal));
          assert.deepEqual(new Set(listed.map(({ id }) => id)), new Set(saved.map(({ id }) => id)));
          for (const { id } of saved) assert.ok((await load(repository, id)).equals(bytes));
        }
      }),
    );
    await Promise.all([one.close(), two.close()]);
  }));
