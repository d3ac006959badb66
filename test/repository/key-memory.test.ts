/** A store that puts older key objects back: who knows better does not believe it, over restarts. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { appendFileSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { StasisError } from '../../src/core/errors.ts';
import { parseLineageId } from '../../src/core/ids.ts';
import { KeyMemory, MemoryStore, withRecipients } from '../../src/repository/index.ts';
import type { CheckpointSummary, KeyChange, Repository } from '../../src/repository/index.ts';
import { hex } from '../../src/repository/trust.ts';
import { anySignal, codeOf, failure, load, nextId, save, testKeys, withDirectory, withRepository } from './support.ts';

const [node, removed] = [testKeys(), testKeys()];
const both = withRecipients(node, [...node.recipients, ...removed.recipients].map(hex));
const first = randomBytes(20_000);

const changes: Readonly<Record<string, KeyChange>> = {
  'ended': ({ recipients }) => ({ recipients, ended: true }),
  'wrapped to others': ({ recipients, ended }) => ({ recipients: recipients.filter((key) => key !== hex(removed.recipients[0]!)), ended }),
  'both': ({ recipients }) => ({ recipients: recipients.filter((key) => key !== hex(removed.recipients[0]!)), ended: true }),
};

interface Rolled {
  readonly store: MemoryStore;
  readonly path: string;
  readonly summary: CheckpointSummary;
  readonly newer: Buffer;
}

/** A lineage whose key was changed by a node, after which the store put the older one back. */
async function rolledBack(change: KeyChange, use: (rolled: Rolled) => Promise<void>, seenBy: 'its change' | 'a look' = 'its change'): Promise<void> {
  await withDirectory(async (directory) => {
    const store = new MemoryStore();
    const path = join(directory, 'lineage-keys');
    const summary = await withRepository({ store, keys: both, workers: 1 }, (repository) => save(repository, { bytes: first }));
    const name = `lineages/${summary.lineage}`;
    const older = Buffer.from(store.objects.get(name)!);
    await withRepository({ store, keys: node, workers: 1, ...(seenBy === 'its change' ? { keyMemory: new KeyMemory(path) } : {}) }, (repository) => repository.keyring.rewrap(summary.lineage, change, anySignal));
    if (seenBy === 'a look') await withRepository({ store, keys: node, workers: 1, keyMemory: new KeyMemory(path) }, (repository) => repository.keyring.list(anySignal));
    const newer = Buffer.from(store.objects.get(name)!);
    store.objects.set(name, older);
    await use({ store, path, summary, newer });
  });
}

void describe('an older key that the store puts back', () => {
  for (const [what, seenBy] of [['ended', 'its change'], ['wrapped to others', 'its change'], ['both', 'a look']] as const) {
    it(`${what}, known by ${seenBy}: nobody goes on with it, reads or changes it after a restart`, () => rolledBack(changes[what]!, async ({ store, path, summary, newer }) => {
      const uses: Readonly<Record<string, (repository: Repository) => Promise<unknown>>> = {
        continue: (repository) => repository.begin({ id: nextId(), lineage: summary.lineage }, anySignal),
        read: (repository) => load(repository, summary.id),
        change: (repository) => repository.keyring.rewrap(summary.lineage, ({ ended }) => ({ recipients: [hex(node.recipients[0]!), hex(testKeys().recipients[0]!)], ended }), anySignal),
      };
      await withRepository({ store, keys: node, workers: 1, keyMemory: new KeyMemory(path) }, async (repository) => {
        for (const [name, attempt] of Object.entries(uses)) {
          const error = await attempt(repository).then(() => assert.fail(`${name} went on`), (thrown: unknown) => thrown as StasisError);
          assert.equal(codeOf(error), 'OBJECT_CORRUPT', name);
          assert.match(error.message, /older copy/);
          assert.ok(error.hint?.includes(path), 'it says where that is known');
        }
        const problems: string[] = [];
        await repository.keyring.list({ signal: undefined, onProblem: (object) => void problems.push(object) });
        assert.deepEqual(problems, [`lineages/${summary.lineage}`]);
        store.objects.set(`lineages/${summary.lineage}`, newer);
        assert.deepEqual(await load(repository, summary.id), first, 'the newer one is back');
      });
    }, seenBy));
  }

  it('a node that saw neither cannot tell, and new lineages are nobody\'s business', () => rolledBack(changes['both']!, async ({ store, path, summary }) => {
    await withRepository({ store, keys: node, workers: 1, keyMemory: new KeyMemory(`${path}-of-another`) }, async (repository) => assert.deepEqual(await load(repository, summary.id), first));
    await withRepository({ store, keys: node, workers: 1, keyMemory: new KeyMemory(path) }, async (repository) => {
      const bytes = randomBytes(1000);
      assert.deepEqual(await load(repository, (await save(repository, { bytes })).id), bytes);
    });
  }));
});

void describe('the memory of keys', () => {
  const lineage = parseLineageId('0123456789abcdef0123456789abcdef');

  it('keeps the highest, for ever the end, and nothing of keys that were never changed', () => withDirectory((directory) => {
    const path = join(directory, 'lineage-keys');
    const memory = new KeyMemory(path);
    memory.learn(lineage, { epoch: 1, ended: false });
    assert.throws(() => statSync(path), { code: 'ENOENT' });
    for (const key of [{ epoch: 3, ended: false }, { epoch: 2, ended: false }, { epoch: 3, ended: true }, { epoch: 4, ended: false }]) memory.learn(lineage, key);
    for (const one of [memory, new KeyMemory(path)]) assert.deepEqual(one.of(lineage), { epoch: 4, ended: true });
    assert.equal(statSync(path).mode & 0o777, 0o600);
    const before = readFileSync(path, 'utf8');
    memory.learn(lineage, { epoch: 4, ended: true });
    assert.equal(readFileSync(path, 'utf8'), before, 'nothing new, nothing written');
    return Promise.resolve();
  }));

  it('a torn line is not believed and does not spoil the next', () => withDirectory((directory) => {
    const path = join(directory, 'lineage-keys');
    new KeyMemory(path).learn(lineage, { epoch: 2, ended: false });
    appendFileSync(path, `${lineage} 99999`.slice(0, 20));
    new KeyMemory(path).learn(lineage, { epoch: 3, ended: true });
    assert.deepEqual(new KeyMemory(path).of(lineage), { epoch: 3, ended: true });
    return Promise.resolve();
  }));

  it('what cannot be written is told, holds meanwhile, and is written with the next', () => withDirectory((directory) => {
    const path = join(directory, 'lineage-keys');
    const told: Error[] = [];
    const memory = new KeyMemory(path, (error) => void told.push(error));
    mkdirSync(path);
    memory.learn(lineage, { epoch: 2, ended: true });
    assert.equal(told.length, 1);
    assert.deepEqual(memory.of(lineage), { epoch: 2, ended: true });
    rmSync(path, { recursive: true });
    memory.learn(parseLineageId('ff'.repeat(16)), { epoch: 2, ended: false });
    assert.deepEqual(new KeyMemory(path).of(lineage), { epoch: 2, ended: true });
    return Promise.resolve();
  }));

  it('an answer that was on its way while the key was changed is no rollback', async () => {
    const memory = new KeyMemory();
    const before = memory.of(lineage);
    memory.learn(lineage, { epoch: 2, ended: true });
    memory.requireNotOlder('lineages/x', { epoch: 1, ended: false }, before);
    assert.equal(await failure(Promise.resolve().then(() => memory.requireNotOlder('lineages/x', { epoch: 1, ended: false }, memory.of(lineage)))), 'OBJECT_CORRUPT');
  });
});
