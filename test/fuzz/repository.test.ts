/** Formats of the repository, whose bytes a store may have changed, and the key file. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe } from 'node:test';
import type { CheckpointId, LineageId } from '../../src/core/ids.ts';
import { systemZstd } from '../../src/host/zstd.ts';
import { PAGED } from '../../src/repository/format/algorithms.ts';
import { decodeBody, decodeSummary, encodeBody } from '../../src/repository/format/body.ts';
import { ChunkTable } from '../../src/repository/format/chunk-table.ts';
import { decodeLineageKey, encodeLineageKey } from '../../src/repository/format/lineage-key.ts';
import { encodeManifestHeader, manifestLineage, splitManifest } from '../../src/repository/format/manifest.ts';
import { checkpointOfManifest, checkpointOfPack, isObjectName, markName, parseMarkName } from '../../src/repository/format/names.ts';
import { checkPackHeader, encodePackHeader, packLineage } from '../../src/repository/format/pack.ts';
import { SegmentList } from '../../src/repository/format/segments.ts';
import { nativeSodium } from '../../src/repository/crypto/native.ts';
import { fileKeyProvider, MemoryStore } from '../../src/repository/index.ts';
import { Marks } from '../../src/repository/marks.ts';
import { encodeRecord, readRecords } from '../../src/repository/page-records.ts';
import { readPins, writePin } from '../../src/repository/pins.ts';
import { Compressor, decompressInto, nodeZstd } from '../../src/repository/stage/compress.ts';
import { anySignal } from '../repository/support.ts';
import { fuzz } from './fuzz.ts';

const ID = '0123456789abcdefghjk' as CheckpointId;
const LINEAGE = '0123456789abcdef0123456789abcdef' as LineageId;
const damaged = ['OBJECT_CORRUPT', 'FORMAT_UNSUPPORTED', 'LIMIT_EXCEEDED'];

const chunks = new ChunkTable(4);
const ids = Array.from({ length: 3 }, () => randomBytes(32));
ids.forEach((id, i) => chunks.add(id, { pack: i === 2 ? 1 : 0, offset: i === 1 ? 64 + 140 : 64, stored: 140, raw: 100, codec: i === 0 ? PAGED : 0 }));
const segments = new SegmentList();
segments.data(0, 10, 80);
segments.zeros(4096);
segments.data(2, 0, 100);
const tables = { packs: [{ checkpoint: ID, digits: '0123456789abcdef', size: 500 }, { checkpoint: ID, digits: '123456789abcdef0', size: 400 }], chunks, blobs: new Map([['memory', segments], ['a.img', segments]]) };
const body = encodeBody({ bytes: { raw: 1, zero: 2, reused: 3, stored: 4 }, description: { a: ['b', { c: 1 }], text: 'x'.repeat(50) } }, tables);
const sealed = randomBytes(200);
const manifest = Buffer.concat([encodeManifestHeader({ checkpoint: ID, lineage: LINEAGE, cipher: 1, epoch: 1, createdMs: 1, signer: randomBytes(32), sealedLength: sealed.length, bodyLength: body.length }), sealed, randomBytes(64)]);
const lineage = Buffer.concat([encodeLineageKey({ lineage: LINEAGE, epoch: 2, signer: randomBytes(32), check: randomBytes(32), recipients: [{ recipient: randomBytes(32), sealed: randomBytes(80) }, { recipient: randomBytes(32), sealed: randomBytes(80) }] }), randomBytes(64)]);
const identity = { lineage: LINEAGE, checkpoint: ID, cipher: 1 as const, digits: '0123456789abcdef' };

const directory = mkdtempSync('/tmp/fuzz-');
after(() => rmSync(directory, { recursive: true }));

void describe('formats of the repository', () => {
  fuzz('manifest', { good: [manifest], codes: damaged, parse: (bytes) => [splitManifest(bytes, ID, 'x'), manifestLineage(bytes, 'x')] });
  fuzz('body of a manifest', { good: [body], codes: damaged, parse: (bytes) => [decodeSummary(bytes, 'x'), decodeBody(bytes, 1, 'x')] });
  for (const [library, zstd] of [['of the system', systemZstd], ['of Node', nodeZstd]] as const) {
    fuzz(`zstd ${library}`, {
      good: [Buffer.from(new Compressor().always(body)), Buffer.from(new Compressor().always(randomBytes(5000)))], codes: [],
      parse: (bytes, random) => decompressInto(Buffer.alloc(random(2) === 0 ? body.length : random(20_000)), bytes, zstd ?? nodeZstd),
    });
  }
  fuzz('pack header', { good: [encodePackHeader(identity)], codes: damaged, parse: (bytes) => [packLineage(bytes, 'x'), checkPackHeader(bytes, identity, 'x')] });
  fuzz('lineage object', { good: [lineage], codes: damaged, parse: (bytes) => decodeLineageKey(bytes, LINEAGE, 'x') });
  fuzz('page records', {
    good: [Buffer.concat(ids.map((id) => encodeRecord(id, randomBytes(32))))], codes: [],
    parse: (bytes) => {
      const shared = new SharedArrayBuffer(Math.ceil(bytes.length / 4) * 4);
      bytes.copy(new Uint8Array(shared));
      return readRecords(shared, tables, randomBytes(32), Int32Array.of(0, 1, 2));
    },
  });
  fuzz('names of objects', {
    good: [`manifests/${ID}`, markName(LINEAGE, ID, 'read'), `packs/${ID}-0123456789abcdef`, `writers/${LINEAGE}-${ID}.sweep.fenced`].map((name) => Buffer.from(name)), codes: ['USAGE'],
    parse: (bytes) => { const name = bytes.toString('latin1'); isObjectName(name); parseMarkName(name); checkpointOfPack(name); if (name.startsWith('manifests/')) checkpointOfManifest(name); },
  });
  fuzz('marks', {
    good: [Buffer.from(`writers/${LINEAGE}-${ID}.read`)], codes: [],
    parse: async (bytes) => { const store = new MemoryStore(); if (isObjectName(bytes.toString('latin1'))) store.objects.set(bytes.toString('latin1'), Buffer.from(bytes)); await new Marks(store).list(undefined, anySignal); },
  });
  fuzz('pins', {
    good: async () => { const store = new MemoryStore(); await writePin(store, { checkpoint: ID, by: 'me', reason: 'why', atMs: 5 }, anySignal); return [...store.objects.values()].map((bytes) => Buffer.from(bytes)); }, codes: [],
    parse: async (bytes) => { const store = new MemoryStore(); store.objects.set(`pins/${ID}`, bytes); await readPins(store, anySignal); },
  });
  fuzz('sealed chunk', {
    good: [nativeSodiumSealed()], codes: [],
    parse: (bytes) => nativeSodium.open(Buffer.alloc(Math.max(0, bytes.length - 40)), bytes, Buffer.from('aad'), Buffer.alloc(32, 7)),
  });
  fuzz('key file', {
    good: async () => { await fileKeyProvider(join(directory, 'good')); return [readFileSync(join(directory, 'good'))]; }, codes: ['KEY_WRONG'],
    parse: (bytes) => { writeFileSync(join(directory, 'key'), bytes, { mode: 0o600 }); return fileKeyProvider(join(directory, 'key'), { create: false }); },
  });
});

function nativeSodiumSealed(): Buffer {
  const sealedChunk = Buffer.alloc(140);
  nativeSodium.seal(sealedChunk, randomBytes(24), Buffer.alloc(100, 'x'), Buffer.from('aad'), Buffer.alloc(32, 7));
  return sealedChunk;
}
