/** A node that nobody trusts in the same store: it cannot make us delete, reuse or keep from working anything of ours. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import type { CheckpointId, LineageId } from '../../src/core/ids.ts';
import { newLineageId } from '../../src/core/ids.ts';
import { encodeLineageKey } from '../../src/repository/format/lineage-key.ts';
import { MemoryStore } from '../../src/repository/index.ts';
import type { CheckpointSummary } from '../../src/repository/index.ts';
import { anySignal, failure, load, nextId, save, testKeys, withRepository } from './support.ts';

const ours = testKeys();
const stranger = testKeys();
const bytes = randomBytes(200_000);

interface Scene {
  readonly store: MemoryStore;
  readonly first: CheckpointSummary;
  readonly second: CheckpointSummary;
  readonly theirs: CheckpointSummary;
}

async function scene(): Promise<Scene> {
  const store = new MemoryStore();
  const [first, second] = await withRepository({ store, keys: ours, workers: 1 }, async (repository) => {
    const one = await save(repository, { bytes });
    return [one, await save(repository, { bytes: Buffer.concat([bytes, randomBytes(4096)]), lineage: one.lineage })] as const;
  });
  const theirs = await withRepository({ store, keys: stranger, workers: 1, owner: 'a stranger' }, (repository) => save(repository, { bytes }));
  return { store, first, second, theirs };
}

/** The best that it can do without our data key: our manifest with another id, signed by itself. */
async function forge({ store, second }: Scene, id: CheckpointId, lineage: LineageId = second.lineage): Promise<void> {
  const forged = Buffer.from(store.objects.get(`manifests/${second.id}`) ?? []);
  forged.write(lineage, 16, 'hex');
  forged.write(id, 32, 'latin1');
  forged.set(stranger.signer, 64);
  const signed = forged.subarray(0, forged.length - 64);
  store.objects.set(`manifests/${id}`, Buffer.concat([signed, await stranger.sign(signed)]));
}

async function assertOursWhole({ store, second }: Scene): Promise<void> {
  await withRepository({ store, keys: ours, workers: 1 }, async (repository) => assert.equal((await load(repository, second.id)).length, bytes.length + 4096));
}

void describe('a stranger in the same store', () => {
  void it('a forged newest checkpoint of our lineage is not the one that the next goes on from, and is refused everywhere', async () => {
    const all = await scene();
    const id = nextId();
    await forge(all, id);
    await withRepository({ store: all.store, keys: ours, workers: 1 }, async (repository) => {
      const writer = await repository.begin({ id: nextId(), lineage: all.first.lineage }, anySignal);
      assert.equal(writer.ancestor, all.second.id);
      await writer.abort();
      const third = await save(repository, { bytes, lineage: all.first.lineage });
      assert.ok(third.bytes.reused > 150_000);
      const problems: string[] = [];
      const listed = await Array.fromAsync(repository.list({ signal: undefined, onProblem: (object) => problems.push(object) }));
      assert.deepEqual(listed.map((one) => one.id), [all.first.id, all.second.id, third.id]);
      assert.deepEqual(problems, [`manifests/${all.theirs.id}`, `manifests/${id}`]);
      for (const bad of [id, all.theirs.id]) {
        assert.equal(await failure(repository.open(bad, anySignal)), 'SIGNER_UNTRUSTED');
        assert.deepEqual((await repository.verify(bad, anySignal)).problems.map(({ code }) => code), ['SIGNER_UNTRUSTED']);
      }
      const checked = await repository.maintenance.check({ signal: undefined, readData: true });
      assert.deepEqual(checked.problems.map(({ code }) => code), ['SIGNER_UNTRUSTED', 'SIGNER_UNTRUSTED']);
    });
  });

  void it('nothing live goes when checkpoints are deleted and the store is pruned, here or there', async () => {
    const all = await scene();
    const id = nextId();
    await forge(all, id);
    const packsOf = (of: CheckpointSummary): string[] => [...all.store.objects.keys()].filter((name) => name.startsWith(`packs/${of.id}`));
    const theirPacks = packsOf(all.theirs);
    await withRepository({ store: all.store, keys: ours, workers: 1, graceMs: 0 }, async (repository) => {
      await repository.delete(all.first.id, anySignal);
      for (let i = 0; i < 3; i += 1) await repository.maintenance.prune({ signal: undefined, dryRun: false });
    });
    await assertOursWhole(all);
    assert.deepEqual(packsOf(all.theirs), theirPacks);
    await withRepository({ store: all.store, keys: stranger, workers: 1, owner: 'a stranger', graceMs: 0 }, async (repository) => {
      for (let i = 0; i < 3; i += 1) await repository.maintenance.prune({ signal: undefined, dryRun: false });
      assert.ok((await load(repository, all.theirs.id)).equals(bytes));
    });
    await assertOursWhole(all);
    // The forged one is taken away by hand; then nothing keeps our garbage any more.
    await withRepository({ store: all.store, keys: ours, workers: 1, graceMs: 0 }, async (repository) => {
      await repository.delete(id, anySignal);
      await repository.delete(all.second.id, anySignal);
      for (let i = 0; i < 3; i += 1) await repository.maintenance.prune({ signal: undefined, dryRun: false });
    });
    assert.deepEqual([packsOf(all.first), packsOf(all.second), all.store.objects.has(`lineages/${all.first.lineage}`)], [[], [], false]);
    assert.deepEqual(packsOf(all.theirs), theirPacks);
  });

  void it('a manifest that says it is of another lineage does not take the packs along that ours needs', async () => {
    for (const lineage of [newLineageId(), undefined]) {
      const all = await scene();
      // In place of our first one, whose packs the second needs.
      await forge(all, all.first.id, lineage ?? all.theirs.lineage);
      await withRepository({ store: all.store, keys: ours, workers: 1 }, async (repository) => {
        assert.equal(await failure(repository.open(all.first.id, anySignal)), 'SIGNER_UNTRUSTED');
        await repository.delete(all.first.id, anySignal);
      });
      await assertOursWhole(all);
    }
  });

  void it('a key of our lineage that it signed is refused, also to be wrapped anew', async () => {
    const all = await scene();
    const { lineage } = all.first;
    const signed = encodeLineageKey({ lineage, epoch: 9, signer: stranger.signer, check: randomBytes(32), recipients: [{ recipient: ours.recipients[0] ?? Buffer.alloc(32), sealed: randomBytes(80) }] });
    all.store.objects.set(`lineages/${lineage}`, Buffer.concat([signed, await stranger.sign(signed)]));
    await withRepository({ store: all.store, keys: ours, workers: 1 }, async (repository) => {
      assert.equal(await failure(repository.begin({ id: nextId(), lineage }, anySignal)), 'SIGNER_UNTRUSTED');
      assert.equal(await failure(repository.open(all.first.id, anySignal)), 'SIGNER_UNTRUSTED');
      assert.equal(await failure(repository.keyring.rewrap(lineage, ({ recipients }) => ({ recipients, ended: true }), anySignal)), 'SIGNER_UNTRUSTED');
      const report = await repository.keyring.rewrapAll(undefined, ({ recipients }) => ({ recipients, ended: true }), { signal: undefined, dryRun: false });
      assert.deepEqual([report.changed, report.problems.map(({ code }) => code).sort()], [[], ['SIGNER_UNTRUSTED', 'SIGNER_UNTRUSTED']]);
    });
  });
});
