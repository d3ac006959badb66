import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { isStasisError } from '../../../src/core/errors.ts';
import { EntrySplitter, imageEntries, imageHeader, imageMagics } from '../../../src/image/criu/framing.ts';
import type { ImageKind } from '../../../src/image/criu/framing.ts';
import { PE_LAZY, PE_PRESENT, PagemapReader, parsePagemapName } from '../../../src/image/criu/pagemap.ts';
import type { PageRun } from '../../../src/image/criu/pagemap.ts';
import { decodeCore, decodeCpu, decodeInventory, decodeMappings, decodeTreeEntry } from '../../../src/image/criu/records.ts';
import { decodeInetSocket } from '../../../src/image/criu/sockets.ts';
import { decodeStats } from '../../../src/image/criu/stats.ts';
import { WireReader, WireWriter } from '../../../src/image/criu/wire.ts';
import { pagemap } from '../../support/criu-images.ts';

const kinds = Object.keys(imageMagics) as ImageKind[];

/** Arbitrary bytes may be refused, but only in the vocabulary of errors, and nothing else may happen. */
function survives(parse: () => unknown): void {
  try {
    parse();
  } catch (error) {
    assert.ok(isStasisError(error, 'OBJECT_CORRUPT') || isStasisError(error, 'LIMIT_EXCEEDED'), String(error));
  }
}

void test('numbers come back as they were written', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 500_000 }), fc.maxSafeNat(), fc.uint8Array(), (field, number, bytes) => {
      const reader = new WireReader(new WireWriter().uint(field, number).bytes(field, bytes).result(), 'x');
      assert.ok(reader.next());
      assert.equal(reader.field, field);
      assert.equal(reader.uint(), number);
      assert.ok(reader.next());
      assert.deepEqual([...reader.bytes()], [...bytes]);
      assert.ok(!reader.next());
    }),
  );
});

void test('negative and 64-bit numbers', () => {
  const minusOne = Buffer.from('08ffffffffffffffffff01', 'hex');
  const reader = new WireReader(minusOne, 'x');
  assert.ok(reader.next());
  assert.equal(reader.int(), -1);
  assert.equal(reader.uint64(), 2n ** 64n - 1n);
  assert.throws(() => reader.uint(), { code: 'OBJECT_CORRUPT' });
  // The vsyscall page, beyond 2^53 and still exact.
  const vsyscall = new WireReader(Buffer.from('08808080ffffffffffff01', 'hex'), 'x');
  assert.ok(vsyscall.next());
  assert.equal(BigInt(vsyscall.address()), vsyscall.uint64());
});

void test('an overlong or overflowing number is refused', () => {
  for (const bytes of ['08ffffffffffffffffffff01', '08ffffffffffffffffff7f', '08ff', '0a05aa', '0b', '00']) {
    assert.throws(() => new WireReader(Buffer.from(bytes, 'hex'), 'x').next(), { code: 'OBJECT_CORRUPT' }, bytes);
  }
});

void test('arbitrary bytes never do more than throw OBJECT_CORRUPT or LIMIT_EXCEEDED', () => {
  const decoders: ((message: Uint8Array) => unknown)[] = [
    decodeInventory, decodeTreeEntry, (m) => decodeCore(m, 'core'), (m) => decodeMappings(m, 'mm'), decodeCpu, decodeInetSocket,
  ];
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      for (const decode of decoders) survives(() => decode(bytes));
      for (const kind of kinds) {
        survives(() => [...imageEntries(bytes, kind, 'x')]);
        survives(() => [...imageEntries(Buffer.concat([imageHeader(kind), bytes]), kind, 'x')]);
      }
      survives(() => decodeStats(Buffer.concat([imageHeader('stats'), bytes]), 1));
      survives(() => [...new PagemapReader('x').push(Buffer.concat([imageHeader('pagemap'), bytes]))]);
    }),
    { numRuns: 2000 },
  );
});

const run = fc.record(
  {
    address: fc.integer({ min: 0, max: 2 ** 44 }).map((page) => page * 4096),
    pages: fc.integer({ min: 1, max: 2 ** 30 }),
    flags: fc.constantFrom(PE_PRESENT, PE_PRESENT | PE_LAZY),
  },
  { noNullPrototype: true },
);

void test('a pagemap is read in any portions', () => {
  fc.assert(
    fc.property(fc.array(run, { maxLength: 40 }), fc.integer({ min: 1, max: 2 ** 31 }), fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 }), (runs, id, portions) => {
      const bytes = pagemap(id, runs);
      const reader = new PagemapReader('x');
      const seen: PageRun[] = [];
      for (let at = 0, i = 0; at < bytes.length; i++) {
        const portion = portions[i % portions.length] ?? 1;
        seen.push(...reader.push(bytes.subarray(at, at + portion)));
        at += portion;
      }
      reader.end();
      assert.equal(reader.pagesId, id);
      assert.deepEqual(seen, runs);
    }),
  );
});

void test('a pagemap that stops anywhere but behind a message is refused', () => {
  const head = pagemap(1, []).length;
  const bytes = pagemap(1, [{ address: 4096, pages: 3, flags: 6 }]);
  for (let length = 0; length <= bytes.length; length++) {
    const read = (): void => {
      const reader = new PagemapReader('x');
      void [...reader.push(bytes.subarray(0, length))];
      reader.end();
    };
    if (length === head || length === bytes.length) read();
    else assert.throws(read, { code: 'OBJECT_CORRUPT' }, `length ${length}`);
  }
});

void test('a message that claims gigabytes is refused before it is waited for', () => {
  const bytes = Buffer.concat([imageHeader('mm'), Buffer.from('ffffff7f', 'hex')]);
  assert.throws(() => [...new EntrySplitter('mm', 'mm').push(bytes)], { code: 'LIMIT_EXCEEDED' });
});

void test('runs that cannot be are refused: none, unaligned, beyond the address space', () => {
  for (const message of [new WireWriter().uint(1, 4096).uint(5, 0), new WireWriter().uint(1, 4097).uint(5, 1), new WireWriter().uint(1, 2 ** 57).uint(5, 1), new WireWriter().uint(5, 1)]) {
    const bytes = Buffer.concat([pagemap(1, []), Buffer.from(Uint32Array.of(message.result().length).buffer), message.result()]);
    assert.throws(() => [...new PagemapReader('x').push(bytes)], { code: 'OBJECT_CORRUPT' });
  }
});

void test('names of pagemaps', () => {
  assert.deepEqual(parsePagemapName('pagemap-12.img'), { kind: 'task', id: 12 });
  assert.deepEqual(parsePagemapName('pagemap-shmem-3.img'), { kind: 'shmem', id: 3 });
  for (const name of ['pagemap-.img', 'pagemap-1.img.x', 'xpagemap-1.img', 'pages-1.img']) assert.equal(parsePagemapName(name), undefined);
});
