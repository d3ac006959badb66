/** Names and targets of links in an archive are bounded by their bytes together: a few MB of gzip would unfold to gigabytes. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { after, describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { isStasisError } from '../../src/core/errors.ts';
import { receiveArchive } from '../../src/image/archive/index.ts';
import { end, member } from '../support/archives.ts';
import { MemoryWriter } from '../support/memory-repository.ts';

const imageDir = mkdtempSync('/tmp/archive-names-');
after(() => rmSync(imageDir, { recursive: true }));

const LONG = Array.from({ length: 15 }, () => 'x'.repeat(255)).join('/');
const COUNT = 200_000;
/** Of the whole process, with what it has not collected yet. All of the archive would take more than twice as much. */
const MAX_GROWTH = 1024 ** 3;

async function receive(bytes: AsyncIterable<Buffer>): Promise<string> {
  const before = process.memoryUsage().rss;
  const code = await receiveArchive(bytes, { writer: new MemoryWriter(), imageDir, rootfs: 'r/', shm: 's/', reserve: async () => {}, onBytes: () => {}, signal: undefined }).then(() => 'received', (error: unknown) => (isStasisError(error) ? error.code : String(error)));
  assert.ok(process.memoryUsage().rss - before < MAX_GROWTH, `${process.memoryUsage().rss - before} bytes more`);
  return code;
}

async function* members(one: (i: number) => Buffer, before: readonly Buffer[] = []): AsyncGenerator<Buffer> {
  yield* before;
  for (let i = 0; i < COUNT; i += 1) {
    yield one(i);
    if (i % 1000 === 0) await setImmediate();
  }
  yield end;
}

const long = (path: string): Buffer => member({ name: 'x', pax: { path } });

void describe('names in an archive', () => {
  void it('members that are not known', async () => {
    assert.equal(await receive(members((i) => long(`${i}/${LONG}`))), 'LIMIT_EXCEEDED');
  });

  void it('targets of links in the root file system', async () => {
    const link = (i: number): Buffer => member({ name: `l${String(i).padStart(8, '0')}`, type: '2', pax: { linkpath: `${String(i).padStart(8, '0')}${'y'.repeat(4000)}` } });
    const size = COUNT * link(0).length + end.length;
    const head = member({ name: 'rootfs-diff.tar', size }).subarray(0, 512);
    assert.equal(await receive(members(link, [head])), 'LIMIT_EXCEEDED');
  });
});
