/** The next checkpoint of the same directory: what did not change is not read, what changed in any way is. */
import assert from 'node:assert/strict';
import { appendFileSync, chmodSync, cpSync, linkSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, truncateSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../../../src/core/clock.ts';
import type { CheckpointId } from '../../../src/core/ids.ts';
import { newCheckpointId } from '../../../src/core/ids.ts';
import { lsetxattr } from '../../../src/host/libc.ts';
import { TreeSaver, loadTree } from '../../../src/image/tree/index.ts';
import type { SavedTreeCounts } from '../../../src/image/tree/index.ts';
import { fileKeyProvider, openDirectoryStore, openRepository } from '../../../src/repository/index.ts';
import type { CheckpointSummary, DirectoryStore, Repository } from '../../../src/repository/index.ts';
import { snapshot } from '../../support/tree-snapshot.ts';

const signal = undefined;

interface Saved {
  readonly counts: SavedTreeCounts;
  readonly summary: CheckpointSummary;
}

void describe('the next checkpoint of a directory', () => {
  let base: string;
  let store: DirectoryStore;
  let repository: Repository;
  let lastMs = 0;

  before(async () => {
    base = mkdtempSync('/srv/tree-memory-');
    store = await openDirectoryStore(join(base, 'repository'));
    repository = await openRepository({ store, keys: await fileKeyProvider(join(base, 'key'), { create: true }), clock: systemClock, workers: 2 });
  });

  after(async () => {
    await repository.close();
    await store.close();
    rmSync(base, { recursive: true });
  });

  function nextId(): CheckpointId {
    lastMs = Math.max(lastMs + 1, Date.now());
    return newCheckpointId(lastMs);
  }

  /** Saves, loads again, compares. */
  async function save(root: string, last?: Saved, distrust: readonly string[] = []): Promise<Saved> {
    const writer = await repository.begin({ id: nextId(), lineage: last?.summary.lineage }, { signal });
    assert.equal(writer.ancestor, last?.summary.id);
    await using saver = new TreeSaver({ writer, prefix: 'x/', root, kind: 'plain', memory: last?.counts.memory, remember: true });
    await saver.readAhead({ signal });
    await saver.delta({ signal, distrust: distrust.map((path) => Buffer.from(path)) });
    const counts = await saver.finish({ signal });
    const summary = await writer.commit({}, { signal });
    await compare(summary, root);
    return { counts, summary };
  }

  async function compare(summary: CheckpointSummary, root: string): Promise<void> {
    const target = mkdtempSync(join(base, 'target-'));
    await loadTree(await repository.open(summary.id, { signal }), 'x/', target, { signal });
    assert.deepEqual([...snapshot(target)], [...snapshot(root)]);
    rmSync(target, { recursive: true });
  }

  function source(files: number): string {
    const root = mkdtempSync(join(base, 'source-'));
    mkdirSync(join(root, 'd'));
    for (let i = 0; i < files; i++) writeFileSync(join(root, 'd', `f${i}`), `content ${i} `.repeat(200));
    writeFileSync(join(root, 'large'), Buffer.alloc(3_000_000, 'large file '));
    return root;
  }

  const settle = async (): Promise<void> => sleep(150);

  void it('reads nothing when nothing changed, and stores next to nothing', async () => {
    const root = source(500);
    linkSync(join(root, 'd/f1'), join(root, 'twin'));
    lsetxattr(join(root, 'd/f2'), 'user.x', Buffer.from('1'));
    await settle();
    const first = await save(root);
    const second = await save(root, first);
    assert.deepEqual(second.counts.ahead, { files: 0, bytes: 0 });
    assert.deepEqual(second.counts.frozen, { files: 0, bytes: 0 });
    assert.equal(second.counts.known.files, 501);
    assert.equal(second.summary.bytes.stored, 0);
    const third = await save(root, second);
    assert.equal(third.counts.ahead.files, 0);
    await repository.delete(first.summary.id, { signal });
    await repository.delete(second.summary.id, { signal });
    await compare(third.summary, root);
  });

  void it('reads what changed, in any of the ways in which a file changes', async () => {
    const root = source(100);
    await settle();
    const at = (name: string): string => join(root, 'd', name);
    let last = await save(root);
    writeFileSync(at('f1'), 'other');
    appendFileSync(at('f2'), 'more');
    truncateSync(at('f3'), 3);
    chmodSync(at('f4'), 0o600);
    lsetxattr(at('f5'), 'user.x', Buffer.from('1'));
    unlinkSync(at('f6'));
    renameSync(at('f7'), at('f7-renamed'));
    writeFileSync(at('new'), 'new');
    writeFileSync(at('f8'), 'CONTENT 8 '.repeat(200));
    utimesSync(at('f8'), 1, 1);
    last = await save(root, last);
    assert.ok(last.counts.ahead.files >= 8 && last.counts.ahead.files <= 9, `${last.counts.ahead.files} files`);
    for (let i = 0; i < 100; i++) if (i !== 50) rmSync(at(`f${i}`), { force: true });
    last = await save(root, last);
    assert.ok(last.counts.ahead.files <= 9);
    await settle();
    // What is left in chunks that hold little else is read once more, so that those can go.
    const reads: number[] = [];
    for (let i = 0; i < 4; i++) {
      last = await save(root, last);
      reads.push(last.counts.ahead.files);
    }
    assert.equal(reads.at(-1), 0, `files read: ${reads.join(', ')}`);
  });

  void it('reads again what was written around the last one, and what was mapped', async () => {
    const root = source(10);
    await settle();
    writeFileSync(join(root, 'd/fresh'), 'fresh');
    const first = await save(root, undefined, ['/d/f3']);
    const second = await save(root, first);
    assert.equal(second.counts.ahead.files, 2, 'the fresh one and the mapped one');
  });

  void it('trusts nothing in another directory, even with the same inodes in its memory', async () => {
    const root = source(20);
    await settle();
    const first = await save(root);
    const copy = mkdtempSync(join(base, 'copy-'));
    cpSync(root, copy, { recursive: true, preserveTimestamps: true });
    for (const name of readdirSync(join(copy, 'd'))) writeFileSync(join(copy, 'd', name), 'of the copy');
    const second = await save(copy, first);
    assert.equal(second.counts.known.files, 0);
    assert.equal(second.counts.ahead.files + second.counts.frozen.files >= 21, true);
  });

  void it('reads what the last checkpoint does not have any more', async () => {
    const root = source(20);
    await settle();
    const first = await save(root);
    const other = source(3);
    // Another checkpoint came between: what it has is not what the memory speaks of.
    const writer = await repository.begin({ id: nextId(), lineage: first.summary.lineage }, { signal });
    await using saver = new TreeSaver({ writer, prefix: 'y/', root: other, kind: 'plain' });
    await saver.delta({ signal });
    await saver.finish({ signal });
    const between = await writer.commit({}, { signal });
    const second = await save(root, { counts: first.counts, summary: between });
    assert.equal(second.counts.ahead.files, 21);
  });
});
