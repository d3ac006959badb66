/** The page source and its server, with a client that speaks as criu lazy-pages does and a store that fails at will. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { treeHoldsSocket } from '../../../src/host/tcp-peer.ts';
import { StasisError } from '../../../src/core/errors.ts';
import { MiB } from '../../../src/core/units.ts';
import { PE_LAZY, PE_PRESENT, PagemapReader, type PageRun } from '../../../src/image/criu/pagemap.ts';
import { BlockSlots, PageSource, WorkingSet, loadLazyImages, startLazyServer } from '../../../src/image/lazy/index.ts';
import { OP_ADD_F, OP_CLOSE, OP_GET, decodeMessage, encodeMessage, headerSizeOf, type HeaderSize } from '../../../src/image/page-server/protocol.ts';
import type { Repository, Store } from '../../../src/repository/index.ts';
import { MemoryStore } from '../../../src/repository/index.ts';
import { pagemap } from '../../support/criu-images.ts';
import { anySignal, nextId, piecesOf, withRepository } from '../../repository/support.ts';

const PAGE = 4096;
const LAZY = PE_LAZY | PE_PRESENT;
const BASE = 0x7f00_0000_0000;
const criu = [[4, 1, 1], [4, 2, 1]] as const;

/** An address space of three runs: lazy, eager, lazy; with a hole of zeros in the last. */
const runs: readonly PageRun[] = [
  { address: BASE, pages: 1000, flags: LAZY },
  { address: BASE + 1000 * PAGE, pages: 10, flags: PE_PRESENT },
  { address: BASE + 5000 * PAGE, pages: 1500, flags: LAZY },
];
const totalPages = runs.reduce((sum, run) => sum + run.pages, 0);
const memory = randomBytes(totalPages * PAGE);
memory.fill(0, 1200 * PAGE, 1800 * PAGE);
memory.fill(0, 50 * PAGE, 53 * PAGE);

/** What lies at an address. */
function expected(address: number, pages: number): Buffer {
  let offset = 0;
  for (const run of runs) {
    if (address >= run.address && address < run.address + run.pages * PAGE) {
      const at = offset + address - run.address;
      return memory.subarray(at, at + pages * PAGE);
    }
    offset += run.pages * PAGE;
  }
  throw new Error('no such page');
}

class StallingStore extends MemoryStore {
  fault: (() => Promise<void>) | undefined;
  reads = 0;

  override async get(...args: Parameters<Store['get']>): Promise<Uint8Array> {
    this.reads += 1;
    await this.fault?.();
    return super.get(...args);
  }
}

async function saved(repository: Repository): ReturnType<Repository['open']> {
  const writer = await repository.begin({ id: nextId(), lineage: undefined }, anySignal);
  await writer.putSmall('c/pagemap-1.img', pagemap(1, runs), anySignal);
  await writer.append('c/pages-1.img', piecesOf(memory, MiB), anySignal);
  const { id } = await writer.commit({}, anySignal);
  return repository.open(id, anySignal);
}

interface Fixture {
  readonly store: StallingStore;
  readonly source: PageSource;
  readonly images: string;
  readonly stalls: StasisError[];
  readonly stop: AbortController;
}

async function withSource(use: (fixture: Fixture) => Promise<void>, options: { cacheBytes?: number; workingSet?: WorkingSet } = {}): Promise<void> {
  const store = new StallingStore();
  const images = mkdtempSync(join(tmpdir(), 'lazy-'));
  const stop = new AbortController();
  try {
    await withRepository({ store }, async (repository) => {
      const reader = await saved(repository);
      const { tasks } = await loadLazyImages(reader, 'c/', images, options.workingSet ?? new WorkingSet(), anySignal);
      const stalls: StasisError[] = [];
      const source = new PageSource({
        reader, tasks, cacheBytes: options.cacheBytes ?? 16 * MiB, slots: new BlockSlots(MiB), signal: stop.signal,
        sleep: async (_ms, { signal }) => { await delay(2, undefined, { signal }); }, onStall: (error) => void stalls.push(error),
      });
      await use({ store, source, images, stalls, stop });
      stop.abort(new StasisError('CANCELLED', 'the test is over'));
    });
  } finally {
    rmSync(images, { recursive: true, force: true });
  }
}

/** As criu lazy-pages: any number of requests in flight, answers in their order. */
class Client {
  readonly #socket: Socket;
  readonly #size: HeaderSize;
  #data = Buffer.alloc(0);
  #wake = (): void => {};
  ended = false;

  constructor(port: number, size: HeaderSize) {
    this.#size = size;
    this.#socket = connect(port, '127.0.0.1');
    this.#socket.on('data', (data: Buffer) => {
      this.#data = Buffer.concat([this.#data, data]);
      this.#wake();
    });
    this.#socket.on('close', () => {
      this.ended = true;
      this.#wake();
    });
    this.#socket.on('error', () => {});
  }

  get(address: number, pages: number, pid = 1): void {
    this.send(encodeMessage({ op: OP_GET, flags: 0, pages, address, destination: pid }, this.#size));
  }

  send(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  async bytes(count: number): Promise<Buffer> {
    while (this.#data.length < count) {
      if (this.ended) throw new Error('the connection ended');
      await new Promise<void>((resolve) => { this.#wake = resolve; });
    }
    const bytes = this.#data.subarray(0, count);
    this.#data = this.#data.subarray(count);
    return bytes;
  }

  /** Checks the answer to the oldest request and returns the number of its pages. */
  async answer(address: number, most: number): Promise<number> {
    const header = await this.bytes(this.#size);
    const message = decodeMessage(new DataView(header.buffer, header.byteOffset, header.length), this.#size);
    assert.deepEqual({ ...message, pages: 0 }, { op: OP_ADD_F, flags: PE_PRESENT, pages: 0, address, destination: 1 });
    assert.ok(message.pages >= 1 && message.pages <= most, `${message.pages} of ${most} pages`);
    assert.ok((await this.bytes(message.pages * PAGE)).equals(expected(address, message.pages)), 'the pages are others');
    return message.pages;
  }

  /** All of a range, asking again for what was left out. */
  async range(address: number, pages: number, step = 1024): Promise<void> {
    for (let done = 0; done < pages;) {
      const wanted = Math.min(step, pages - done);
      this.get(address + done * PAGE, wanted);
      done += await this.answer(address + done * PAGE, wanted);
    }
  }

  async close(): Promise<void> {
    this.send(encodeMessage({ op: OP_CLOSE, flags: 0, pages: 0, address: 0, destination: 0 }, this.#size));
    assert.equal((await this.bytes(4)).readInt32LE(), 0);
    this.#socket.end();
  }

  cut(): void {
    this.#socket.destroy();
  }
}

for (const version of criu) {
  void test(`criu ${version.join('.')}: faults and ranges get their pages, in order, until the close`, async () => {
    await withSource(async ({ source, stop }) => {
      const faults: number[] = [];
      let bytes = 0;
      await using server = await startLazyServer({ source, criu: version, mayConnect: (inode) => treeHoldsSocket(process.pid, inode), signal: stop.signal, onFault: (_pid, address) => void faults.push(address), onBytes: (count) => { bytes += count; } });
      const client = new Client(server.port, headerSizeOf(version));
      await server.connected;
      source.start();
      const scattered = [BASE + 999 * PAGE, BASE, BASE + 5100 * PAGE, BASE + 6499 * PAGE, BASE + 51 * PAGE];
      for (const address of scattered) client.get(address, 1);
      for (const address of scattered) assert.equal(await client.answer(address, 1), 1);
      assert.deepEqual(faults, scattered);
      // Never beyond what is lazy, whatever is asked for.
      client.get(BASE + 990 * PAGE, 1024);
      assert.equal(await client.answer(BASE + 990 * PAGE, 1024), 10);
      await client.range(BASE + 5000 * PAGE, 1500);
      await client.range(BASE, 1000, 16);
      assert.ok(bytes >= 2500 * PAGE);
      await client.close();
      await server.finished;
    });
  });
}

void test('pages fit through a small memory, however they are asked for', async () => {
  await withSource(async ({ source, stop }) => {
    await using server = await startLazyServer({ source, criu: [4, 2, 1], mayConnect: (inode) => treeHoldsSocket(process.pid, inode), signal: stop.signal });
    const client = new Client(server.port, 32);
    // 997 is prime to the number of pages: every page once, far from the one before.
    for (let n = 0, page = 0; n < 1500; n += 1, page = (page + 997) % 1500) {
      client.get(BASE + (5000 + page) * PAGE, 1);
      if (n % 5 === 4) for (let back = 4; back >= 0; back -= 1) await client.answer(BASE + (5000 + ((page + (1500 - 997) * back) % 1500)) * PAGE, 1);
    }
    await client.range(BASE, 1000);
    await client.close();
    await server.finished;
  }, { cacheBytes: MiB });
});

void test('while the store is away requests wait, and go on when it is back', async () => {
  await withSource(async ({ source, store, stalls, stop }) => {
    await using server = await startLazyServer({ source, criu: [4, 2, 1], mayConnect: (inode) => treeHoldsSocket(process.pid, inode), signal: stop.signal });
    const client = new Client(server.port, 32);
    let away = true;
    store.fault = async () => {
      await delay(1);
      if (away) throw new StasisError('STORE_UNAVAILABLE', 'away');
    };
    client.get(BASE, 1);
    client.get(BASE + 5000 * PAGE, 64);
    while (stalls.length <= 2 && !client.ended) await delay(5);
    assert.equal(client.ended, false, 'it did not wait');
    away = false;
    assert.equal(await client.answer(BASE, 1), 1);
    await client.answer(BASE + 5000 * PAGE, 64);
    // A store that does not answer at all.
    const hang = Promise.withResolvers<void>();
    store.fault = () => hang.promise;
    client.get(BASE + 6000 * PAGE, 16);
    await delay(50);
    assert.equal(client.ended, false);
    hang.resolve();
    await client.answer(BASE + 6000 * PAGE, 16);
    client.cut();
    await assert.rejects(server.finished, { code: 'RESTORE_FAILED' });
  });
});

void test('damage ends it, and the connection is closed only when the owner has said so', async () => {
  await withSource(async ({ source, store, stop }) => {
    const owner = Promise.withResolvers<void>();
    const failed = Promise.withResolvers<unknown>();
    const server = await startLazyServer({ source, criu: [4, 2, 1], mayConnect: (inode) => treeHoldsSocket(process.pid, inode), signal: stop.signal, beforeClose: async (error) => { failed.resolve(error); await owner.promise; } });
    server.finished.catch(() => {});
    const client = new Client(server.port, 32);
    await server.connected;
    for (const [name, bytes] of store.objects) if (name.startsWith('packs/')) bytes.fill(7, 0, bytes.length);
    client.get(BASE, 1);
    assert.equal((await failed.promise as StasisError).code, 'OBJECT_CORRUPT');
    await delay(20);
    assert.equal(client.ended, false, 'closed before the container was dead');
    owner.resolve();
    await assert.rejects(server.finished, { code: 'OBJECT_CORRUPT' });
    await server[Symbol.asyncDispose]();
  });
});

const nonsense: Readonly<Record<string, Uint8Array>> = {
  'a page that nobody has': encodeMessage({ op: OP_GET, flags: 0, pages: 1, address: BASE + 1005 * PAGE, destination: 1 }, 32),
  'a process that is not there': encodeMessage({ op: OP_GET, flags: 0, pages: 1, address: BASE, destination: 9 }, 32),
  'no pages': encodeMessage({ op: OP_GET, flags: 0, pages: 0, address: BASE, destination: 1 }, 32),
  'an address between pages': encodeMessage({ op: OP_GET, flags: 0, pages: 1, address: BASE + 5, destination: 1 }, 32),
  'something else': encodeMessage({ op: 4, flags: 0, pages: 1, address: BASE, destination: 1 }, 32),
  'random bytes': Buffer.alloc(64, 0xee),
};
for (const [name, bytes] of Object.entries(nonsense)) {
  void test(`a request for ${name} is an error, not an empty answer`, async () => {
    await withSource(async ({ source, stop }) => {
      await using server = await startLazyServer({ source, criu: [4, 2, 1], mayConnect: (inode) => treeHoldsSocket(process.pid, inode), signal: stop.signal });
      const client = new Client(server.port, 32);
      client.send(bytes);
      await assert.rejects(server.finished, { code: 'RESTORE_FAILED' });
    });
  });
}

void test('images have only their eager pages, and those of the working set, whose marks change', async () => {
  const workingSet = new WorkingSet();
  workingSet.touched(1, BASE + 20 * PAGE);
  workingSet.touched(1, BASE + 6499 * PAGE);
  workingSet.touched(7, BASE);
  await withSource(async ({ images, source }) => {
    const pages = readFileSync(join(images, 'pages-1.img'));
    assert.equal(pages.length, memory.length);
    assert.ok(statSync(join(images, 'pages-1.img')).blocks * 512 < memory.length / 4, 'all of it was written');
    const reader = new PagemapReader('pagemap-1.img');
    const found = [...reader.push(readFileSync(join(images, 'pagemap-1.img')))];
    assert.equal(reader.pagesId, 1);
    assert.equal(found.reduce((sum, run) => sum + run.pages, 0), totalPages);
    let [offset, lazy] = [0, 0];
    for (const run of found) {
      const bytes = pages.subarray(offset, offset + run.pages * PAGE);
      if (run.flags === LAZY) {
        lazy += run.pages;
        assert.ok(!bytes.some((byte) => byte !== 0), 'a lazy page was written');
      } else assert.ok(bytes.equals(memory.subarray(offset, offset + run.pages * PAGE)), 'an eager page is not as it was');
      offset += run.pages * PAGE;
    }
    assert.equal(source.totalBytes, lazy * PAGE);
    // The granule of the last page is cut by the end of the run.
    assert.equal(2500 - lazy, 16 + ((BASE / PAGE + 6499) % 16) + 1);
    await assert.rejects(source.take(1, BASE + 20 * PAGE, 1), { code: 'RESTORE_FAILED' });
  }, { workingSet: WorkingSet.parse(JSON.parse(workingSet.toJson())) });
});

void test('a working set is bounded, and what is none counts as empty', () => {
  const set = new WorkingSet();
  for (let n = 0; n < 10_000; n += 1) set.touched(1, n * 65_536);
  assert.equal(set.bytes, 256 * MiB);
  for (const value of [undefined, null, 7, {}, { version: 2, granules: [[1, 1]] }, { version: 1, granules: 'x' }, { version: 1, granules: [[1], ['a', 2], [1, 1.5]] }]) {
    assert.equal(WorkingSet.parse(value).bytes, 0, JSON.stringify(value));
  }
});
