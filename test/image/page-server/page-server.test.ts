import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import * as fc from 'fast-check';
import { processHoldsSocket } from '../../../src/host/tcp-peer.ts';
import { loadImages, saveImages } from '../../../src/image/criu/index.ts';
import { PE_LAZY, PE_PARENT, PE_PRESENT } from '../../../src/image/criu/pagemap.ts';
import { SlabPool, startPageServer } from '../../../src/image/page-server/index.ts';
import type { PageServerOptions } from '../../../src/image/page-server/index.ts';
import { FakeDumper, header, op, shmem, task } from '../../support/fake-dumper.ts';
import { MemoryWriter } from '../../support/memory-repository.ts';
import { pagemap, writeMetadata } from '../../support/criu-images.ts';

const PAGE = 4096;
const MiB = 1024 * 1024;
const prefix = 'containers/0/criu/';
const signal = undefined;

interface Run {
  address: number;
  pages: number;
  flags: number;
}

void describe('page server', () => {
  let pool: SlabPool;
  before(async () => {
    pool = await SlabPool.create(16 * MiB, { signal });
  });

  const start = (writer: MemoryWriter, more: Partial<PageServerOptions> = {}) => startPageServer({ writer, prefix, pool, criu: [4, 2, 1], mayConnect: (inode) => processHoldsSocket(process.pid, inode), signal, ...more });

  /** Sends whole images; returns their bytes. */
  async function sendImages(dumper: FakeDumper, images: readonly { destination: number; runs: readonly Run[] }[]): Promise<Buffer[]> {
    const contents: Buffer[] = [];
    for (const { destination, runs } of images) {
      await dumper.open(destination);
      const bytes: Buffer[] = [];
      for (const run of runs) {
        const payload = randomBytes(run.pages * PAGE);
        bytes.push(payload);
        await dumper.send(op.ADD_F, { ...run, destination }, payload);
      }
      contents.push(Buffer.concat(bytes));
    }
    return contents;
  }

  for (const [size, criu] of [[24, [4, 1, 1]], [32, [4, 2, 0]]] as const) {
    void it(`stores what a directory dump would have, ${size}-byte headers`, async () => {
      const runs = [
        { address: 0x5555_0000_1000, pages: 700, flags: PE_PRESENT | PE_LAZY },
        { address: 0x5555_0040_0000, pages: 1, flags: PE_PRESENT },
        { address: 0x7fff_0000_0000, pages: 3, flags: PE_PRESENT | PE_LAZY },
      ];
      const segment = [{ address: 0, pages: 5, flags: PE_PRESENT }];
      const writer = new MemoryWriter();
      await using server = await start(writer, { criu });
      const dumper = await FakeDumper.connect(server.address, size);
      const [memory, shared] = await sendImages(dumper, [{ destination: task(1), runs }, { destination: shmem(4), runs: segment }]);
      assert.equal(await dumper.close(), 0);
      assert.deepEqual(await server.received, {
        pageSize: PAGE,
        images: [
          { pagemap: 'pagemap-1.img', kind: 'task', id: 1, pagesId: 0x10001, pages: 704, lazyPages: 703 },
          { pagemap: 'pagemap-shmem-4.img', kind: 'shmem', id: 4, pagesId: 0x10002, pages: 5, lazyPages: 0 },
        ],
      });
      assert.ok(writer.blob(`${prefix}pagemap-1.img`).equals(pagemap(0x10001, runs)));
      assert.ok(writer.blob(`${prefix}pages-65537.img`).equals(memory ?? Buffer.alloc(0)));
      assert.ok(writer.blob(`${prefix}pages-65538.img`).equals(shared ?? Buffer.alloc(0)));
      assert.equal(pool.freeSlabs * pool.slabBytes, pool.totalBytes);
    });
  }

  void it('cuts memory exactly as a directory dump is cut, and both load the same', async () => {
    const base = mkdtempSync(join(tmpdir(), 'page-server-'));
    after(() => rmSync(base, { recursive: true }));
    const runs = Array.from({ length: 60 }, (_, i) => ({ address: 0x10_0000_0000 + i * i * 700 * PAGE, pages: 1 + ((i * 37) % 300), flags: PE_PRESENT | PE_LAZY }));
    const writer = new MemoryWriter();
    await using server = await start(writer);
    const dumper = await FakeDumper.connect(server.address, 32);
    const [memory = Buffer.alloc(0)] = await sendImages(dumper, [{ destination: task(1), runs }]);
    assert.equal(await dumper.close(op.FORCE_CLOSE), 0);
    writeMetadata(base);
    const viaServer = await saveImages(writer, prefix, base, { signal, received: await server.received });

    writeFileSync(join(base, 'pagemap-1.img'), pagemap(0x10001, runs));
    writeFileSync(join(base, 'pages-65537.img'), memory);
    const directory = new MemoryWriter();
    const viaDirectory = await saveImages(directory, prefix, base, { signal });
    const cuts = (from: MemoryWriter): number[] => (from.blobs.get(`${prefix}pages-65537.img`) ?? []).map((piece) => piece.length);
    assert.deepEqual(cuts(writer), cuts(directory));
    assert.deepEqual([...writer.blobs.keys()].sort(), [...directory.blobs.keys()].sort());
    assert.deepEqual({ ...viaServer, metadataBytes: 0 }, { ...viaDirectory, metadataBytes: 0 });
    const loaded = join(base, 'loaded');
    await loadImages(await writer.reader(), prefix, loaded, { signal });
    assert.ok(readFileSync(join(loaded, 'pages-65537.img')).equals(memory));
    rmSync(loaded, { recursive: true });
    await assert.rejects(saveImages(new MemoryWriter(), prefix, base, { signal, received: await server.received }), /lies in the image directory too/);
  });

  void it('takes any split of the bytes', async () => {
    const shape = fc.record({
      size: fc.constantFrom(24 as const, 32 as const),
      splits: fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 300_000 })), { minLength: 1, maxLength: 12 }),
      pages: fc.array(fc.oneof(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 400 })), { minLength: 1, maxLength: 12 }),
    });
    await fc.assert(
      fc.asyncProperty(shape, async ({ size, splits, pages }) => {
        let i = 0;
        let address = 0x4000_0000;
        const runs = pages.map((count) => {
          const run = { address, pages: count, flags: PE_PRESENT };
          address += (count + (count % 3)) * PAGE;
          return run;
        });
        const writer = new MemoryWriter();
        await using server = await start(writer, { criu: size === 24 ? [4, 1, 0] : [4, 3, 0] });
        // Short splits for the first kilobytes only: each is a packet of its own.
        let budget = 3000;
        const dumper = await FakeDumper.connect(server.address, size, (length) => {
          const split = splits[i++ % splits.length] ?? 1;
          if (split > 40) return split;
          budget -= 1;
          return budget > 0 ? split : length;
        });
        const contents = await sendImages(dumper, [{ destination: task(3), runs }, { destination: task(4), runs: runs.slice(0, 1) }]);
        assert.equal(await dumper.close(), 0);
        await server.received;
        contents.forEach((content, n) => assert.ok(writer.blob(`${prefix}pages-${0x10001 + n}.img`).equals(content)));
      }),
      { numRuns: 30 },
    );
    assert.equal(pool.freeSlabs * pool.slabBytes, pool.totalBytes);
  });

  void it('stops reading while staging is full, and loses nothing', async () => {
    const writer = new MemoryWriter();
    const gate = Promise.withResolvers<void>();
    writer.onTake = () => gate.promise;
    await using server = await start(writer);
    const dumper = await FakeDumper.connect(server.address, 32);
    await dumper.open(task(1));
    const memory = randomBytes(40 * MiB);
    let sent = 0;
    const sending = (async () => {
      await dumper.raw(header(32, op.ADD_F, { flags: PE_PRESENT, pages: memory.length / PAGE, address: MiB, destination: task(1) }));
      for (; sent < memory.length; sent += MiB) await dumper.raw(memory.subarray(sent, sent + MiB));
    })();
    while (pool.freeSlabs > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await new Promise((resolve) => setTimeout(resolve, 100));
    // Staging, and what the kernel buffers on both sides of the connection.
    assert.ok(sent < memory.length, `${sent} bytes were taken`);
    gate.resolve();
    await sending;
    assert.equal(await dumper.close(), 0);
    await server.received;
    assert.ok(writer.blob(`${prefix}pages-65537.img`).equals(memory));
    assert.equal(pool.freeSlabs * pool.slabBytes, pool.totalBytes);
  });

  void it('two dumps share a full pool and both end', async () => {
    const transfers = Array.from({ length: 6 }, async () => {
      const writer = new MemoryWriter();
      await using server = await start(writer);
      const dumper = await FakeDumper.connect(server.address, 32);
      const [memory = Buffer.alloc(0)] = await sendImages(dumper, [{ destination: task(1), runs: [{ address: PAGE, pages: 6000, flags: 4 }] }]);
      assert.equal(await dumper.close(), 0);
      await server.received;
      assert.ok(writer.blob(`${prefix}pages-65537.img`).equals(memory));
    });
    await Promise.all(transfers);
    assert.equal(pool.freeSlabs * pool.slabBytes, pool.totalBytes);
  });

  void it('answers the end of the dump when the owner says so', async () => {
    const writer = new MemoryWriter();
    const gate = Promise.withResolvers<void>();
    writer.onTake = () => gate.promise;
    let staged: unknown;
    await using server = await start(writer, { onClose: async (memory) => void (staged = memory) });
    const dumper = await FakeDumper.connect(server.address, 32);
    await sendImages(dumper, [{ destination: task(1), runs: [{ address: PAGE, pages: 3, flags: 4 }] }]);
    // The writer is stuck, and still the container may go on.
    assert.equal(await dumper.close(), 0);
    assert.equal(writer.blobs.has(`${prefix}pages-65537.img`), false);
    gate.resolve();
    assert.deepEqual(await server.received, staged);

    await using refusing = await start(new MemoryWriter(), { onClose: async () => Promise.reject(new Error('no')) });
    const refused = await FakeDumper.connect(refusing.address, 32);
    assert.equal(await refused.close(), 1);
    await assert.rejects(refusing.received, /no/);
  });

  void it('fails when the writer fails after an early answer', async () => {
    const writer = new MemoryWriter();
    const gate = Promise.withResolvers<void>();
    writer.onTake = () => gate.promise;
    await using server = await start(writer, { onClose: async () => {} });
    const dumper = await FakeDumper.connect(server.address, 32);
    await sendImages(dumper, [{ destination: task(1), runs: [{ address: PAGE, pages: 3, flags: 4 }] }]);
    assert.equal(await dumper.close(), 0);
    gate.reject(new Error('disk full'));
    await assert.rejects(server.received, /disk full/);
    assert.equal(pool.freeSlabs * pool.slabBytes, pool.totalBytes);
  });

  void it('fails the dump when the writer fails', async () => {
    const writer = new MemoryWriter();
    writer.onTake = async () => Promise.reject(new Error('disk full'));
    await using server = await start(writer);
    const dumper = await FakeDumper.connect(server.address, 32);
    await sendImages(dumper, [{ destination: task(1), runs: [{ address: PAGE, pages: 600, flags: 4 }] }]).catch(() => {});
    assert.notEqual(await dumper.close(), 0);
    await assert.rejects(server.received, /disk full/);
    assert.equal(pool.freeSlabs * pool.slabBytes, pool.totalBytes);
  });

  void it('a connection that ends early is an aborted dump, wherever it ends', async () => {
    const stream = Buffer.concat([
      header(32, op.OPEN2, { destination: task(1) }),
      header(32, op.ADD_F, { flags: 4, pages: 2, address: PAGE, destination: task(1) }),
      Buffer.alloc(2 * PAGE, 1),
    ]);
    for (const length of [0, 1, 23, 24, 31, 32, 60, 64, 65, 5000, stream.length]) {
      await using server = await start(new MemoryWriter());
      const dumper = await FakeDumper.connect(server.address, 32);
      await dumper.raw(stream.subarray(0, length));
      if (length > 32) await dumper.receive(1);
      dumper.socket.end();
      await assert.rejects(server.received, { code: 'DUMP_FAILED' }, `after ${length} bytes`);
    }
    assert.equal(pool.freeSlabs * pool.slabBytes, pool.totalBytes);
  });

  const lies: [string, (dumper: FakeDumper) => Promise<void>][] = [
    ['pages without an image', (d) => d.send(op.ADD_F, { flags: 4, pages: 1, address: PAGE, destination: task(1) })],
    ['pages of another image', async (d) => { await d.open(task(1)); await d.send(op.ADD_F, { flags: 4, pages: 1, address: PAGE, destination: task(2) }); }],
    ['an image twice', async (d) => { await d.open(task(1)); await d.open(task(2)); await d.send(op.OPEN2, { destination: task(1) }); }],
    ['an unknown kind', (d) => d.send(op.OPEN2, { destination: 259 })],
    ['no pages', async (d) => { await d.open(task(1)); await d.send(op.ADD_F, { flags: 4, pages: 0, address: PAGE, destination: task(1) }); }],
    ['an odd address', async (d) => { await d.open(task(1)); await d.send(op.ADD_F, { flags: 4, pages: 1, address: PAGE + 8, destination: task(1) }); }],
    ['addresses going down', async (d) => { await d.open(task(1)); await d.send(op.ADD_F, { flags: 4, pages: 2, address: PAGE, destination: task(1) }, Buffer.alloc(2 * PAGE)); await d.send(op.ADD_F, { flags: 4, pages: 1, address: 2 * PAGE, destination: task(1) }); }],
    ['more than an address space', async (d) => { await d.open(task(1)); await d.send(op.ADD_F, { flags: 4, pages: 2 ** 46, address: PAGE, destination: task(1) }); }],
    ['a hole kept by a parent', async (d) => { await d.open(task(1)); await d.send(op.ADD_F, { flags: PE_PARENT, pages: 1, address: PAGE, destination: task(1) }); }],
    ['an old hole', async (d) => { await d.open(task(1)); await d.send(op.HOLE, { pages: 1, address: PAGE, destination: task(1) }); }],
    ['pages that stay behind', async (d) => { await d.open(task(1)); await d.send(op.ADD_F, { flags: PE_LAZY, pages: 1, address: PAGE, destination: task(1) }); }],
    ['a question for pages', async (d) => { await d.open(task(1)); await d.send(op.GET, { pages: 1, address: PAGE, destination: 1 }); }],
    ['garbage', (d) => d.raw(Buffer.alloc(64, 0xaa))],
    ['more after the end', async (d) => { await d.raw(Buffer.concat([header(32, op.CLOSE), Buffer.alloc(64)])); }],
  ];
  for (const [name, lie] of lies) {
    void it(`refuses ${name}`, async () => {
      await using server = await start(new MemoryWriter(), { onClose: async () => new Promise((resolve) => setTimeout(resolve, 50)) });
      const dumper = await FakeDumper.connect(server.address, 32);
      await lie(dumper).catch(() => {});
      await assert.rejects(server.received, { code: 'DUMP_FAILED' });
      dumper.socket.destroy();
      assert.equal(pool.freeSlabs * pool.slabBytes, pool.totalBytes);
    });
  }

  void it('refuses pages of a format it does not know', async () => {
    await using server = await start(new MemoryWriter());
    const dumper = await FakeDumper.connect(server.address, 32);
    await dumper.open(task(1));
    await dumper.send(op.ADD_F, { flags: 12, pages: 1, address: PAGE, destination: task(1) });
    await assert.rejects(server.received, { code: 'FORMAT_UNSUPPORTED' });
  });

  void it('speaks the old commands, and PARENT', async () => {
    const writer = new MemoryWriter();
    await using server = await start(writer, { criu: [4, 1, 1] });
    const dumper = await FakeDumper.connect(server.address, 24);
    await dumper.send(op.PARENT, { destination: task(1) });
    assert.deepEqual([...(await dumper.receive(4))], [0, 0, 0, 0]);
    await dumper.send(op.OPEN, { destination: task(1) });
    await dumper.send(op.ADD, { pages: 1, address: PAGE, destination: task(1) }, Buffer.alloc(PAGE, 5));
    assert.equal(await dumper.close(), 0);
    await server.received;
    assert.ok(writer.blob(`${prefix}pages-65537.img`).equals(Buffer.alloc(PAGE, 5)));
  });

  void it('believes the bytes more than the version, and ends an empty dump of either kind', async () => {
    for (const [size, criu] of [[24, [4, 2, 0]], [32, [4, 1, 0]]] as const) {
      await using server = await start(new MemoryWriter(), { criu });
      const dumper = await FakeDumper.connect(server.address, size);
      await sendImages(dumper, [{ destination: task(1), runs: [{ address: PAGE, pages: 1, flags: 4 }] }]);
      assert.equal(await dumper.close(), 0);
      await server.received;
      await using empty = await start(new MemoryWriter(), { criu });
      const nothing = await FakeDumper.connect(empty.address, size);
      assert.equal(await nothing.close(), 0);
      assert.deepEqual((await empty.received).images, []);
    }
  });

  void it('lets nobody else in: no second client, no other user', async () => {
    await using server = await start(new MemoryWriter());
    const port = Number(server.address.split(':')[1]);
    const stranger = `const s = require('node:net').connect(${port}, '127.0.0.1'); s.on('close', () => process.exit(7)); s.on('error', () => {})`;
    const child = spawn(process.execPath, ['-e', stranger], { uid: 65534, gid: 65534, stdio: 'ignore', timeout: 5000 });
    assert.deepEqual(await once(child, 'exit'), [7, null]);
    const dumper = await FakeDumper.connect(server.address, 32);
    await dumper.open(task(1));
    const second = connect(port, '127.0.0.1').on('error', () => {});
    await new Promise((resolve) => second.on('close', resolve));
    assert.equal(await dumper.close(), 0);
    await server.received;
  });

  void it('is given up by disposal and by the signal', async () => {
    const idle = await start(new MemoryWriter());
    await idle[Symbol.asyncDispose]();
    await assert.rejects(idle.received, { code: 'CANCELLED' });
    const abort = new AbortController();
    await using server = await start(new MemoryWriter(), { signal: abort.signal });
    const dumper = await FakeDumper.connect(server.address, 32);
    await dumper.open(task(1));
    abort.abort(new Error('enough'));
    await assert.rejects(server.received, /enough/);
    await assert.rejects(start(new MemoryWriter(), { signal: abort.signal }), /enough/);
  });

  void it('writes a pagemap of any size', async () => {
    const writer = new MemoryWriter();
    await using server = await start(writer);
    const dumper = await FakeDumper.connect(server.address, 32);
    await dumper.open(task(1));
    const runs = Array.from({ length: 60_000 }, (_, i) => ({ address: 0x7000_0000_0000 + i * 3 * PAGE, pages: 1, flags: 4 }));
    const page = Buffer.alloc(PAGE, 9);
    await dumper.raw(Buffer.concat(runs.flatMap((run) => [header(32, op.ADD_F, { ...run, destination: task(1) }), page])));
    assert.equal(await dumper.close(), 0);
    await server.received;
    assert.ok((writer.blobs.get(`${prefix}pagemap-1.img`)?.length ?? 0) > 1);
    assert.ok(writer.blob(`${prefix}pagemap-1.img`).equals(pagemap(0x10001, runs)));
    assert.equal(writer.blob(`${prefix}pages-65537.img`).length, runs.length * PAGE);
  });
});
