/**
 * The store is the attacker's: random changes of every kind to a small repository. Each is refused with an error of the right
 * class when the checkpoint is read, which is before any process is made of it, or it lies where the checkpoint has no
 * byte (a pack's header, its end, the repository's own records): then what is read is the same to the byte, and verify names
 * the object. STASIS_ATTACKS says how many (scripts/attack: a million); STASIS_TEST_SEED repeats a run.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { before, test } from 'node:test';
import { MemoryStore } from '../../src/repository/index.ts';
import type { CheckpointSummary, Repository } from '../../src/repository/index.ts';
import { deriveLineageKeys } from '../../src/repository/crypto/lineage-keys.ts';
import { nativeSodium } from '../../src/repository/crypto/native.ts';
import { packObject } from '../../src/repository/format/body.ts';
import { decodeLineageKey, encodeLineageKey } from '../../src/repository/format/lineage-key.ts';
import { Lineages } from '../../src/repository/lineages.ts';
import { Manifests } from '../../src/repository/manifests.ts';
import { Trust } from '../../src/repository/trust.ts';
import { generator } from '../support/mutations.ts';
import { anySignal, codeOf, nextId, piecesOf, testKeys, withRepository } from './support.ts';

const keys = testKeys();
/** In both checkpoints: the victim refers to packs of its ancestor, too. */
const same = Buffer.concat([randomBytes(300), Buffer.alloc(300, 'same ')]);
const contents = new Map([['same', same], ['memory', Buffer.concat([randomBytes(400), Buffer.alloc(700, 'text '), randomBytes(100)])], ['small', Buffer.from('a small blob')]]);
const store = new MemoryStore();
let pristine: ReadonlyMap<string, Buffer>;
let victim: CheckpointSummary;
let ancestor: CheckpointSummary;
/** What an attacker has kept: older manifests and lineage keys, objects of other lineages. */
const kept = new Map<string, Buffer>();

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
  const changed = new Map([...contents].map(([name, bytes]) => [name, name === 'same' ? bytes : Buffer.from(bytes).reverse()]));
  ancestor = await saveOne(repository, undefined, changed);
  for (const [name, bytes] of store.objects) kept.set(name, bytes);
  await rotate(ancestor);
  victim = await saveOne(repository, ancestor.lineage, contents);
  await saveOne(repository, undefined, contents);
  const stranger = testKeys();
  await withRepository({ store, keys: stranger, workers: 1 }, (other) => saveOne(other, undefined, contents));
  pristine = new Map(store.objects);
  await learnPlaces();
}));

/** Where the victim's bytes lie, by pack. */
const places = new Map<string, [from: number, to: number][]>();

async function learnPlaces(): Promise<void> {
  const trust = new Trust(nativeSodium, keys, []);
  const { tables } = await new Manifests(store, keys, nativeSodium, trust, new Lineages(store, keys, nativeSodium, trust)).open(victim.id, anySignal);
  for (const name of contents.keys()) {
    const segments = tables.blobs.get(name);
    for (let i = 0; i < (segments?.count ?? 0); i += 1) {
      const { pack, offset, stored } = tables.chunks.place(segments?.chunk(i) ?? 0);
      const ref = tables.packs[pack];
      assert.ok(ref);
      places.set(packObject(ref), [...(places.get(packObject(ref)) ?? []), [offset, offset + stored]]);
    }
  }
  assert.ok(places.size >= 2, 'packs of its own and of its ancestor');
}

type Pick = <T>(list: readonly T[]) => T;
type Mutation = (object: Buffer, name: string, random: (below: number) => number, pick: Pick) => Buffer | undefined;

const differing = (object: Buffer, other: Buffer | undefined): Buffer | undefined => (other?.equals(object) === true ? undefined : other);

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
  rollback: (object, name, _random, pick) => differing(object, kept.get(name)) ?? pick([...kept].filter(([other]) => other.split('/')[0] === name.split('/')[0]))[1],
  remove: () => undefined,
};

const problem = (error: unknown): string => {
  if (error instanceof assert.AssertionError) throw error;
  return codeOf(error);
};

/** Either way of reading: piece by piece, and through the workers as a restore does. */
async function readAll(repository: Repository, extract: boolean): Promise<string> {
  try {
    const reader = await repository.open(victim.id, anySignal);
    assert.deepEqual([...reader.blobs.keys()].sort(), [...contents.keys()].sort(), 'other blobs were delivered');
    for (const [name, bytes] of contents) {
      const buffer = new SharedArrayBuffer(bytes.length);
      if (extract) await reader.extract([{ blob: name, sink: ({ offset }) => ({ kind: 'memory', buffer, offset }) }], anySignal);
      assert.ok(Buffer.from(extract ? new Uint8Array(buffer) : await reader.read(name, undefined, anySignal)).equals(bytes), `other bytes of ${name} were delivered`);
    }
    return 'read';
  } catch (error) {
    return problem(error);
  }
}

async function verified(repository: Repository, id = victim.id): Promise<string[]> {
  return (await repository.verify(id, anySignal)).problems.map(({ object }) => object);
}

/** Not every byte of a pack is the victim's. */
function touchesVictim(name: string, before: Buffer, after: Buffer | undefined): boolean {
  if (!name.startsWith('packs/')) return after === undefined || !after.equals(before);
  return (places.get(name) ?? []).some(([from, to]) => after === undefined || !after.subarray(from, to).equals(before.subarray(from, to)));
}

interface Change {
  readonly kind: string;
  readonly target: string;
  readonly before: Buffer;
  readonly after: Buffer | undefined;
}

const codesFor = (target: string): readonly string[] => (target.startsWith('packs/') ? packCodes : target.startsWith('lineages/') ? lineageCodes : manifestCodes);

/** What the changes led to: "refused CODE" or "unread, found by verify". */
async function outcomeOf(repository: Repository, changes: readonly Change[], extract: boolean): Promise<string> {
  const effective = changes.filter(({ target, before, after }) => touchesVictim(target, before, after));
  const code = await readAll(repository, extract);
  if (effective.length > 0) {
    assert.ok(effective.some(({ target }) => codesFor(target).includes(code)), `it led to ${code}`);
    return `refused ${code}`;
  }
  assert.equal(code, 'read');
  const real = changes.filter(({ before, after }) => after?.equals(before) !== true);
  // Not all that lies in its ancestor's packs is the victim's.
  const found = await verified(repository);
  if (!real.every(({ target }) => found.includes(target))) found.push(...(await verified(repository, ancestor.id)));
  for (const { target } of real) assert.ok(found.includes(target), `verify does not find ${target}`);
  return 'unread, found by verify';
}

void test('random changes: refused with the right class of error, or where nothing is read', { timeout: 60 * 60_000 }, () =>
  withRepository({ store, keys, workers: 1 }, async (repository) => {
    const seed = Number(process.env['STASIS_TEST_SEED'] || randomBytes(4).readUInt32LE());
    const count = Number(process.env['STASIS_ATTACKS'] ?? 20_000);
    const random = generator(seed);
    const pick: Pick = (list) => list[random(list.length)] as never;
    const targets = [`manifests/${victim.id}`, `lineages/${victim.lineage}`, ...places.keys()];
    const kinds = Object.keys(mutations);
    const table = new Map<string, number>();
    const totals = new Map<string, number>();
    assert.equal(await readAll(repository, false), 'read');
    assert.deepEqual(await verified(repository), []);
    const started = performance.now();
    for (let round = 0; round < count; ) {
      const changes = (random(8) === 0 ? [targets[random(targets.length)] ?? '', pick(targets)] : [pick(targets)]).filter((target, i, all) => all.indexOf(target) === i).map((target): Change => {
        const kind = pick(kinds);
        const before = pristine.get(target) ?? Buffer.alloc(0);
        return { kind, target, before, after: mutations[kind]?.(before, target, random, pick) };
      });
      if (changes.every(({ before, after }) => after?.equals(before) === true)) continue;
      round += 1;
      for (const { target, after } of changes) {
        if (after === undefined) store.objects.delete(target);
        else store.objects.set(target, after);
      }
      const what = changes.map(({ kind, target }) => `${kind} ${target.split('/')[0]}`).join(' and ');
      const outcome = await outcomeOf(repository, changes, random(16) === 0).catch((error: unknown) => assert.fail(`seed ${seed} round ${round}: ${what}: ${String(error)}`));
      for (const [counts, row] of [[table, `${changes.length > 1 ? 'two at once' : what}: ${outcome}`], [totals, outcome.replace(/ [A-Z].*/, '')]] as const) counts.set(row, (counts.get(row) ?? 0) + 1);
      for (const { target, before } of changes) store.objects.set(target, before);
    }
    assert.equal(await readAll(repository, true), 'read');
    assert.deepEqual(await verified(repository), []);
    const rows = (counts: ReadonlyMap<string, number>): string => [...counts].sort().map(([row, times]) => `  ${String(times).padStart(8)}  ${row}`).join('\n');
    console.log(`${count} changes in ${((performance.now() - started) / 1000).toFixed(1)} s, seed ${seed}; none delivered other bytes:\n${rows(totals)}\nof these:\n${rows(table)}`);
  }));
