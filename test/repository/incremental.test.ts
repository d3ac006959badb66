/** Checkpoints of one lineage, page by page: what is stored again, what is only referred to, and that each stands alone. */
import assert from 'node:assert/strict';
import { randomBytes, randomInt } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { MiB } from '../../src/core/units.ts';
import type { CheckpointSummary, Repository, Store } from '../../src/repository/index.ts';
import { MemoryStore } from '../../src/repository/index.ts';
import { anySignal, load, nextId, piecesOf, testKeys, withRepository } from './support.ts';

const PAGE = 4096;
type Lineage = CheckpointSummary['lineage'];

async function save(repository: Repository, memory: Uint8Array, lineage?: Lineage): Promise<CheckpointSummary> {
  const writer = await repository.begin({ id: nextId(), lineage }, anySignal);
  try {
    await writer.append('memory', piecesOf(memory, MiB), anySignal);
    return await writer.commit({}, anySignal);
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

/** Other bytes in so many pages, all over the memory. */
function scatter(memory: Buffer, pages: number): Buffer {
  const changed = Buffer.from(memory);
  const numbers = new Set<number>();
  while (numbers.size < pages) numbers.add(randomInt(Math.floor(memory.length / PAGE)));
  for (const page of numbers) randomBytes(PAGE).copy(changed, page * PAGE);
  return changed;
}

void test('scattered changes cost what was changed, an idle workload next to nothing', async () => {
  const first = randomBytes(32 * MiB);
  await withRepository({}, async (repository) => {
    const { id, lineage, bytes } = await save(repository, first);
    assert.ok(bytes.stored > 32 * MiB && bytes.stored < 32.5 * MiB);
    const changed = scatter(first, 400);
    const second = await save(repository, changed, lineage);
    assert.ok(second.bytes.stored <= 1.1 * 400 * PAGE, `${second.bytes.stored} bytes for 400 pages`);
    assert.equal(second.bytes.reused, first.length - 400 * PAGE);
    const third = await save(repository, changed, lineage);
    assert.ok(third.bytes.stored <= 0.001 * bytes.stored, `${third.bytes.stored} bytes for nothing`);
    assert.equal(third.bytes.reused, first.length);
    assert.ok((await load(repository, id)).equals(first));
    for (const { id: other } of [second, third]) {
      assert.ok((await load(repository, other)).equals(changed));
      assert.deepEqual((await repository.verify(other, anySignal)).problems, []);
    }
  });
});

void test('pages are found again where they were moved to, and next to holes', async () => {
  const first = randomBytes(8 * MiB);
  await withRepository({}, async (repository) => {
    const { lineage } = await save(repository, first);
    const moved = Buffer.concat([Buffer.alloc(3 * PAGE), first.subarray(4 * MiB), randomBytes(PAGE), Buffer.alloc(PAGE), first.subarray(0, 4 * MiB)]);
    const second = await save(repository, moved, lineage);
    assert.ok(second.bytes.stored < 5 * PAGE, `${second.bytes.stored} bytes`);
    assert.ok((await load(repository, second.id)).equals(moved));
  });
});

void test('any generations of a sparse memory: each comes back alone, after all others were deleted', async () => {
  const change = fc.oneof(
    fc.record({ kind: fc.constant('scatter' as const), pages: fc.integer({ min: 1, max: 300 }) }),
    fc.record({ kind: fc.constant('zero' as const), from: fc.nat(1023), pages: fc.integer({ min: 1, max: 400 }) }),
    fc.record({ kind: fc.constant('text' as const), from: fc.nat(1023), pages: fc.integer({ min: 1, max: 400 }) }),
    fc.record({ kind: fc.constant('copy' as const), from: fc.nat(1023), pages: fc.integer({ min: 1, max: 400 }) }),
    fc.record({ kind: fc.constant('resize' as const), length: fc.integer({ min: 1, max: 6 * MiB }) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(change, { maxLength: 3 }), { minLength: 1, maxLength: 6 }), fc.boolean(), fc.nat(), async (generations, sealed, pick) => {
      await withRepository({}, async (repository, store) => {
        let memory: Buffer = Buffer.concat([randomBytes(2 * MiB), Buffer.alloc(MiB), randomBytes(MiB + 100)]);
        const saved: { summary: CheckpointSummary; memory: Buffer }[] = [];
        for (const changes of generations) {
          for (const one of changes) memory = applied(memory, one);
          const writer = await repository.begin({ id: nextId(), lineage: saved[0]?.summary.lineage, cipher: sealed ? 'xchacha20-poly1305' : 'null' }, anySignal);
          await writer.append('memory', piecesOf(memory, MiB), anySignal);
          saved.push({ summary: await writer.commit({}, anySignal), memory });
        }
        const kept = saved[pick % saved.length];
        assert.ok(kept);
        for (const { summary, memory: expected } of saved) assert.ok((await load(repository, summary.id)).equals(expected), 'before the others are gone');
        for (const { summary } of saved) if (summary !== kept.summary) await repository.delete(summary.id, anySignal);
        assert.ok((await load(repository, kept.summary.id)).equals(kept.memory), 'after the others are gone');
        assert.deepEqual((await repository.verify(kept.summary.id, anySignal)).problems, []);
        await repository.delete(kept.summary.id, anySignal);
        assert.deepEqual(await names(store), [], 'nothing is left of the lineage');
      });
    }),
    { numRuns: 15 },
  );
});

function applied(memory: Buffer, change: { kind: string; from?: number; pages?: number; length?: number }): Buffer {
  const { kind, from = 0, pages = 0, length = memory.length } = change;
  if (kind === 'resize') return Buffer.concat([memory.subarray(0, length), Buffer.alloc(Math.max(0, length - memory.length))]);
  if (kind === 'scatter') return memory.length < PAGE * pages ? memory : scatter(memory, Math.min(pages, Math.floor(memory.length / PAGE)));
  const next = Buffer.from(memory);
  const part = next.subarray(from * PAGE, (from + pages) * PAGE);
  if (kind === 'zero') part.fill(0);
  if (kind === 'text') part.fill('a line of text that is everywhere the same, and another one\n');
  if (kind === 'copy') next.copy(part, 0, 0, part.length);
  return next;
}

async function names(store: Store): Promise<string[]> {
  return (await Array.fromAsync(store.list('', anySignal))).map(({ name }) => name);
}

void test('many generations: what is read for the last stays near its size, and no checkpoint pays for all', async () => {
  await withRepository({}, async (repository, store) => {
    let memory: Buffer = randomBytes(8 * MiB);
    let { lineage, id } = await save(repository, memory);
    const first = memory.length;
    let most = 0;
    for (let generation = 0; generation < 40; generation += 1) {
      memory = scatter(memory, 100);
      const summary = await save(repository, memory, lineage);
      await repository.delete(id, anySignal);
      id = summary.id;
      most = Math.max(most, summary.bytes.stored);
    }
    assert.ok((await load(repository, id)).equals(memory));
    let packs = 0;
    for await (const { size } of store.list('packs/', anySignal)) packs += size;
    assert.ok(packs < 2.5 * first, `${packs} bytes of packs for ${first} bytes of memory`);
    assert.ok(most < first * 0.6, `one checkpoint of 5 % wrote ${most} bytes`);
    const before = await save(repository, memory);
    const read = await countReads(repository, id);
    const whole = await countReads(repository, before.id);
    assert.ok(read < 3 * whole, `${read} bytes read, ${whole} from a checkpoint of its own`);
  });
});

/** Bytes of chunks that a restore opens. */
async function countReads(repository: Repository, id: CheckpointSummary['id']): Promise<number> {
  const report = await repository.verify(id, anySignal);
  assert.deepEqual(report.problems, []);
  return report.bytes;
}

void test('without the records of pages, or with damaged ones, more is stored and nothing wrong', async () => {
  const keys = testKeys();
  const store = new MemoryStore();
  const first = randomBytes(6 * MiB);
  const changed = scatter(first, 50);
  await withRepository({ store, keys }, async (repository) => {
    const { lineage } = await save(repository, first);
    // The pack with the records is the last one written; its last chunk is the records.
    for (const name of (await names(store)).filter((one) => one.startsWith('packs/'))) {
      const bytes = Buffer.concat([await store.get(name, undefined, anySignal)]);
      bytes[bytes.length - 3] = (bytes[bytes.length - 3] ?? 0) ^ 1;
      await store.delete(name, anySignal);
      await store.put(name, [bytes], anySignal);
    }
    const second = await save(repository, changed, lineage);
    assert.ok(second.bytes.stored > 50 * PAGE * 1.2, 'the records were damaged');
  });
});

void test('a blob is put together out of parts of others, which are left out', async () => {
  const first = Buffer.concat([randomBytes(3 * MiB), Buffer.alloc(MiB), randomBytes(2 * MiB)]);
  const second = scatter(first, 40).subarray(0, 2 * MiB);
  await withRepository({}, async (repository) => {
    let lineage: Lineage | undefined;
    // The second time most of it is in the lineage already, page by page.
    for (const memory of [first, scatter(first, 100)]) {
      const writer = await repository.begin({ id: nextId(), lineage }, anySignal);
      await writer.append('round/1', piecesOf(memory, MiB), anySignal);
      await writer.append('round/2', piecesOf(second, MiB), anySignal);
      const parts: Buffer[] = [];
      await writer.append('memory', [], anySignal);
      for (let at = 0; at < memory.length;) {
        const length = Math.min((1 + randomInt(70)) * PAGE, memory.length - at);
        const fresh = at + length <= second.length && randomInt(3) === 0;
        writer.splice('memory', fresh ? 'round/2' : 'round/1', at, length);
        parts.push((fresh ? second : memory).subarray(at, at + length));
        at += length;
      }
      writer.drop('round/');
      const { id, bytes, lineage: own } = await writer.commit({}, anySignal);
      lineage = own;
      assert.equal(bytes.raw, memory.length);
      assert.ok(bytes.zero >= MiB - 100 * PAGE && bytes.zero <= MiB, `${bytes.zero} bytes of zeros`);
      assert.ok((await load(repository, id)).equals(Buffer.concat(parts)));
      assert.deepEqual((await repository.verify(id, anySignal)).problems, []);
      assert.deepEqual([...(await repository.open(id, anySignal)).blobs.keys()].filter((name) => name.startsWith('round/')), []);
      assert.deepEqual((await repository.maintenance.check({ signal: undefined, readData: true })).problems, []);
    }
  });
});
