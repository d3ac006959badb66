/** Trees through the real repository with a directory store: what the in-memory double promises must be what it does. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { appendFileSync, closeSync, linkSync, mkdirSync, mkdtempSync, openSync, readdirSync, rmSync, symlinkSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../../../src/core/clock.ts';
import { newCheckpointId } from '../../../src/core/ids.ts';
import { AT_FDCWD, makeDevice, mknodat } from '../../../src/host/libc.ts';
import { TreeSaver, loadTree, loadTreeMerged, readTreeIndex } from '../../../src/image/tree/index.ts';
import type { SavedTreeCounts } from '../../../src/image/tree/index.ts';
import { fileKeyProvider, openDirectoryStore, openRepository } from '../../../src/repository/index.ts';
import type { CheckpointReader, DirectoryStore, Repository } from '../../../src/repository/index.ts';
import { snapshot } from '../../support/tree-snapshot.ts';

const signal = undefined;

void describe('a tree in the real repository', () => {
  let base: string;
  let store: DirectoryStore;
  let repository: Repository;

  before(async () => {
    base = mkdtempSync('/srv/tree-repository-');
    store = await openDirectoryStore(join(base, 'repository'));
    repository = await openRepository({ store, keys: await fileKeyProvider(join(base, 'key'), { create: true }), clock: systemClock, workers: 2 });
  });

  after(async () => {
    await repository.close();
    await store.close();
    rmSync(base, { recursive: true });
  });

  async function save(root: string, between: () => void): Promise<{ reader: CheckpointReader; saved: SavedTreeCounts }> {
    const writer = await repository.begin({ id: newCheckpointId(Date.now()), lineage: undefined }, { signal });
    await using saver = new TreeSaver({ writer, prefix: 'volumes/0/', root, kind: 'plain' });
    await saver.readAhead({ signal });
    between();
    await saver.delta({ signal });
    const saved = await saver.finish({ signal });
    const { id } = await writer.commit({}, { signal });
    return { reader: await repository.open(id, { signal }), saved };
  }

  /** Islands of data, of several sizes, so that small ones share pieces with other files and large ones do not. */
  function sparse(path: string, islands: readonly (readonly [number, number])[], size: number): void {
    const fd = openSync(path, 'w');
    for (const [at, length] of islands) writeSync(fd, randomBytes(length), 0, length, at);
    closeSync(fd);
    truncateSync(path, size);
  }

  function makeSource(): string {
    const root = mkdtempSync(join(base, 'source-'));
    mkdirSync(join(root, 'd/e'), { recursive: true });
    for (let i = 0; i < 300; i++) writeFileSync(join(root, 'd', `f${i}`), randomBytes((i * 7919) % 40_000));
    const M = 1024 * 1024;
    sparse(join(root, 'd/e/islands'), [[0, 4096], [M, 8192], [2 * M, 4096]], 3 * M + 1);
    sparse(join(root, 'd/e/mixed'), [[4096, 4096], [M, 3 * M], [8 * M, 4096], [9 * M, 2 * M + 4096], [20 * M, 4096]], 30 * M);
    sparse(join(root, 'hole'), [], 100 * M);
    sparse(join(root, 'tail'), [[7 * M, M]], 8 * M);
    writeFileSync(join(root, 'zeros'), Buffer.alloc(5 * M + 123));
    writeFileSync(join(root, 'zeros-inside'), Buffer.concat([randomBytes(4096), Buffer.alloc(3 * M), randomBytes(M), Buffer.alloc(4096)]));
    writeFileSync(join(root, 'small-zeros'), Buffer.alloc(50_000));
    writeFileSync(join(root, 'same-1'), Buffer.alloc(M, 'same'));
    writeFileSync(join(root, 'same-2'), Buffer.alloc(M, 'same'));
    writeFileSync(join(root, 'log'), 'begin\n');
    linkSync(join(root, 'd/f7'), join(root, 'f7'));
    symlinkSync('d', join(root, 'l'));
    mknodat(AT_FDCWD, join(root, 'null'), 0o020666, makeDevice(1, 3));
    return root;
  }

  const change = (root: string): void => {
    for (let i = 0; i < 300; i += 9) appendFileSync(join(root, 'd', `f${i}`), 'changed');
    appendFileSync(join(root, 'log'), 'more\n');
    writeFileSync(join(root, 'zeros-inside'), randomBytes(100));
    writeFileSync(join(root, 'new'), randomBytes(2_500_000));
    rmSync(join(root, 'same-1'));
  };

  void it('comes back as it was when it was frozen', async () => {
    const root = makeSource();
    await sleep(150);
    const { reader, saved } = await save(root, () => change(root));
    assert.ok(saved.supersededBytes > 0);
    const target = mkdtempSync(join(base, 'target-'));
    let bytes = 0;
    await loadTree(reader, 'volumes/0/', target, { signal, devices: [{ allow: true }], onBytes: (count) => (bytes += count) });
    assert.deepEqual([...snapshot(target)], [...snapshot(root)]);
    assert.ok(bytes > 0);
    const entries = [];
    for await (const entry of readTreeIndex(reader, 'volumes/0/', { signal })) entries.push(entry);
    assert.equal(entries.length, saved.entries);
    // Once more over itself, through what could be a merged view.
    await loadTreeMerged(reader, 'volumes/0/', target, { signal, devices: [{ allow: true }] });
    assert.deepEqual([...snapshot(target)], [...snapshot(root)]);
  });

  void it('without any data, or empty, needs no data blob', async () => {
    const root = mkdtempSync(join(base, 'source-'));
    for (const make of [() => {}, () => writeFileSync(join(root, 'empty'), ''), () => sparse(join(root, 'hole'), [], 4096)]) {
      make();
      const { reader } = await save(root, () => {});
      const target = mkdtempSync(join(base, 'target-'));
      await loadTree(reader, 'volumes/0/', target, { signal });
      assert.deepEqual([...snapshot(target)], [...snapshot(root)]);
    }
  });

  void it('goes deeper than PATH_MAX', async () => {
    const root = mkdtempSync(join(base, 'deep-'));
    const down = "import os\nfor i in range(30):\n os.mkdir('d'*200); os.chdir('d'*200); open('file','w').write(str(i)*1000)\nopen('big','wb').write(os.urandom(1000)*3000)";
    execFileSync('python3', ['-c', down], { cwd: root });
    const { reader } = await save(root, () => {});
    const target = mkdtempSync(join(base, 'target-'));
    await loadTree(reader, 'volumes/0/', target, { signal });
    execFileSync('diff', ['-r', root, target], { maxBuffer: 1e6 });
  });

  void it('leaves no descriptor open', async () => {
    const root = makeSource();
    const target = mkdtempSync(join(base, 'target-'));
    const descriptors = (): number => readdirSync('/proc/self/fd').length;
    await save(root, () => change(root));
    const open = descriptors();
    const { reader } = await save(root, () => {});
    await loadTree(reader, 'volumes/0/', target, { signal });
    assert.equal(descriptors(), open);
  });

  void it('with a flipped byte is refused', async () => {
    const root = makeSource();
    const { reader } = await save(root, () => {});
    const packs = join(base, 'repository/packs');
    const newest = readdirSync(packs, { recursive: true, encoding: 'utf8' }).filter((name) => name.includes(reader.summary.id)).toSorted();
    const pack = newest.map((name) => join(packs, name)).find((path) => path.endsWith(newest.at(-1) as string)) as string;
    const fd = openSync(pack, 'r+');
    writeSync(fd, Buffer.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff), 0, 6, 100_000);
    closeSync(fd);
    const target = mkdtempSync(join(base, 'target-'));
    await assert.rejects(async () => loadTree(reader, 'volumes/0/', target, { signal }), { code: 'OBJECT_CORRUPT' });
  });
});
