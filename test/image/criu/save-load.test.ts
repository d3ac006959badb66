import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { MemoryReader, MemoryWriter } from '../../support/memory-repository.ts';
import { image, pagemap, writeMetadata } from '../../support/criu-images.ts';
import { loadImages, readDumpStats, saveImages, summarizeImages } from '../../../src/image/criu/index.ts';
import { WireWriter } from '../../../src/image/criu/wire.ts';

const PAGE = 4096;
const MiB = 1024 * 1024;
const prefix = 'containers/0/criu/';
const signal = undefined;

void describe('saving and loading an image directory', () => {
  const base = mkdtempSync(join(tmpdir(), 'criu-images-'));
  after(() => rmSync(base, { recursive: true }));
  let count = 0;
  const fresh = (): string => {
    const directory = join(base, `images-${count++}`);
    mkdirSync(directory);
    return directory;
  };

  /** A heap of 3 MiB at an odd place, a hole, a small mapping far away; a shared segment; bytes that no pagemap knows. */
  function makeDump(extra = 0): string {
    const directory = fresh();
    writeMetadata(directory);
    const heap = [
      { address: 0x5555_5500_0000 - 2 * PAGE, pages: 3 * 256, flags: 6 },
      { address: 0x5555_5600_0000, pages: 1, flags: 1 },
      { address: 0x7fff_f000_0000, pages: 2, flags: 4 },
    ];
    writeFileSync(join(directory, 'pagemap-1.img'), pagemap(1, heap));
    writeFileSync(join(directory, 'pages-1.img'), Buffer.concat([randomBytes(3 * MiB - 8 * PAGE), Buffer.alloc(8 * PAGE), randomBytes(2 * PAGE + extra)]));
    writeFileSync(join(directory, 'pagemap-shmem-4.img'), pagemap(2, [{ address: 0, pages: 5, flags: 4 }]));
    writeFileSync(join(directory, 'pages-2.img'), randomBytes(5 * PAGE));
    writeFileSync(join(directory, 'pages-3.img'), randomBytes(2 * MiB + 17));
    writeFileSync(join(directory, 'ghost-file-2.img'), randomBytes(2 * MiB + 5));
    return directory;
  }

  function assertSame(a: string, b: string): void {
    assert.deepEqual(readdirSync(a).sort(), readdirSync(b).sort());
    for (const name of readdirSync(a)) assert.ok(readFileSync(join(a, name)).equals(readFileSync(join(b, name))), name);
  }

  void it('comes back byte for byte, with private files and holes for zero pages', async () => {
    const source = makeDump(777);
    const writer = new MemoryWriter();
    let saved = 0;
    const summary = await saveImages(writer, prefix, source, { signal, onBytes: (n) => (saved += n) });
    const target = join(fresh(), 'restored');
    await loadImages(await writer.reader(), prefix, target, { signal });
    assertSame(source, target);
    assert.equal(statSync(target).mode & 0o777, 0o700);
    assert.equal(statSync(join(target, 'pages-1.img')).mode & 0o777, 0o600);
    assert.ok(statSync(join(target, 'pages-1.img')).blocks * 512 <= statSync(join(source, 'pages-1.img')).size - 8 * PAGE + 2 * PAGE);
    assert.equal(saved, summary.metadataBytes + readdirSync(source).filter((n) => n.startsWith('pages-')).reduce((sum, n) => sum + statSync(join(source, n)).size, 0));
  });

  void it('cuts memory at windows of the address space, and the rest plainly', async () => {
    const writer = new MemoryWriter();
    await saveImages(writer, prefix, makeDump(777), { signal });
    assert.deepEqual(writer.blobs.get(`${prefix}pages-1.img`)?.map((piece) => piece.length), [2 * PAGE, MiB, MiB, MiB - 2 * PAGE, 2 * PAGE, 777]);
    assert.deepEqual(writer.blobs.get(`${prefix}pages-3.img`)?.map((piece) => piece.length), [MiB, MiB, 17]);
  });

  void it('finds the other pieces again when a page appears before them', async () => {
    const directory = fresh();
    writeMetadata(directory);
    const memory = randomBytes(8 * MiB);
    const save = async (runs: { address: number; pages: number; flags: number }[], bytes: Buffer): Promise<Set<string>> => {
      writeFileSync(join(directory, 'pagemap-1.img'), pagemap(1, runs));
      writeFileSync(join(directory, 'pages-1.img'), bytes);
      const writer = new MemoryWriter();
      await saveImages(writer, prefix, directory, { signal });
      return new Set(writer.blobs.get(`${prefix}pages-1.img`)?.map((piece) => piece.toString('latin1')));
    };
    const first = await save([{ address: 64 * MiB, pages: 2048, flags: 6 }], memory);
    const second = await save([{ address: 16 * MiB, pages: 1, flags: 6 }, { address: 64 * MiB, pages: 2048, flags: 6 }], Buffer.concat([randomBytes(PAGE), memory]));
    assert.equal(second.difference(first).size, 1);
  });

  void it('sums the images up', async () => {
    const source = makeDump();
    const summary = await summarizeImages(source);
    assert.deepEqual(await saveImages(new MemoryWriter(), prefix, source, { signal }), summary);
    const { report, ...numbers } = summary;
    assert.deepEqual(numbers, {
      files: readdirSync(source).length,
      metadataBytes: numbers.metadataBytes,
      pagesBytes: (770 + 5) * PAGE,
      pages: 775,
      lazyPages: 768,
      processes: 2,
      plugins: ['cuda_plugin'],
      tcpClose: true,
    });
    assert.ok(report !== undefined);
    assert.deepEqual(report.processes[0], {
      pid: 1, ppid: 0, threads: 2, comm: 'sh?[2J', state: 'alive', memoryBytes: 770 * PAGE, lazyBytes: 768 * PAGE,
      mapped: { count: 2, anonymous: 0x20000, filePrivate: 0x1000, fileShared: 0, shared: 0, other: 0 },
    });
    assert.deepEqual(report.memory, { privateBytes: 770 * PAGE, sharedBytes: 5 * PAGE, lazyBytes: 768 * PAGE });
    assert.deepEqual(report.tcp, { established: 1, listening: ['0.0.0.0:6379'] });
    assert.deepEqual(report.ghostFiles, { count: 2, bytes: 1000 + 2 * MiB + 5 });
    assert.deepEqual(report.stdio, ['/dev/null', 'pipe:[1]', 'pipe:[2]']);
    assert.equal(report.lsm, 'apparmor');
  });

  void it('refuses a dump that is not complete', async () => {
    const short = makeDump();
    truncateSync(join(short, 'pages-1.img'), 3 * MiB);
    await assert.rejects(saveImages(new MemoryWriter(), prefix, short, { signal }), { code: 'DUMP_FAILED' });
    const torn = makeDump();
    truncateSync(join(torn, 'pagemap-1.img'), 20);
    await assert.rejects(saveImages(new MemoryWriter(), prefix, torn, { signal }), { code: 'OBJECT_CORRUPT' });
    const unfinished = makeDump();
    rmSync(join(unfinished, 'inventory.img'));
    await assert.rejects(saveImages(new MemoryWriter(), prefix, unfinished, { signal }), { code: 'DUMP_FAILED' });
    const incremental = makeDump();
    symlinkSync('../images-0', join(incremental, 'parent'));
    await assert.rejects(saveImages(new MemoryWriter(), prefix, incremental, { signal }), { code: 'DUMP_FAILED' });
  });

  void it('refuses a pagemap that goes backwards', async () => {
    const source = makeDump();
    writeFileSync(join(source, 'pagemap-1.img'), pagemap(1, [{ address: 8192, pages: 385, flags: 4 }, { address: 4096, pages: 385, flags: 4 }]));
    await assert.rejects(saveImages(new MemoryWriter(), prefix, source, { signal }), { code: 'OBJECT_CORRUPT' });
  });

  void it('passes on what the writer throws, and closes its files', async () => {
    const writer = new MemoryWriter();
    writer.onTake = async (blob) => {
      if (blob.endsWith('pages-1.img')) throw new Error('store is gone');
    };
    const before = readdirSync('/proc/self/fd').length;
    await assert.rejects(saveImages(writer, prefix, makeDump(), { signal }), /store is gone/);
    assert.equal(readdirSync('/proc/self/fd').length, before);
    await assert.rejects(saveImages(new MemoryWriter(), prefix, makeDump(), { signal: AbortSignal.abort(new Error('stop')) }), /stop/);
  });

  void it('refuses hostile names, an occupied directory and a missing prefix', async () => {
    const summary = await new MemoryWriter().commit({});
    for (const name of ['../evil', 'a/b', '.', '..', '', '.hidden', `x${'y'.repeat(300)}`, 'a\0b', 'a b']) {
      const reader = new MemoryReader(summary, new Map([[prefix + name, Buffer.of(1)]]));
      await assert.rejects(loadImages(reader, prefix, fresh(), { signal }), { code: 'PATH_ESCAPES' }, name);
    }
    const good = new MemoryReader(summary, new Map([[`${prefix}core-1.img`, Buffer.of(1)]]));
    const occupied = fresh();
    writeFileSync(join(occupied, 'x'), '');
    await assert.rejects(loadImages(good, prefix, occupied, { signal }), /is not empty/);
    await assert.rejects(loadImages(good, 'containers/1/criu/', fresh(), { signal }), { code: 'OBJECT_MISSING' });
  });

  void it('reads what CRIU wrote about a dump', async () => {
    const work = fresh();
    assert.equal(await readDumpStats(work), undefined);
    const dump = new WireWriter().uint(1, 100_000).uint(2, 31_234).uint(3, 18_058).uint(4, 3000).uint(5, 1900).uint(7, 60).uint(9, 50).uint(12, 64).uint(14, 6);
    writeFileSync(join(work, 'stats-dump'), image('stats', [new WireWriter().bytes(1, dump.result())]));
    assert.deepEqual(await readDumpStats(work), { freezingUs: 100_000, frozenUs: 31_234, memdumpUs: 18_058, memwriteUs: 3000, pagesScanned: 1964, pagesWritten: 66, pagesLazy: 50 });
  });
});
