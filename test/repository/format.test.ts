import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { isStasisError } from '../../src/core/errors.ts';
import { decodeBody, encodeBody, isBlobName } from '../../src/repository/format/body.ts';
import type { Tables } from '../../src/repository/format/body.ts';
import { ByteReader, ByteWriter } from '../../src/repository/format/bytes.ts';
import { ChunkTable } from '../../src/repository/format/chunk-table.ts';
import { SegmentList, ZERO } from '../../src/repository/format/segments.ts';
import { stripZeroPages } from '../../src/repository/stage/zero-runs.ts';
import { systemZstd } from '../../src/host/zstd.ts';
import { Compressor, decompressInto, nodeZstd } from '../../src/repository/stage/compress.ts';
import { codeOf } from './support.ts';

const summary = { bytes: { raw: 1, zero: 2, reused: 3, stored: 4 }, description: { a: ['b', 1] } };

/** Tables of any shape that the format allows. */
const tablesArbitrary: fc.Arbitrary<Tables> = fc
  .record({
    packs: fc.array(fc.array(fc.record({ raw: fc.integer({ min: 1, max: 4 << 20 }), gap: fc.nat(1000), save: fc.nat(3) }), { minLength: 1, maxLength: 5 }), { maxLength: 4 }),
    blobs: fc.dictionary(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 30 }).filter(isBlobName), fc.array(fc.record({ zero: fc.boolean(), chunk: fc.nat(), from: fc.nat(), length: fc.integer({ min: 1, max: 1 << 21 }) }), { maxLength: 20 }), { maxKeys: 6 }),
  })
  .map(({ packs, blobs }) => {
    const chunks = new ChunkTable(1);
    const refs = packs.map((list, pack) => {
      let end = 64;
      for (const { raw, gap, save } of list) {
        const codec = save > 0 && raw > 10 ? 1 : 0;
        const stored = 40 + (codec === 1 ? raw - save : raw);
        chunks.add(randomBytes(32), { pack, offset: end + gap, stored, raw, codec });
        end += gap + stored;
      }
      return { checkpoint: '0123456789abcdefghjk', digits: randomBytes(8).toString('hex'), size: end };
    });
    const lists = Object.entries(blobs).map(([name, segments]) => {
      const list = new SegmentList();
      for (const segment of segments) {
        if (segment.zero || chunks.count === 0) {
          list.zeros(segment.length);
        } else {
          const chunk = segment.chunk % chunks.count;
          const { raw } = chunks.place(chunk);
          const offset = segment.from % raw;
          list.data(chunk, offset, Math.min(segment.length, raw - offset));
        }
      }
      return [name, list] as const;
    });
    return { packs: refs, chunks, blobs: new Map(lists) };
  });

void test('numbers come back, and only in one form', () => {
  fc.assert(
    fc.property(fc.array(fc.maxSafeNat()), (values) => {
      const writer = new ByteWriter();
      values.forEach((value) => writer.varint(value));
      const reader = new ByteReader(writer.finish(), 'x');
      assert.deepEqual(values.map(() => reader.varint()), values);
      reader.end();
    }),
  );
  const read = (...bytes: number[]): string => {
    try {
      return String(new ByteReader(Buffer.from(bytes), 'x').varint());
    } catch (error) {
      return codeOf(error);
    }
  };
  assert.equal(read(0x80, 0x00), 'OBJECT_CORRUPT', 'a longer zero');
  assert.equal(read(0xff), 'OBJECT_CORRUPT', 'cut');
  assert.equal(read(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f), String(2 ** 53 - 1));
  assert.equal(read(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f), 'OBJECT_CORRUPT', 'beyond 2^53');
  assert.equal(read(...Array<number>(20).fill(0xff)), 'OBJECT_CORRUPT');
});

void test('a body comes back as it was written, byte for byte', () => {
  fc.assert(
    fc.property(tablesArbitrary, (tables) => {
      const body = encodeBody(summary, tables);
      const again = decodeBody(body, 1, 'x');
      assert.deepEqual(again.summary, summary);
      assert.deepEqual(again.tables.packs, tables.packs);
      assert.deepEqual([...again.tables.blobs.keys()], [...tables.blobs.keys()]);
      assert.ok(encodeBody(again.summary, again.tables).equals(body));
    }),
    { numRuns: 300 },
  );
});

void test('a body that was changed is refused or means exactly what its bytes say', () => {
  fc.assert(
    fc.property(tablesArbitrary, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }), fc.option(fc.nat()), (tables, changes, cut) => {
      let body = Buffer.from(encodeBody(summary, tables));
      for (const [at, value] of changes) body[at % body.length] = value;
      if (cut !== null) body = body.subarray(0, cut % (body.length + 1));
      try {
        const read = decodeBody(body, 1, 'x');
        // The JSON may have been written with other spacing; all else has one form only.
        const jsonEnd = (bytes: Buffer): number => bytes.length - encodeTables(read.tables).length;
        assert.ok(encodeBody(read.summary, read.tables).subarray(jsonEnd(encodeBody(read.summary, read.tables))).equals(body.subarray(jsonEnd(body))));
      } catch (error) {
        assert.ok(isStasisError(error), String(error));
        assert.ok(['OBJECT_CORRUPT', 'LIMIT_EXCEEDED', 'FORMAT_UNSUPPORTED'].includes(error.code));
      }
    }),
    { numRuns: 3000 },
  );
});

function encodeTables(tables: Tables): Buffer {
  const empty = encodeBody(summary, { packs: [], chunks: new ChunkTable(1), blobs: new Map() }).length - 3;
  return encodeBody(summary, tables).subarray(empty);
}

void test('declared sizes are not believed', () => {
  const bomb = (build: (writer: ByteWriter) => void): string => {
    const writer = new ByteWriter();
    const json = Buffer.from(JSON.stringify(summary));
    writer.varint(json.length);
    writer.bytes(json);
    build(writer);
    try {
      decodeBody(writer.finish(), 1, 'x');
      return 'none';
    } catch (error) {
      return codeOf(error);
    }
  };
  assert.equal(bomb((writer) => writer.varint(2 ** 40)), 'LIMIT_EXCEEDED');
  assert.equal(bomb((writer) => [0, 2 ** 30].forEach((value) => writer.varint(value))), 'LIMIT_EXCEEDED');
  assert.equal(bomb((writer) => [0, 0, 2 ** 30].forEach((value) => writer.varint(value))), 'LIMIT_EXCEEDED');
  const before = process.memoryUsage().arrayBuffers;
  assert.equal(bomb((writer) => [0, 1 << 20].forEach((value) => writer.varint(value))), 'OBJECT_CORRUPT');
  assert.ok(process.memoryUsage().arrayBuffers - before < 10 << 20, 'a million chunks that are not there take no memory');
});

void test('two blobs of one name, chunks outside packs, segments outside chunks', () => {
  const list = new SegmentList();
  list.zeros(5);
  const chunks = new ChunkTable(1);
  chunks.add(randomBytes(32), { pack: 0, offset: 64, stored: 140, raw: 100, codec: 0 });
  const good = { packs: [{ checkpoint: '0123456789abcdefghjk', digits: '0011223344556677', size: 204 }], chunks, blobs: new Map([['a', list]]) };
  const code = (tables: Tables): string => {
    try {
      decodeBody(encodeBody(summary, tables), 1, 'x');
      return 'none';
    } catch (error) {
      return codeOf(error);
    }
  };
  assert.equal(code(good), 'none');
  const outside = new SegmentList();
  outside.data(0, 90, 11);
  assert.equal(code({ ...good, blobs: new Map([['a', outside]]) }), 'OBJECT_CORRUPT');
  const missing = new SegmentList();
  missing.data(1, 0, 1);
  assert.equal(code({ ...good, blobs: new Map([['a', missing]]) }), 'OBJECT_CORRUPT');
  const [pack] = good.packs;
  assert.ok(pack);
  assert.equal(code({ ...good, packs: [{ ...pack, size: 203 }] }), 'OBJECT_CORRUPT');
  assert.equal(code({ ...good, packs: [] }), 'OBJECT_CORRUPT');
  assert.equal(code({ ...good, packs: [pack, pack] }), 'OBJECT_CORRUPT');
  assert.equal(code({ ...good, packs: [{ ...pack, checkpoint: '../../../../etc/pass' }] }), 'OBJECT_CORRUPT');
});

void test('segments: what was added is found at every byte', () => {
  fc.assert(
    fc.property(fc.array(fc.record({ zero: fc.boolean(), length: fc.nat(5) }), { maxLength: 60 }), (runs) => {
      const list = new SegmentList();
      const expected: (number | 'zero')[] = [];
      let at = 0;
      for (const { zero, length } of runs) {
        if (zero) list.zeros(length);
        else list.data(9, at, length);
        for (let i = 0; i < length; i += 1) expected.push(zero ? 'zero' : at + i);
        if (!zero) at += length;
      }
      assert.equal(list.length, expected.length);
      expected.forEach((value, i) => {
        const found = list.find(i);
        const seen = list.chunk(found) === ZERO ? 'zero' : list.chunkOffset(found) + i - list.start(found);
        assert.equal(seen, value);
      });
    }),
  );
});

void test('zero pages are taken out, and put back they give the same bytes', () => {
  fc.assert(
    fc.property(fc.array(fc.boolean(), { maxLength: 20 }), fc.nat(4095), fc.boolean(), (pages, tail, tailZero) => {
      const parts = pages.map((zero) => (zero ? Buffer.alloc(4096) : Buffer.concat([Buffer.alloc(4000), randomBytes(95), Buffer.of(1)])));
      const original = Buffer.concat([...parts, tailZero ? Buffer.alloc(tail) : Buffer.alloc(tail, 3)]);
      const buffer = Buffer.from(original);
      const { kept, runs } = stripZeroPages(buffer, buffer.length);
      const rebuilt: Buffer[] = [];
      let at = 0;
      runs.forEach((length, i) => {
        rebuilt.push(i % 2 === 1 ? Buffer.alloc(length) : buffer.subarray(at, at + length));
        if (i % 2 === 0) at += length;
      });
      assert.equal(at, kept);
      assert.ok(Buffer.concat(rebuilt).equals(original));
      const nonZero = pages.filter((zero) => !zero).length * 4096 + (tailZero ? 0 : tail);
      assert.equal(kept, nonZero);
    }),
  );
});

for (const [name, zstd] of [['system', systemZstd], ['node', nodeZstd]] as const) {
  void test(`compression by ${name}: only where it pays, exactly back, never more than declared`, () => {
    assert.ok(zstd !== undefined, 'the box has libzstd');
    const compressor = new Compressor(zstd);
    const expanded = (payload: Uint8Array, length: number): Buffer | undefined => {
      const out = Buffer.alloc(length);
      return decompressInto(out, payload, zstd) ? out : undefined;
    };
    const text = Buffer.from('all work and no play '.repeat(20_000));
    const packed = compressor.compress(text);
    assert.equal(packed.codec, 1);
    assert.ok(packed.payload.length < text.length / 50);
    const payload = Buffer.from(packed.payload);
    assert.ok(expanded(payload, text.length)?.equals(text));
    assert.equal(expanded(payload, text.length - 1), undefined, 'a bomb stops at what was declared');
    assert.equal(expanded(payload, text.length + 1), undefined);
    assert.equal(expanded(payload.subarray(0, -3), text.length), undefined);
    assert.equal(expanded(randomBytes(100), 100), undefined);
    assert.equal(expanded(Buffer.alloc(0), 1), undefined);
    for (const length of [1, 100, 65_535, 65_536, 1 << 20]) {
      const noise = randomBytes(length);
      assert.deepEqual(compressor.compress(noise), { codec: 0, payload: noise });
    }
    // Half of it pays, wherever the half is.
    const mixed = Buffer.concat([randomBytes(1 << 19), Buffer.alloc(1 << 19, 'abc')]);
    assert.equal(compressor.compress(mixed).codec, 1);
  });
}

void test('what one zstd writes the other reads', () => {
  assert.ok(systemZstd !== undefined);
  fc.assert(fc.property(fc.uint8Array({ maxLength: 3000 }), fc.nat({ max: 40 }), (bytes, times) => {
    const data = Buffer.concat(Array.from({ length: times + 1 }, () => bytes));
    for (const [from, to] of [[systemZstd, nodeZstd], [nodeZstd, systemZstd]] as const) {
      const out = Buffer.alloc(data.length);
      assert.ok(decompressInto(out, new Compressor(from).always(data), to));
      assert.ok(out.equals(data));
    }
  }));
});
