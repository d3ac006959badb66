/** Real containers, dumped by a real criu, stored, brought back and run again. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { systemClock } from '../../../src/core/clock.ts';
import { newCheckpointId } from '../../../src/core/ids.ts';
import type { LineageId } from '../../../src/core/ids.ts';
import { loadImages, readDumpStats, readRestoreStats, saveImages } from '../../../src/image/criu/index.ts';
import { treeHoldsSocket } from '../../../src/host/tcp-peer.ts';
import { SlabPool, startPageServer } from '../../../src/image/page-server/index.ts';
import { fileKeyProvider, openDirectoryStore, openRepository } from '../../../src/repository/index.ts';
import type { CheckpointReader } from '../../../src/repository/index.ts';
import { MemoryWriter } from '../../support/memory-repository.ts';
import { RuncContainer } from '../../support/runc-container.ts';

const MiB = 1024 * 1024;
const prefix = 'containers/0/criu/';
const signal = undefined;
/** Counts, and checks each time that 8 MiB of random memory and a memory file are what they were; a child shares both. */
const program = `
import hashlib, os, time
heap = bytearray(os.urandom(8 << 20)); fd = os.memfd_create('m'); os.write(fd, os.urandom(1 << 20))
child = os.fork()
digest = lambda: hashlib.sha256(heap).hexdigest() + hashlib.sha256(os.pread(fd, 1 << 20, 0)).hexdigest()
first = digest(); n = 0
while child == 0: time.sleep(1)
while True:
    n += 1
    print(n, 'ok' if digest() == first else 'CORRUPT', flush=True)
    time.sleep(0.02)
`;

void describe('a real container', { timeout: 60_000 }, () => {
  const base = mkdtempSync(join(tmpdir(), 'real-'));
  after(() => rmSync(base, { recursive: true }));
  const fresh = (name: string): string => {
    const directory = mkdtempSync(join(base, `${name}-`));
    return directory;
  };

  const numberOf = (line: string): number => {
    assert.match(line, /^\d+ ok$/);
    return Number.parseInt(line, 10);
  };

  async function bringBack(container: RuncContainer, reader: CheckpointReader): Promise<void> {
    const last = numberOf(container.lines().at(-1) ?? '');
    const images = join(fresh('load'), 'images');
    const work = fresh('work');
    await loadImages(reader, prefix, images, { signal });
    await container.restore(images, work);
    const next = numberOf(await container.nextLine());
    assert.ok(next > last && next < last + 50, `${last} → ${next}`);
    const numbers = container.lines().map(numberOf);
    assert.deepEqual(numbers, numbers.map((_, i) => i + 1), 'no number is lost or doubled');
    assert.ok(((await readRestoreStats(work))?.pagesRestored ?? 0) > 0);
  }

  void it('goes on from its page-server dump, sealed in a repository, and again', async () => {
    const keys = await fileKeyProvider(join(base, 'keys'));
    const store = await openDirectoryStore(join(base, 'store'));
    const repository = await openRepository({ store, keys, clock: systemClock, workers: 2 });
    await using container = await RuncContainer.start('img-stream', ['/usr/bin/python3', '-c', program]);
    await container.nextLine();
    const pool = await SlabPool.create(16 * MiB, { signal });
    let lineage: LineageId | undefined;
    for (let cycle = 0; cycle < 2; cycle++) {
      const [images, work] = [fresh('images'), fresh('work')];
      const writer = await repository.begin({ id: newCheckpointId(systemClock.now()), lineage }, { signal });
      lineage = writer.lineage;
      await using server = await startPageServer({ writer, prefix, pool, criu: [4, 2, 1], mayConnect: (inode) => treeHoldsSocket(process.pid, inode), signal });
      await container.checkpoint(images, work, ['--page-server', server.address]);
      const received = await server.received;
      assert.ok(!readdirSync(images).some((name) => name.startsWith('pages-')));
      const summary = await saveImages(writer, prefix, images, { signal, received });
      assert.equal(summary.processes, 2);
      assert.ok(summary.pagesBytes > 9 * MiB && summary.lazyPages > 0);
      assert.ok((summary.report?.memory.sharedBytes ?? 0) >= MiB);
      assert.equal(summary.report?.processes[0]?.comm, 'python3');
      assert.ok((await readDumpStats(work))?.pagesWritten === summary.pages);
      const { bytes } = await writer.commit({ summary }, { signal });
      // The second time the random memory is found again, though it came in another image.
      if (cycle === 1) assert.ok(bytes.reused > 9 * MiB && bytes.stored < 4 * MiB, JSON.stringify(bytes));
      await container.kill();
      await bringBack(container, await repository.open(writer.id, { signal }));
    }
    await repository.close();
    await store.close();
  });

  void it('goes on from its directory dump', async () => {
    await using container = await RuncContainer.start('img-dir', ['/usr/bin/python3', '-c', program]);
    await container.nextLine();
    const [images, work] = [fresh('images'), fresh('work')];
    await container.checkpoint(images, work);
    const writer = new MemoryWriter();
    const summary = await saveImages(writer, prefix, images, { signal });
    assert.equal(summary.files, readdirSync(images).length);
    assert.ok(summary.pagesBytes > 9 * MiB);
    await container.kill();
    await bringBack(container, await writer.reader());
  });

  void it('goes on when the page server fails in the middle of the dump', async () => {
    await using container = await RuncContainer.start('img-fail', ['/usr/bin/python3', '-c', program]);
    await container.nextLine();
    const [images, work] = [fresh('images'), fresh('work')];
    mkdirSync(images, { recursive: true });
    const writer = new MemoryWriter();
    writer.onTake = async () => Promise.reject(new Error('disk full'));
    const pool = await SlabPool.create(16 * MiB, { signal });
    await using server = await startPageServer({ writer, prefix, pool, criu: [4, 2, 1], mayConnect: (inode) => treeHoldsSocket(process.pid, inode), signal });
    await assert.rejects(container.checkpoint(images, work, ['--page-server', server.address]));
    await assert.rejects(server.received, /disk full/);
    numberOf(await container.nextLine());
  });
});
