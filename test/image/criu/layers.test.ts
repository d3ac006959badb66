/** Memory out of several rounds: what comes out is what was there at the last one, page for page. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempDisposableSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { KeptMemory } from '../../../src/image/criu/kept-memory.ts';
import { MemoryLayers } from '../../../src/image/criu/layers.ts';
import { PE_LAZY, PE_PARENT, PE_PRESENT, PagemapReader } from '../../../src/image/criu/pagemap.ts';
import type { PageRun } from '../../../src/image/criu/pagemap.ts';
import type { MemoryLayer } from '../../../src/image/types.ts';
import { MemoryWriter } from '../../support/memory-repository.ts';

const PAGE = 4096;
const BASE = 0x10000;
const signal = undefined;

/** A page of its own for each number. */
const page = (n: number): Buffer => Buffer.alloc(PAGE, `page ${n};`);

/** What a dump of these pages says and sends: `old` are left to the round before. Runs are cut at random places, as criu does it. */
async function dumped(writer: MemoryWriter, prefix: string, pages: ReadonlyMap<number, number>, old: ReadonlySet<number>, cut: (n: number) => boolean): Promise<MemoryLayer> {
  const runs: PageRun[] = [];
  const bytes: Buffer[] = [];
  for (const [place, content] of [...pages].sort(([a], [b]) => a - b)) {
    const flags = old.has(place) ? PE_PARENT : PE_PRESENT | (place % 7 < 4 ? PE_LAZY : 0);
    const last = runs.at(-1);
    if (last !== undefined && last.flags === flags && last.address + last.pages * PAGE === BASE + place * PAGE && !cut(place)) runs[runs.length - 1] = { ...last, pages: last.pages + 1 };
    else runs.push({ address: BASE + place * PAGE, pages: 1, flags });
    if (!old.has(place)) bytes.push(page(content));
  }
  const blob = `${prefix}pages-1.img`;
  const all = new Uint8Array(new SharedArrayBuffer(bytes.length * PAGE));
  all.set(Buffer.concat(bytes));
  await writer.append(blob, all.length === 0 ? [] : [{ source: { kind: 'memory', buffer: all.buffer, offset: 0, length: all.length }, zeroPages: true }], { signal });
  return { pagemap: 'pagemap-1.img', kind: 'task', id: 1, pagesId: 1, blob, runs };
}

function read(writer: MemoryWriter): Map<number, string> {
  const reader = new PagemapReader('pagemap-1.img');
  const runs = [...reader.push(writer.blob('x/pagemap-1.img'))];
  reader.end();
  const bytes = writer.blob('x/pages-1.img');
  const pages = new Map<number, string>();
  let at = 0;
  for (const run of runs) {
    assert.ok((run.flags & PE_PRESENT) !== 0 && (run.flags & PE_PARENT) === 0, 'a checkpoint has no parent');
    for (let i = 0; i < run.pages; i += 1, at += PAGE) {
      const place = (run.address - BASE) / PAGE + i;
      assert.equal((run.flags & PE_LAZY) !== 0, place % 7 < 4, 'what may come later');
      pages.set(place, bytes.toString('latin1', at, at + PAGE));
    }
  }
  assert.equal(at, bytes.length);
  return pages;
}

const change = fc.record({ gone: fc.array(fc.nat(40)), written: fc.array(fc.nat(40)), cuts: fc.array(fc.nat(40)) });

void test('any rounds: the last one counts, and nothing of the rounds stays', async () => {
  await fc.assert(fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 5 }), async (changes) => {
    const writer = new MemoryWriter();
    const layers = new MemoryLayers();
    const memory = new Map<number, number>();
    let written = 0;
    for (const { gone, written: places, cuts } of changes) {
      const known = layers.has('pagemap-1.img') ? new Set(memory.keys()) : new Set<number>();
      for (const place of gone) memory.delete(place);
      for (const place of places) {
        memory.set(place, (written += 1));
        known.delete(place);
      }
      layers.add([await dumped(writer, layers.begin(), memory, known, (n) => cuts.includes(n))]);
    }
    const images = await layers.finish(writer, 'x/', { signal, locked: () => [] });
    layers.drop(writer);
    assert.equal(images[0]?.pages, memory.size);
    assert.deepEqual(read(writer), new Map([...memory].sort(([a], [b]) => a - b).map(([place, content]) => [place, page(content).toString('latin1')])));
    assert.deepEqual([...writer.blobs.keys()].sort(), ['x/pagemap-1.img', 'x/pages-1.img']);
  }), { numRuns: 200, verbose: true });
});

/** As a page server hands it over: runs, and the bytes of those that are present in pieces of any size. */
function keep(kept: KeptMemory, { runs, ...layer }: MemoryLayer, bytes: Buffer): void {
  kept.begin();
  const image = kept.open(layer);
  let at = 0;
  for (const run of runs) {
    image.run(run);
    const end = (run.flags & PE_PRESENT) === 0 ? at : at + run.pages * PAGE;
    for (; at < end; at += Math.min(1500, end - at)) image.bytes(bytes.subarray(at, at + Math.min(1500, end - at)));
  }
}

void test('a rehearsal of any rounds has the pagemap of the checkpoint, and all pages that cannot come later', async () => {
  await fc.assert(fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 4 }), async (changes) => {
    using directory = mkdtempDisposableSync(join(tmpdir(), 'kept-'));
    mkdirSync(join(directory.path, 'images'));
    writeFileSync(join(directory.path, 'images/inventory.img'), 'other images');
    const writer = new MemoryWriter();
    const layers = new MemoryLayers();
    const memory = new Map<number, number>();
    using kept = new KeptMemory(join(directory.path, 'kept'), { maxBytes: 1e9 });
    let written = 0;
    for (const [index, { gone, written: places, cuts }] of changes.entries()) {
      const known = layers.has('pagemap-1.img') ? new Set(memory.keys()) : new Set<number>();
      for (const place of gone) memory.delete(place);
      for (const place of places) {
        memory.set(place, (written += 1));
        known.delete(place);
      }
      const layer = await dumped(writer, layers.begin(), memory, known, (n) => cuts.includes(n));
      keep(kept, layer, Buffer.from(writer.blob(layer.blob)));
      if (index === changes.length - 1) await kept.layOut(join(directory.path, 'rehearsal'), { imageDir: join(directory.path, 'images'), layers });
      layers.add([layer]);
    }
    await layers.finish(writer, 'x/', { signal, locked: () => [] });
    const made = (name: string): Buffer => readFileSync(join(directory.path, 'rehearsal', name));
    assert.equal(kept.lost, undefined);
    assert.equal(made('inventory.img').toString(), 'other images');
    assert.deepEqual(made('pagemap-1.img'), Buffer.from(writer.blob('x/pagemap-1.img')));
    const pages = [...memory].sort(([a], [b]) => a - b).map(([place, content]) => (place % 7 < 4 ? Buffer.alloc(PAGE) : page(content)));
    assert.deepEqual(made('pages-1.img'), Buffer.concat(pages));
  }), { numRuns: 50 });
});

void test('more than may be kept is no rehearsal', () => {
  using directory = mkdtempDisposableSync(join(tmpdir(), 'kept-'));
  using kept = new KeptMemory(join(directory.path, 'kept'), { maxBytes: 2 * PAGE });
  const layer = { pagemap: 'pagemap-1.img', kind: 'task', id: 1, pagesId: 1, blob: 'b' } as const;
  const runs = [{ address: BASE, pages: 9, flags: PE_PRESENT | PE_LAZY }, { address: BASE + 9 * PAGE, pages: 2, flags: PE_PRESENT }];
  keep(kept, { ...layer, runs }, Buffer.alloc(11 * PAGE));
  assert.equal(kept.lost, undefined);
  keep(kept, { ...layer, blob: 'c', runs: [{ address: BASE, pages: 1, flags: PE_PRESENT }] }, Buffer.alloc(PAGE));
  assert.match(kept.lost ?? '', /more than 8\.00 KiB of its memory cannot be left out/);
});

void test('what was locked since a round before is not left for later', async () => {
  const writer = new MemoryWriter();
  const layers = new MemoryLayers();
  const pages = new Map([[0, 0], [1, 1], [2, 2], [14, 14], [15, 15]]);
  layers.add([await dumped(writer, layers.begin(), pages, new Set(), () => true)]);
  layers.add([await dumped(writer, layers.begin(), pages, new Set([0, 1, 2, 14, 15]), () => true)]);
  const [image] = await layers.finish(writer, 'x/', { signal, locked: (pid) => (pid === 1 ? [[BASE + 14 * PAGE, BASE + 15 * PAGE]] : []) });
  assert.equal(image?.pages, 5);
  assert.equal(image?.lazyPages, 3);
});

void test('pages that no round has are refused, and a failed round takes the others with it', async () => {
  const writer = new MemoryWriter();
  const layers = new MemoryLayers();
  const add = async (present: readonly number[], old: readonly number[]): Promise<void> =>
    layers.add([await dumped(writer, layers.begin(), new Map([...present, ...old].map((place) => [place, place])), new Set(old), () => false)]);
  await assert.rejects(add([1], [2]), { code: 'DUMP_FAILED' });
  await add([1, 2, 4, 5], []);
  for (const old of [[3], [2, 3], [3, 4], [5, 6], [0, 1], [1, 2, 3, 4, 5]]) await assert.rejects(add([9], old), { code: 'DUMP_FAILED' }, old.join());
  await add([3], [1, 2, 4, 5]);
  await add([], [1, 2, 3, 4, 5]);
  assert.equal(layers.depth, 3);
  layers.clear();
  assert.equal(layers.has('pagemap-1.img'), false);
  await assert.rejects(add([], [1]), { code: 'DUMP_FAILED' });
  layers.drop(writer);
  assert.deepEqual([...writer.blobs.keys()], []);
});
