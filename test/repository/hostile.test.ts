import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { before, describe, it } from 'node:test';
import { isStasisError } from '../../src/core/errors.ts';
import type { ErrorCode } from '../../src/core/errors.ts';
import { MemoryStore } from '../../src/repository/index.ts';
import type { CheckpointSummary, Repository } from '../../src/repository/index.ts';
import { Lineages } from '../../src/repository/lineages.ts';
import { encodeLineageKey } from '../../src/repository/format/lineage-key.ts';
import { nativeSodium } from '../../src/repository/crypto/native.ts';
import { hex, Trust } from '../../src/repository/trust.ts';
import { anySignal, codeOf, failure, load, save, testKeys, withRepository } from './support.ts';

const keys = testKeys();
const bytes = Buffer.concat([randomBytes(150_000), Buffer.alloc(100_000, 'compressible ')]);
const refusals: ReadonlySet<string> = new Set<ErrorCode>(['OBJECT_CORRUPT', 'OBJECT_MISSING', 'SIGNATURE_INVALID', 'SIGNER_UNTRUSTED', 'FORMAT_UNSUPPORTED', 'LIMIT_EXCEEDED', 'KEY_WRONG', 'KEY_MISSING', 'CHECKPOINT_NOT_FOUND']);

/** Two checkpoints of one lineage and one of another. */
let pristine: ReadonlyMap<string, Buffer>;
let victim: CheckpointSummary;
let older: CheckpointSummary;
let stranger: CheckpointSummary;

before(async () => {
  const store = new MemoryStore();
  await withRepository({ store, keys }, async (repository) => {
    older = await save(repository, { bytes: randomBytes(200_000) });
    victim = await save(repository, { bytes, lineage: older.lineage });
    stranger = await save(repository, { bytes });
  });
  pristine = new Map(store.objects);
});

/** What an attacker with the store in hand changed, and how the victim's checkpoint takes it. */
async function attack(repository: Repository, store: MemoryStore, change: (objects: Map<string, Buffer>) => void): Promise<{ load: string; problems: readonly { object: string; code: string }[] | string; equal: boolean }> {
  store.objects.clear();
  for (const [name, content] of pristine) store.objects.set(name, Buffer.from(content));
  change(store.objects);
  let equal = false;
  const loaded = await load(repository, victim.id).then(
    (read) => {
      equal = read.equals(bytes);
      return 'none';
    },
    (error: unknown) => codeOf(error),
  );
  const problems = await repository.verify(victim.id, anySignal).then(
    (report) => report.problems,
    (error: unknown) => codeOf(error),
  );
  return { load: loaded, problems, equal };
}

const victimPacks = (): string[] => [...pristine.keys()].filter((name) => name.startsWith(`packs/${victim.id}`));

void describe('an archive is hostile', () => {
  void it('a flipped byte in any kind of object is named and refused', () => {
    const store = new MemoryStore();
    return withRepository({ store, keys }, async (repository) => {
      const [pack] = victimPacks();
      assert.ok(pack);
      for (const name of [pack, `manifests/${victim.id}`, `lineages/${victim.lineage}`]) {
        const size = pristine.get(name)?.length ?? 0;
        const places = new Set([0, 7, 8, 9, 10, 11, 15, 16, 31, 32, 51, 52, 63, 64, 90, 95, 96, 100, 127, 128, 150, size - 65, size - 64, size - 1, ...Array.from({ length: 20 }, () => Math.floor(Math.random() * size))]);
        for (const at of places) {
          const result = await attack(repository, store, (objects) => {
            const content = objects.get(name);
            if (content !== undefined) content[at] = (content[at] ?? 0) ^ 0x41;
          });
          const what = `${name} byte ${at} of ${size}: ${JSON.stringify(result)}`;
          assert.ok(typeof result.problems !== 'string' && result.problems.length > 0, what);
          assert.ok(result.problems.every(({ code }) => refusals.has(code)), what);
          assert.ok(result.problems.some(({ object }) => object === name), what);
          assert.ok(result.load === 'none' ? result.equal : refusals.has(result.load), what);
        }
      }
    });
  });

  void it('thousands of random changes: refused with a code, or without effect, never a crash', () => {
    const store = new MemoryStore();
    const seed = Number(process.env['STASIS_TEST_SEED'] ?? randomBytes(4).readUInt32LE());
    const random = generator(seed);
    return withRepository({ store, keys, workers: 1 }, async (repository) => {
      for (let round = 0; round < 2000; round += 1) {
        const result = await attack(repository, store, (objects) => mutate(objects, random));
        const what = `seed ${seed} round ${round}: ${JSON.stringify(result)}`;
        assert.ok(result.load === 'none' ? result.equal : refusals.has(result.load), what);
        if (typeof result.problems === 'string') assert.ok(refusals.has(result.problems), what);
        else assert.ok(result.problems.every(({ code }) => refusals.has(code)), what);
        if (result.load !== 'none') assert.ok(typeof result.problems === 'string' || result.problems.length > 0, `verify finds what a restore trips over: ${what}`);
      }
    });
  });

  void it('objects under other names, from other lineages, older ones, missing ones', () => {
    const store = new MemoryStore();
    return withRepository({ store, keys }, async (repository) => {
      const [pack] = victimPacks();
      const other = [...pristine.keys()].find((name) => name.startsWith(`packs/${stranger.id}`));
      const old = [...pristine.keys()].find((name) => name.startsWith(`packs/${older.id}`));
      assert.ok(pack && other && old);
      const expectations: [string, string, ErrorCode][] = [
        [`manifests/${victim.id}`, `manifests/${older.id}`, 'OBJECT_CORRUPT'],
        [`manifests/${victim.id}`, `manifests/${stranger.id}`, 'OBJECT_CORRUPT'],
        [`manifests/${victim.id}`, `lineages/${victim.lineage}`, 'OBJECT_CORRUPT'],
        [`lineages/${victim.lineage}`, `lineages/${stranger.lineage}`, 'OBJECT_CORRUPT'],
        [pack, other, 'OBJECT_CORRUPT'],
        [pack, old, 'OBJECT_CORRUPT'],
      ];
      for (const [name, from, code] of expectations) {
        const result = await attack(repository, store, (objects) => objects.set(name, Buffer.from(pristine.get(from) ?? [])));
        assert.equal(result.load, code, `${from} as ${name}`);
        assert.ok(typeof result.problems !== 'string' && result.problems.some((problem) => problem.object === name && problem.code === code));
      }
      for (const [name, code] of [[pack, 'OBJECT_MISSING'], [`lineages/${victim.lineage}`, 'KEY_MISSING'], [`manifests/${victim.id}`, 'CHECKPOINT_NOT_FOUND']] as const) {
        assert.equal((await attack(repository, store, (objects) => objects.delete(name))).load, code);
      }
    });
  });

  void it('a chunk in the place of another of the same length does not open', () => {
    const store = new MemoryStore();
    return withRepository({ store, keys }, async (repository) => {
      const [pack] = victimPacks();
      assert.ok(pack);
      const sealed = 65536 + 40;
      const result = await attack(repository, store, (objects) => {
        const content = objects.get(pack);
        const first = Buffer.from(content?.subarray(64, 64 + sealed) ?? []);
        content?.copyWithin(64, 64 + sealed, 64 + 2 * sealed);
        content?.set(first, 64 + sealed);
      });
      assert.equal(result.load, 'OBJECT_CORRUPT');
      assert.ok(typeof result.problems !== 'string' && result.problems.filter(({ object }) => object === pack).length === 2, 'both are named');
    });
  });

  void it('null cipher: contents are still checked', () =>
    withRepository({ keys }, async (repository, memory) => {
      const store = memory as MemoryStore;
      const { id } = await save(repository, { bytes, cipher: 'null' });
      for (const [name, content] of store.objects) if (name.startsWith('packs/')) content[5000] = (content[5000] ?? 0) ^ 1;
      assert.equal(await failure(load(repository, id)), 'OBJECT_CORRUPT');
      assert.equal((await repository.verify(id, anySignal)).problems.length, 1);
    }));
});

void describe('keys and signers', () => {
  const copyOf = (): MemoryStore => {
    const store = new MemoryStore();
    for (const [name, content] of pristine) store.objects.set(name, content);
    return store;
  };

  void it('another node neither trusts nor reads', async () => {
    const store = copyOf();
    await withRepository({ store, keys: testKeys() }, async (repository) => {
      assert.equal(await failure(repository.open(victim.id, anySignal)), 'SIGNER_UNTRUSTED');
      const problems: string[] = [];
      assert.deepEqual(await Array.fromAsync(repository.list({ signal: undefined, onProblem: (_, error) => problems.push(codeOf(error)) })), []);
      assert.deepEqual(problems, Array(3).fill('SIGNER_UNTRUSTED'));
    });
    await withRepository({ store, keys: testKeys(), trustedSigners: [hex(keys.signer).toUpperCase()] }, async (repository) => {
      assert.equal(await failure(repository.open(victim.id, anySignal)), 'KEY_WRONG');
      assert.equal(await failure(repository.begin({ id: victim.id, lineage: undefined }, anySignal)), 'CHECKPOINT_IN_USE');
    });
  });

  void it('a manifest that is signed anew by somebody else is not trusted', async () => {
    const store = copyOf();
    const name = `manifests/${victim.id}`;
    const forged = Buffer.from(store.objects.get(name) ?? []);
    const seed = randomBytes(32);
    const pair = nativeSodium.signPair(seed);
    forged.set(pair.publicKey, 64);
    forged.set(nativeSodium.sign(forged.subarray(0, -64), pair.secretKey), forged.length - 64);
    store.objects.set(name, forged);
    await withRepository({ store, keys }, async (repository) => {
      assert.equal(await failure(repository.open(victim.id, anySignal)), 'SIGNER_UNTRUSTED');
    });
  });

  void it('a node that may write and not read', async () => {
    const reader = testKeys();
    const signer = testKeys();
    const blind = { ...signer, recipients: reader.recipients, unwrap: () => Promise.resolve(undefined) };
    const store = new MemoryStore();
    const { id } = await withRepository({ store, keys: blind }, async (repository) => {
      const saved = await save(repository, { bytes });
      assert.equal(await failure(repository.open(saved.id, anySignal)), 'KEY_WRONG');
      return saved;
    });
    await withRepository({ store, keys: reader, trustedSigners: [hex(signer.signer)] }, async (repository) => {
      assert.ok((await load(repository, id)).equals(bytes));
    });
  });

  void it('an older lineage key is refused once a manifest of a newer epoch is there', async () => {
    const store = copyOf();
    const name = `lineages/${older.lineage}`;
    const trust = new Trust(nativeSodium, keys, []);
    const lineages = new Lineages(store, keys, nativeSodium, trust);
    const old = store.objects.get(name) ?? Buffer.alloc(0);
    // Re-wrapped as rotation will do it: the same data key, epoch 2.
    const { keys: derived } = await lineages.open(older.lineage, anySignal);
    const recipients = [{ recipient: old.subarray(96, 128), sealed: old.subarray(128, 208) }];
    const signed = encodeLineageKey({ lineage: older.lineage, epoch: 2, signer: keys.signer, check: derived.check, recipients });
    store.objects.set(name, Buffer.concat([signed, await keys.sign(signed)]));
    await withRepository({ store, keys }, async (repository) => {
      const next = await save(repository, { bytes, lineage: older.lineage });
      assert.ok((await load(repository, next.id)).equals(bytes));
      assert.ok((await load(repository, victim.id)).equals(bytes), 'what was written before the rotation can be read');
      store.objects.set(name, old);
      const error: unknown = await repository.open(next.id, anySignal).catch((reason: unknown) => reason);
      assert.ok(isStasisError(error, 'OBJECT_CORRUPT') && /older copy/.test(error.message), String(error));
    });
  });

  void it('nothing of the contents, names or keys shows in the store', () => {
    for (const [name, content] of pristine) {
      for (const word of ['compressible', 'small blob', 'memory', 'a.img', 'a test']) assert.ok(!content.includes(word), `${name} shows ${word}`);
    }
  });
});

/** A small generator, so that a failure can be repeated. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

function mutate(objects: Map<string, Buffer>, random: (below: number) => number): void {
  const mine = [...objects.keys()].filter((name) => name.startsWith(`packs/${victim.id}`) || name === `manifests/${victim.id}` || name === `lineages/${victim.lineage}`);
  const name = mine[random(mine.length)] ?? '';
  const content = objects.get(name) ?? Buffer.alloc(0);
  const all = [...objects.values()];
  const other = all[random(all.length)] ?? content;
  const changes: (() => Buffer)[] = [
    () => { content[random(content.length)] = random(256); return content; },
    () => { content[random(Math.min(content.length, 256))] = random(256); return content; },
    () => content.subarray(0, random(content.length)),
    () => Buffer.concat([content, Buffer.alloc(1 + random(100))]),
    () => Buffer.from(other),
    () => { const at = random(content.length); content.fill(0, at, Math.min(content.length, at + random(5000))); return content; },
    () => { const from = random(content.length); content.copyWithin(random(content.length), from, from + random(5000)); return content; },
    () => Buffer.concat([content.subarray(0, random(content.length)), other.subarray(random(other.length))]),
    () => { const at = random(Math.min(content.length, 128)); content.fill(0xff, at, Math.min(content.length, at + 4)); return content; },
    () => Buffer.alloc(0),
  ];
  objects.set(name, changes[random(changes.length)]?.() ?? content);
}
