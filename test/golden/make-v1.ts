/**
 * Made the repositories of test/golden/v1, once. They are never made again: a reader that cannot read them any
 * more has broken the format, and that is what they are for. Kept to show how the broken ones were broken.
 *
 *   node make-v1.js DIRECTORY
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { nativeSodium } from '../../src/repository/crypto/native.ts';
import { deriveLineageKeys } from '../../src/repository/crypto/lineage-keys.ts';
import { encodeLineageKey } from '../../src/repository/format/lineage-key.ts';
import { MANIFEST_HEADER_BYTES } from '../../src/repository/format/manifest.ts';
import { MemoryStore } from '../../src/repository/index.ts';
import type { CheckpointSummary, KeyProvider } from '../../src/repository/index.ts';
import { Compressor, decompressInto } from '../../src/repository/stage/compress.ts';
import { anySignal, nextId, piecesOf, testKeys, withRepository } from '../repository/support.ts';
import { HOLE, memoryOf, smallBlobs } from './contents.ts';

const seeds = { own: randomBytes(32), other: randomBytes(32) };
const keys = testKeys(seeds.own);
const foreign = testKeys(seeds.other);
const directory = process.argv[2] ?? '.';

type Objects = Map<string, Buffer>;

async function saveGolden(store: MemoryStore, provider: KeyProvider, generation: number, cipher: string, lineage?: CheckpointSummary['lineage']): Promise<CheckpointSummary> {
  return withRepository({ store, keys: provider }, async (repository) => {
    const writer = await repository.begin({ id: nextId(), lineage, cipher }, anySignal);
    await writer.append('memory', piecesOf(memoryOf(generation), 8192), anySignal);
    writer.appendZeros('memory', HOLE);
    for (const [name, bytes] of Object.entries(smallBlobs)) await writer.putSmall(name, bytes, anySignal);
    return writer.commit({ generation }, anySignal);
  });
}

function emit(name: string, objects: ReadonlyMap<string, Buffer>): void {
  for (const [object, content] of objects) {
    const path = join(directory, name, object);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
  }
}

function changed(objects: ReadonlyMap<string, Buffer>, change: (copy: Objects) => void): Objects {
  const copy = new Map([...objects].map(([name, content]) => [name, Buffer.from(content)]));
  change(copy);
  return copy;
}

const of = (objects: ReadonlyMap<string, Buffer>, folder: string): [string, Buffer] => [...objects].find(([name]) => name.startsWith(`${folder}/`)) ?? ['', Buffer.alloc(0)];

async function resigned(unsigned: Buffer): Promise<Buffer> {
  return Buffer.concat([unsigned, await keys.sign(unsigned)]);
}

async function dataKeyOf(lineageKey: Buffer): Promise<Uint8Array> {
  const key = await keys.unwrap([{ recipient: lineageKey.subarray(96, 128), sealed: lineageKey.subarray(128, 208) }]);
  if (key === undefined) throw new Error('not ours');
  return key;
}

async function main(): Promise<void> {
  const plain = new MemoryStore();
  const first = await saveGolden(plain, keys, 1, 'xchacha20-poly1305');
  const good = new Map(plain.objects);
  emit('good-one', good);
  const unsealed = new MemoryStore();
  await saveGolden(unsealed, keys, 1, 'null');
  emit('good-null-cipher', unsealed.objects);
  const chain = new MemoryStore();
  const base = await saveGolden(chain, keys, 1, 'xchacha20-poly1305');
  await saveGolden(chain, keys, 2, 'xchacha20-poly1305', base.lineage);
  emit('good-chain', chain.objects);

  const [pack] = of(good, 'packs');
  const [manifest, manifestBytes] = of(good, 'manifests');
  const [lineage, lineageBytes] = of(good, 'lineages');
  const stranger = new MemoryStore();
  await saveGolden(stranger, keys, 1, 'xchacha20-poly1305');
  const flip = (name: string, at: number) => (copy: Objects): void => {
    const content = copy.get(name) ?? Buffer.alloc(0);
    content[at] = (content[at] ?? 0) ^ 0x10;
  };
  emit('bad-OBJECT_CORRUPT-pack-flipped', changed(good, flip(pack, 700)));
  emit('bad-OBJECT_CORRUPT-pack-truncated', changed(good, (copy) => copy.set(pack, (copy.get(pack) ?? Buffer.alloc(0)).subarray(0, -1))));
  emit('bad-OBJECT_CORRUPT-pack-of-another-lineage', changed(good, (copy) => copy.set(pack, of(stranger.objects, 'packs')[1])));
  emit('bad-OBJECT_MISSING-pack', changed(good, (copy) => copy.delete(pack)));
  emit('bad-SIGNATURE_INVALID-manifest-flipped', changed(good, flip(manifest, 200)));
  emit('bad-OBJECT_CORRUPT-manifest-of-another', changed(good, (copy) => copy.set(manifest, of(stranger.objects, 'manifests')[1])));
  emit('bad-OBJECT_CORRUPT-manifest-truncated', changed(good, (copy) => copy.set(manifest, manifestBytes.subarray(0, 250))));
  emit('bad-KEY_MISSING-lineage', changed(good, (copy) => copy.delete(lineage)));
  emit('bad-OBJECT_CORRUPT-lineage-of-another', changed(good, (copy) => copy.set(lineage, of(stranger.objects, 'lineages')[1])));
  const nulled = of(unsealed.objects, 'packs')[0];
  emit('bad-OBJECT_CORRUPT-null-cipher-flipped', changed(unsealed.objects, flip(nulled, 700)));

  const header = (change: (bytes: Buffer) => void): Promise<Objects> => signedChange(good, manifest, change);
  emit('bad-FORMAT_UNSUPPORTED-version-2', await header((bytes) => bytes.writeUInt16LE(2, 8)));
  emit('bad-FORMAT_UNSUPPORTED-cipher-9', await header((bytes) => bytes.writeUInt8(9, 10)));
  emit('bad-LIMIT_EXCEEDED-body', await header((bytes) => bytes.writeUInt32LE(0x40000000, 100)));
  emit('bad-OBJECT_CORRUPT-other-cipher', await header((bytes) => bytes.writeUInt8(0, 10)));
  emit('bad-OBJECT_CORRUPT-epoch-of-the-future', await header((bytes) => bytes.writeUInt32LE(7, 12)));

  const dataKey = await dataKeyOf(lineageBytes);
  const derived = deriveLineageKeys(nativeSodium, first.lineage, dataKey);
  const resealed = async (change: (body: Buffer) => Buffer, declared?: number): Promise<Objects> => {
    const head = Buffer.from(manifestBytes.subarray(0, MANIFEST_HEADER_BYTES));
    const packed = Buffer.alloc(head.readUInt32LE(96) - 40);
    if (!nativeSodium.open(packed, manifestBytes.subarray(MANIFEST_HEADER_BYTES, -64), head, derived.manifestKey)) throw new Error('does not open');
    const known = Buffer.alloc(head.readUInt32LE(100));
    decompressInto(known, packed);
    const body = change(known);
    const again = new Compressor().always(body);
    head.writeUInt32LE(again.length + 40, 96);
    head.writeUInt32LE(declared ?? body.length, 100);
    const sealed = Buffer.alloc(again.length + 40);
    nativeSodium.seal(sealed, randomBytes(24), again, head, derived.manifestKey);
    const signed = await resigned(Buffer.concat([head, sealed]));
    return changed(good, (copy) => copy.set(manifest, signed));
  };
  emit('bad-OBJECT_CORRUPT-body-bomb', await resealed(() => Buffer.alloc(60_000_000), 1000));
  emit('bad-OBJECT_CORRUPT-body-with-a-tail', await resealed((body) => Buffer.concat([body, Buffer.of(0)])));
  emit('bad-OBJECT_CORRUPT-body-cut', await resealed((body) => body.subarray(0, -2)));

  const others = new MemoryStore();
  await saveGolden(others, foreign, 1, 'xchacha20-poly1305');
  emit('bad-SIGNER_UNTRUSTED-another-node', others.objects);
  const wrapped = encodeLineageKey({ lineage: first.lineage, epoch: 1, signer: keys.signer, check: derived.check, recipients: foreign.recipients.map((recipient) => ({ recipient, sealed: nativeSodium.boxSeal(dataKey, recipient) })) });
  const toOthers = await resigned(wrapped);
  emit('bad-KEY_WRONG-wrapped-to-another', changed(good, (copy) => copy.set(lineage, toOthers)));
  writeFileSync(join(directory, 'keys.json'), `${JSON.stringify({ own: seeds.own.toString('hex') })}\n`);
}

async function signedChange(objects: ReadonlyMap<string, Buffer>, name: string, change: (bytes: Buffer) => void): Promise<Objects> {
  const unsigned = Buffer.from((objects.get(name) ?? Buffer.alloc(0)).subarray(0, -64));
  change(unsigned);
  const signed = await resigned(unsigned);
  return changed(objects, (copy) => copy.set(name, signed));
}

await main();
