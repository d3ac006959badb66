import assert from 'node:assert/strict';
import { chmodSync, existsSync, linkSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, symlinkSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { AT_FDCWD, MNT_DETACH, lgetxattr, lsetxattr, mknodat, mount, umount } from '../../../src/host/libc.ts';
import { TreeSaver, loadTree, loadTreeMerged } from '../../../src/image/tree/index.ts';
import { MemoryCheckpoint } from '../../support/memory-checkpoint.ts';
import { snapshot } from '../../support/tree-snapshot.ts';

const signal = undefined;

/** An overlay on a real file system; unmounted and removed at the end. */
class Overlay implements Disposable {
  readonly directory = mkdtempSync('/srv/overlay-');
  readonly lower: string;
  readonly upper = join(this.directory, 'upper');
  readonly work = join(this.directory, 'work');
  readonly merged = join(this.directory, 'merged');

  constructor(lower: string | undefined, options: { userxattr?: boolean; redirect?: boolean } = {}) {
    this.lower = lower ?? join(this.directory, 'lower');
    for (const path of [this.upper, this.work, this.merged]) mkdirSync(path);
    if (lower === undefined) makeLower(this.lower);
    this.#options = `${options.userxattr === true ? ',userxattr' : ''}${options.redirect === true ? ',redirect_dir=on' : ''}`;
  }

  readonly #options: string;
  #mounted = false;

  mount(): this {
    mount('overlay', this.merged, 'overlay', 0, `lowerdir=${this.lower},upperdir=${this.upper},workdir=${this.work}${this.#options}`);
    this.#mounted = true;
    return this;
  }

  [Symbol.dispose](): void {
    if (this.#mounted) umount(this.merged, MNT_DETACH);
    rmSync(this.directory, { recursive: true });
  }
}

function makeLower(lower: string): void {
  for (const path of ['etc/deep/er', 'opaque/old', 'renamed', 'to-file', 'kept/sub', 'moved/in']) mkdirSync(join(lower, path), { recursive: true });
  for (const path of ['etc/passwd', 'etc/deep/er/x', 'opaque/old/y', 'opaque/z', 'renamed/r', 'to-file/f', 'to-dir', 'gone', 'kept/sub/k', 'moved/in/m', 'linked', 'touched']) writeFileSync(join(lower, path), `lower ${path}`);
  symlinkSync('/etc', join(lower, 'dangerous'));
}

function change(merged: string): void {
  const at = (path: string): string => join(merged, path);
  writeFileSync(at('new'), 'new');
  writeFileSync(at('etc/passwd'), 'changed');
  unlinkSync(at('gone'));
  rmSync(at('opaque'), { recursive: true });
  mkdirSync(at('opaque'));
  writeFileSync(at('opaque/fresh'), 'fresh');
  rmSync(at('renamed'), { recursive: true });
  mkdirSync(at('staging/inner'), { recursive: true });
  writeFileSync(at('staging/inner/s'), 's');
  renameSync(at('staging'), at('renamed'));
  rmSync(at('to-file'), { recursive: true });
  writeFileSync(at('to-file'), 'a file now');
  unlinkSync(at('to-dir'));
  mkdirSync(at('to-dir'));
  rmSync(at('moved'), { recursive: true });
  linkSync(at('linked'), at('linked-again'));
  chmodSync(at('touched'), 0o6711);
  chmodSync(at('kept'), 0o1777);
  unlinkSync(at('dangerous'));
  mkdirSync(at('dangerous'));
  writeFileSync(at('dangerous/inside'), 'not in /etc');
  lsetxattr(at('new'), 'user.x', Buffer.from('1'));
  mknodat(AT_FDCWD, at('fifo'), 0o010600, 0n);
  utimesSync(at('kept'), 1, 1e9);
}

async function save(root: string, userxattr = false): Promise<MemoryCheckpoint> {
  const checkpoint = new MemoryCheckpoint();
  await using saver = new TreeSaver({ writer: checkpoint, prefix: 'u/', root, kind: 'overlay-upper', userxattr });
  await saver.readAhead({ signal });
  await saver.delta({ signal });
  await saver.finish({ signal });
  return checkpoint;
}

void describe('an overlay’s upper directory', () => {
  for (const userxattr of [false, true]) {
    void it(`makes the same merged tree again (${userxattr ? 'userxattr' : 'trusted'})`, async () => {
      using first = new Overlay(undefined, { userxattr }).mount();
      change(first.merged);
      const checkpoint = await save(first.upper, userxattr);
      using second = new Overlay(first.lower, { userxattr });
      await loadTree(checkpoint, 'u/', second.upper, { signal, userxattr });
      // Of the overlay's own marks exactly the opaque ones come back.
      const mark = `${userxattr ? 'user' : 'trusted'}.overlay.`;
      const ignoreXattrs = (name: string): boolean => name.startsWith(mark) && name !== `${mark}opaque`;
      assert.deepEqual([...snapshot(second.upper, { ignoreXattrs })], [...snapshot(first.upper, { ignoreXattrs })]);
      assert.equal(lgetxattr(join(second.upper, 'opaque'), `${mark}opaque`)?.toString(), 'y');
      second.mount();
      assert.deepEqual([...snapshot(second.merged)], [...snapshot(first.merged)]);
      // And lives on.
      writeFileSync(join(second.merged, 'moved'), 'over a whiteout');
      assert.equal(readFileSync(join(second.merged, 'moved'), 'utf8'), 'over a whiteout');
    });
  }

  void it('is laid through a merged view that has other things in its way', async () => {
    using first = new Overlay(undefined).mount();
    change(first.merged);
    lsetxattr(join(first.merged, 'kept'), 'user.wanted', Buffer.from('1'));
    const checkpoint = await save(first.upper);
    using second = new Overlay(first.lower).mount();
    writeFileSync(join(second.merged, 'fifo'), 'in the way');
    mkdirSync(join(second.merged, 'new/full'), { recursive: true });
    writeFileSync(join(second.merged, 'opaque/more'), 'in the way');
    lsetxattr(join(second.merged, 'kept'), 'user.unwanted', Buffer.from('1'));
    await loadTreeMerged(checkpoint, 'u/', second.merged, { signal });
    assert.deepEqual([...snapshot(second.merged)], [...snapshot(first.merged)]);
    assert.equal(existsSync('/etc/inside'), false);
  });

  void it('removes through a merged view only what is in it', async () => {
    using first = new Overlay(undefined).mount();
    unlinkSync(join(first.merged, 'dangerous'));
    mkdirSync(join(first.merged, 'dangerous'));
    rmSync(join(first.merged, 'etc'), { recursive: true });
    const checkpoint = await save(first.upper);
    using second = new Overlay(first.lower).mount();
    const outside = mkdtempSync('/srv/outside-');
    writeFileSync(join(outside, 'precious'), '');
    rmSync(join(second.merged, 'etc'), { recursive: true });
    symlinkSync(outside, join(second.merged, 'etc'));
    await loadTreeMerged(checkpoint, 'u/', second.merged, { signal });
    assert.deepEqual(readdirSync(outside), ['precious']);
    assert.throws(() => lstatSync(join(second.merged, 'etc')), { code: 'ENOENT' });
    rmSync(outside, { recursive: true });
  });

  void it('with redirects or metacopy is refused, naming the mark and the way out', async () => {
    using first = new Overlay(undefined, { redirect: true }).mount();
    renameSync(join(first.merged, 'kept'), join(first.merged, 'elsewhere'));
    await assert.rejects(save(first.upper), (error: Error & { code?: string; hint?: string }) => {
      assert.equal(error.code, 'NOT_CHECKPOINTABLE');
      assert.match(error.message, /"elsewhere" with redirect/);
      assert.match(error.hint ?? '', /redirect_dir/);
      return true;
    });
  });

  void it('as a plain tree keeps the marks of an overlay inside it', async () => {
    using first = new Overlay(undefined).mount();
    change(first.merged);
    const checkpoint = new MemoryCheckpoint();
    await using saver = new TreeSaver({ writer: checkpoint, prefix: 'v/', root: first.upper, kind: 'plain' });
    await saver.delta({ signal });
    await saver.finish({ signal });
    const target = mkdtempSync('/srv/volume-');
    await loadTree(checkpoint, 'v/', target, { signal });
    assert.deepEqual([...snapshot(target)], [...snapshot(first.upper)]);
    rmSync(target, { recursive: true });
  });
});
