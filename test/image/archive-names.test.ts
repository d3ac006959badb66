/** Names and targets of links in an archive are bounded by their bytes together: a few MB of gzip would unfold to gigabytes. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { after, describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { isStasisError } from '../../src/core/errors.ts';
import { receiveArchive } from '../../src/image/archive/index.ts';
import { end, goodMembers, member } from '../support/archives.ts';
import { MemoryWriter } from '../support/memory-repository.ts';

const imageDir = mkdtempSync('/tmp/archive-names-');
after(() => rmSync(imageDir, { recursive: true }));

const NUMBER = '00000000';
/** 3.8 KiB. */
const LONG = Array.from({ length: 15 }, () => 'x'.repeat(255)).join('/');
/** More members than fit, of names or targets this long. */
const COUNT = 200_000;
/** Of the whole process, with what it has not collected yet: the limit of 64 MiB, once more while the index is made of it, and the garbage of reading. */
const MAX_GROWTH = 400e6;
/** The limit of 64 MiB, and what is kept beside the bytes. */
const MAX_KEPT = 100e6;
/** Names this short take 20 MB with everything about them; the paths that led to them would take five times as much. */
const SHORT = 25_000;
const MAX_KEPT_SHORT = 60e6;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

function kept(): number {
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

interface Outcome {
  readonly code: string;
  /** Bytes that the process has more at the end, and the most that it had in use after a collection. */
  readonly growth: number;
  readonly kept: number;
}

async function receive(bytes: AsyncIterable<Buffer>): Promise<Outcome> {
  rmSync(imageDir, { recursive: true, force: true });
  mkdirSync(imageDir);
  const before = process.memoryUsage().rss;
  let most = 0;
  async function* watched(): AsyncGenerator<Buffer> {
    let count = 0;
    for await (const part of bytes) {
      yield part;
      if ((count += 1) % 4000 !== 0) continue;
      await setImmediate();
      most = Math.max(most, kept());
    }
  }
  const options = { writer: new MemoryWriter(), imageDir, rootfs: 'r/', shm: 's/', reserve: async () => {}, onBytes: () => {}, signal: undefined };
  const code = await receiveArchive(watched(), options).then(() => 'received', (error: unknown) => (isStasisError(error) ? error.code : String(error)));
  return { code, growth: process.memoryUsage().rss - before, kept: most };
}

/** A member with a pax header again and again, each time with another number in the place of NUMBER. */
function* numbered(one: Buffer, count: number): Generator<Buffer> {
  const header = one.length - 512;
  const places: number[] = [];
  for (let at = one.indexOf(NUMBER, 512); at >= 0 && at < header; at = one.indexOf(NUMBER, at + NUMBER.length)) places.push(at);
  // The header has a name of its own where pax does not give one.
  if (one.toString('latin1', header + 1, header + 1 + NUMBER.length) === NUMBER) places.push(header + 1);
  for (let i = 0; i < count; i += 1) {
    const copy = Buffer.from(one);
    for (const at of places) copy.write(String(i).padStart(NUMBER.length, '0'), at, 'latin1');
    copy.fill(' ', header + 148, header + 156);
    let sum = 0;
    for (let at = header; at < copy.length; at += 1) sum += copy[at] ?? 0;
    copy.write(`${sum.toString(8).padStart(6, '0')}\0 `, header + 148, 'latin1');
    yield copy;
  }
  yield end;
}

async function* members(one: Buffer): AsyncGenerator<Buffer> {
  yield* numbered(one, COUNT);
}

async function* rootfs(one: Buffer, count: number): AsyncGenerator<Buffer> {
  yield* [...goodMembers().values(), member({ name: 'rootfs-diff.tar', size: one.length * count + end.length }).subarray(0, 512)];
  yield* numbered(one, count);
  yield end;
}

const named = (path: string, pax: Readonly<Record<string, string>> = {}): Buffer => member({ name: 'x', type: '6', pax: { path, ...pax } });
const file = (path: string): Buffer => member({ name: 'x', pax: { path } });
const link = member({ name: `l${NUMBER}`, type: '2', pax: { linkpath: `${NUMBER}${'y'.repeat(4000)}` } });

const cases: Readonly<Record<string, readonly [bytes: () => AsyncIterable<Buffer>, code: string, most: number]>> = {
  'members that are not known': [() => members(file(`${NUMBER}/${LONG}`)), 'LIMIT_EXCEEDED', MAX_KEPT_SHORT],
  'members in the directory of artifacts': [() => members(file(`artifacts/${NUMBER}/${LONG}`)), 'LIMIT_EXCEEDED', MAX_KEPT],
  'targets of links in the root file system': [() => rootfs(link, COUNT), 'LIMIT_EXCEEDED', MAX_KEPT],
  'targets of links, nearly as many as there may be': [() => rootfs(link, 16_000), 'received', MAX_KEPT],
  'short names deep in the root file system': [() => rootfs(named(`${LONG}/a-name-${NUMBER}`), SHORT), 'received', MAX_KEPT_SHORT],
  'short attributes of members with long names': [() => rootfs(named(`${LONG}/a-name-${NUMBER}`, { 'SCHILY.xattr.user.n': NUMBER }), SHORT), 'received', MAX_KEPT_SHORT],
};

void describe('names in an archive', () => {
  for (const [what, [bytes, code, most]] of Object.entries(cases)) {
    void it(what, async () => {
      const outcome = await receive(bytes());
      assert.equal(outcome.code, code);
      assert.ok(outcome.kept < most, `${outcome.kept} bytes were kept`);
      assert.ok(outcome.growth < MAX_GROWTH, `${outcome.growth} bytes more`);
    });
  }
});
