/**
 * The store is the attacker's: random changes of every kind to a small repository, each refused with an error of the right class,
 * or without any effect on what is read. STASIS_ATTACKS says how many (scripts/attack: a million); STASIS_TEST_SEED repeats a run.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { before, test } from 'node:test';
import { MemoryStore } from '../../src/repository/index.ts';
import type { CheckpointSummary, Repository } from '../../src/repository/index.ts';
import { deriveLineageKeys } from '../../src/repository/crypto/lineage-keys.ts';
import { nativeSodium } from '../../src/repository/crypto/native.ts';
import { decodeLineageKey, encodeLineageKey } from '../../src/repository/format/lineage-key.ts';
import { anySignal, codeOf, nextId, piecesOf, testKeys, withRepository } from './support.ts';

const keys = testKeys();
const contents = new Map([['memory', Buffer.concat([randomBytes(400), Buffer.alloc(700, 'text '), randomBytes(100)])], ['small', Buffer.from('a small blob')]]);
const store = new MemoryStore();
let pristine: ReadonlyMap<string, Buffer>;
let victim: CheckpointSummary;
/** What an attacker has kept: older manifests and lineage keys, objects of other lineages. */
const kept = new Map<string, Buffer>();

const PACK_HEADER = 64;
const manifestCodes = ['OBJECT_CORRUPT', 'SIGNATURE_INVALID', 'SIGNER_UNTRUSTED', 'FORMAT_UNSUPPORTED', 'LIMIT_EXCEEDED', 'CHECKPOINT_NOT_FOUND', 'KEY_MISSING'];
const lineageCodes = ['OBJECT_CORRUPT', 'SIGNATURE_INVALID', 'SIGNER_UNTRUSTED', 'FORMAT_UNSUPPORTED', 'LIMIT_EXCEEDED', 'KEY_WRONG', 'KEY_MISSING'];
const packCodes = ['OBJECT_CORRUPT', 'OBJECT_MISSING'];

async function saveOne(repository: Repository, lineage: CheckpointSummary['lineage'] | undefined, blobs: ReadonlyMap<string, Buffer>): Promise<CheckpointSummary> {
  const writer = await repository.begin({ id: nextId(), lineage }, anySignal);
  for (const [name, bytes] of blobs) await writer.append(name, piecesOf(bytes, 300), anySignal);
  return writer.commit({ about: 'a test' }, anySignal);
}

/** The lineage key again, in a higher epoch: now the old one is a rollback. */
async function rotate({ lineage }: CheckpointSummary): Promise<void> {
  const name = `lineages/${lineage}`;
  const { key } = decodeLineageKey(store.objects.get(name) ?? Buffer.alloc(0), lineage, name);
  const dataKey = await keys.unwrap(key.recipients);
  assert.ok(dataKey);
  const recipients = keys.recipients.map((recipient) => ({ recipient, sealed: nativeSodium.boxSeal(dataKey, recipient) }));
  const signed = encodeLineageKey({ lineage, epoch: key.epoch + 1, signer: keys.signer, check: deriveLineageKeys(nativeSodium, lineage, dataKey).check, recipients });
  store.objects.set(name, Buffer.concat([signed, await keys.sign(signed)]));
}

before(() => withRepository({ store, keys, workers: 1 }, async (repository) => {
  const changed = new Map([...contents].map(([name, bytes]) => [name, Buffer.from(bytes).reverse()]));
  const older = await saveOne(repository, undefined, changed);
  for (const [name, bytes] of store.objects) kept.set(name, bytes);
  await rotate(older);
  victim = await saveOne(repository, older.lineage, contents);
  await saveOne(repository, undefined, contents);
  const stranger = testKeys();
  await withRepository({ store, keys: stranger, workers: 1 }, (other) => saveOne(other, undefined, contents));
  pristine = new Map(store.objects);
}));

/** mulberry32: small, good enough, the same everywhere. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

type Pick = <T>(list: readonly T[]) => T;
type Mutation = (object: Buffer, name: string, random: (below: number) => number, pick: Pick) => Buffer | undefined;

const mutations: Readonly<Record<string, Mutation>> = {
  flip: (object, _name, random) => {
    const copy = Buffer.from(object);
    for (let i = random(3); i >= 0; i -= 1) {
      const at = random(copy.length);
      copy[at] = (copy[at] ?? 0) ^ (1 << random(8));
    }
    return copy;
  },
  overwrite: (object, _name, random) => {
    const copy = Buffer.from(object);
    const at = random(copy.length);
    for (let i = at; i < Math.min(copy.length, at + 1 + random(16)); i += 1) copy[i] = random(256);
    return copy;
  },
  truncate: (object, _name, random) => object.subarray(0, random(object.length)),
  lengthen: (object, _name, random) => Buffer.concat([object, Buffer.alloc(1 + random(40), random(256))]),
  reorder: (object, _name, random) => {
    const [a, b] = [random(object.length), random(object.length)].sort((x, y) => x - y);
    const middle = random(object.length);
    const [x = 0, y = 0, z = 0] = [a ?? 0, b ?? 0, middle].sort((p, q) => p - q);
    return Buffer.concat([object.subarray(0, x), object.subarray(y, z), object.subarray(x, y), object.subarray(z)]);
  },
  replay: (_object, name, _random, pick) => pick([...pristine].filter(([other]) => other !== name && other.split('/')[0] === name.split('/')[0]))[1],
  swap: (_object, name, _random, pick) => pick([...pristine].filter(([other]) => other !== name))[1],
  splice: (object, name, random, pick) => {
    const [, other] = pick([...pristine].filter(([candidate]) => candidate !== name));
    const at = random(Math.min(object.length, other.length));
    return Buffer.concat([object.subarray(0, at), other.subarray(at)]);
  },
  rollback: (_object, name, _random, pick) => kept.get(name) ?? pick([...kept].filter(([other]) => other.split('/')[0] === name.split('/')[0]))[1],
  remove: () => undefined,
};

async function readAll(repository: Repository): Promise<string> {
  try {
    const reader = await repository.open(victim.id, anySignal);
    assert.deepEqual([...reader.blobs.keys()].sort(), [...contents.keys()].sort(), 'other blobs were delivered');
    for (const [name, bytes] of contents) assert.ok(Buffer.from(await reader.read(name, undefined, anySignal)).equals(bytes), `other bytes of ${name} were delivered`);
    return 'none';
  } catch (error) {
    if (error instanceof assert.AssertionError) throw error;
    return codeOf(error);
  }
}

/** Not every byte of a pack is the victim's: the header and what lies behind the last chunk are looked at by verify alone. */
function touchesChunks(before: Buffer, after: Buffer | undefined): boolean {
  return after === undefined || after.length < before.length || !after.subarray(PACK_HEADER, before.length).equals(before.subarray(PACK_HEADER));
}

void test('random changes: refused with the right class of error, or without effect', { timeout: 20 * 60_000 }, () =>
  withRepository({ store, keys, workers: 1 }, async (repository) => {
    const seed = Number(process.env['STASIS_TEST_SEED'] ?? randomBytes(4).readUInt32LE());
    const count = Number(process.env['STASIS_ATTACKS'] ?? 20_000);
    const random = generator(seed);
    const pick: Pick = (list) => list[random(list.length)] as never;
    const targets = [`manifests/${victim.id}`, `lineages/${victim.lineage}`, ...[...pristine.keys()].filter((name) => name.startsWith(`packs/${victim.id}`))];
    const names = Object.keys(mutations);
    const refused = new Map<string, number>();
    assert.equal(await readAll(repository), 'none');
    for (let round = 0; round < count; round += 1) {
      const target = pick(targets);
      const kind = pick(names);
      const original = pristine.get(target) ?? Buffer.alloc(0);
      const changed = mutations[kind]?.(original, target, random, pick);
      if (changed === undefined) store.objects.delete(target);
      else store.objects.set(target, changed);
      const code = await readAll(repository).catch((error: unknown) => assert.fail(`seed ${seed} round ${round}: ${kind} of ${target}: ${String(error)}`));
      const isPack = target.startsWith('packs/');
      const effective = isPack ? touchesChunks(original, changed) : changed === undefined || !changed.equals(original);
      const allowed = !effective ? ['none'] : isPack ? packCodes : target.startsWith('lineages/') ? lineageCodes : manifestCodes;
      assert.ok(allowed.includes(code), `seed ${seed} round ${round}: ${kind} of ${target} led to ${code}`);
      const row = `${kind} ${target.split('/')[0]} ${code}`;
      refused.set(row, (refused.get(row) ?? 0) + 1);
      store.objects.set(target, original);
    }
    assert.equal(await readAll(repository), 'none');
    console.log(`${count} changes, seed ${seed}:\n${[...refused].sort().map(([row, times]) => `  ${String(times).padStart(8)}  ${row}`).join('\n')}`);
  }));
