/** The next checkpoint of the same directory: what did not change is not read, what changed in any way is. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { appendFileSync, chmodSync, cpSync, linkSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, statSync, truncateSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../../../src/core/clock.ts';
import type { Clock } from '../../../src/core/clock.ts';
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
  async function save(root: string, last?: Saved, distrust: readonly string[] = [], clock: Clock = systemClock): Promise<Saved> {
    const writer = await repository.begin({ id: nextId(), lineage: last?.summary.lineage }, { signal });
    assert.equal(writer.ancestor, last?.summary.id);
    await using saver = new TreeSaver({ writer, prefix: 'x/', root, kind: 'plain', memory: last?.counts.memory, remember: true, clock });
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
    // However busy the machine is: the walk begins now.
    const nowMs = Date.now();
    writeFileSync(join(root, 'd/fresh'), 'fresh');
    const first = await save(root, undefined, ['/d/f3'], { ...systemClock, now: () => nowMs });
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

  void it('is not fooled by a file that looks like the one before', async () => {
    const root = source(40);
    const at = (name: string): string => join(root, 'd', name);
    // Half of them with times that somebody chose, as an archive does it.
    for (let i = 0; i < 40; i += 2) utimesSync(at(`f${i}`), 1000, 1000);
    linkSync(at('f9'), at('f9-twin'));
    await settle();
    const first = await save(root);
    const forged = (name: string, text: string): void => {
      const { size, atimeMs, mtimeMs } = statSync(at(name));
      writeFileSync(at(`${name}.new`), text.repeat(size).slice(0, size));
      utimesSync(at(`${name}.new`), atimeMs / 1000, mtimeMs / 1000);
    };
    // Same size and mtime: replaced by a rename, by a hard link, written in place, and through a name that is gone again.
    forged('f2', 'renamed over ');
    renameSync(at('f2.new'), at('f2'));
    forged('f4', 'linked instead ');
    unlinkSync(at('f4'));
    linkSync(at('f4.new'), at('f4'));
    unlinkSync(at('f4.new'));
    const { size } = statSync(at('f6'));
    writeFileSync(at('f6'), 'in place '.repeat(size).slice(0, size));
    utimesSync(at('f6'), 1000, 1000);
    linkSync(at('f8'), at('f8-other'));
    writeFileSync(at('f8-other'), 'by another name '.repeat(size).slice(0, statSync(at('f8')).size));
    utimesSync(at('f8'), 1000, 1000);
    unlinkSync(at('f8-other'));
    unlinkSync(at('f9'));
    // An inode that is used again.
    const { ino, size: length } = statSync(at('f10'));
    unlinkSync(at('f10'));
    for (let i = 0; i < 200; i += 1) {
      writeFileSync(at('f10'), 'born again '.repeat(length).slice(0, length));
      if (statSync(at('f10')).ino === ino) break;
      renameSync(at('f10'), at(`not-${i}`));
    }
    utimesSync(at('f10'), 1000, 1000);
    // save() compares every byte with what is there.
    const second = await save(root, first);
    assert.ok(second.counts.ahead.files >= 5, `${second.counts.ahead.files} files`);
  });

  void it('sees what was written through a mapping that came and went in between', async () => {
    const root = source(5);
    const path = join(root, 'd/f1');
    await settle();
    const first = await save(root);
    execFileSync('python3', ['-c', `import mmap\nwith open(${JSON.stringify(path)}, 'r+b') as file:\n  with mmap.mmap(file.fileno(), 0) as view: view[5:15] = b'mapped one'\n`]);
    assert.ok(readFileSync(path, 'latin1').includes('mapped one'));
    const second = await save(root, first);
    assert.equal(second.counts.ahead.files, 1);
  });

  void it('forgets everything when the clock was set back, or the machine was booted again', async () => {
    const root = source(5);
    await settle();
    const first = await save(root);
    const back: Clock = { ...systemClock, now: () => Date.now() - 3_600_000 };
    assert.equal((await save(root, first, [], back)).counts.known.files, 0);
    const second = await save(root, undefined);
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
    const memory = Buffer.from(second.counts.memory ?? []);
    const place = memory.indexOf(boot, 0, 'latin1');
    assert.ok(place > 0);
    memory.write('0', place, 'latin1');
    memory.write('1', place + 1, 'latin1');
    assert.equal((await save(root, { ...second, counts: { ...second.counts, memory } })).counts.known.files, 0);
    assert.equal((await save(root, second.counts.memory === undefined ? undefined : await save(root))).counts.known.files, 6);
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
