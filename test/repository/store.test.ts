import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rmdir, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { StasisError } from '../../src/core/errors.ts';
import { MS_NOSUID, mount, umount } from '../../src/host/libc.ts';
import { MemoryStore, openDirectoryStore } from '../../src/repository/index.ts';
import { storeError } from '../../src/repository/store/errors.ts';
import { storeSuite } from './store-suite.ts';
import { anySignal, failure, withDirectory } from './support.ts';

storeSuite('memory', (use) => use(new MemoryStore()));
storeSuite('directory', (use) =>
  withDirectory(async (directory) => {
    const store = await openDirectoryStore(directory);
    try {
      await use(store);
    } finally {
      await store.close();
    }
    assert.deepEqual((await readdir(directory)).sort(), ['lineages', 'manifests', 'packs', 'pins', 'writers'], 'nothing is left but objects');
    for (const folder of await readdir(directory)) {
      const left = (await readdir(join(directory, folder))).filter((name) => name.startsWith('.'));
      assert.deepEqual(left, []);
    }
  }),
);

/** A small file system of its own, or undefined where mounting is not allowed. */
async function withTmpfs(options: string, use: (directory: string) => Promise<void>): Promise<void> {
  await withDirectory(async (parent) => {
    const directory = await mkdtemp(join(parent, 'mount-'));
    mount('tmpfs', directory, 'tmpfs', MS_NOSUID, options);
    try {
      await use(directory);
    } finally {
      umount(directory, 2);
      await rmdir(directory);
    }
  });
}

void test('directory: objects are for their owner only', () =>
  withDirectory(async (parent) => {
    const directory = join(parent, 'new', 'repository');
    const store = await openDirectoryStore(directory);
    await store.put('packs/a', [Buffer.of(1)], anySignal);
    assert.equal((await stat(join(directory, 'packs'))).mode & 0o777, 0o700);
    assert.equal((await stat(join(directory, 'packs/a'))).mode & 0o777, 0o600);
    await store.close();
  }));

void test('directory: a full volume is NO_SPACE and leaves nothing behind', () =>
  withTmpfs('size=1m', async (directory) => {
    const store = await openDirectoryStore(directory);
    await store.put('packs/small', [Buffer.alloc(1000)], anySignal);
    assert.equal(await failure(store.put('packs/large', [Buffer.alloc(4_000_000)], anySignal)), 'NO_SPACE');
    assert.deepEqual(await readdir(join(directory, 'packs')), ['small']);
    await store.put('packs/after', [Buffer.alloc(1000)], anySignal);
    assert.ok(((await store.freeBytes()) ?? 0) > 500_000, 'the space is free again');
    await store.close();
  }));

void test('directory: a read-only volume can be read', () =>
  withTmpfs('size=4m', async (directory) => {
    const before = await openDirectoryStore(directory);
    await before.put('packs/a', [Buffer.from('there')], anySignal);
    await before.close();
    const MS_REMOUNT_READ_ONLY = 0x21;
    mount('tmpfs', directory, 'tmpfs', MS_REMOUNT_READ_ONLY, '');
    const store = await openDirectoryStore(directory);
    assert.equal(Buffer.from(await store.get('packs/a', undefined, anySignal)).toString(), 'there');
    assert.equal(await failure(store.put('packs/b', [Buffer.of(1)], anySignal)), 'STORE_READ_ONLY');
    assert.equal(await failure(store.delete('packs/a', anySignal)), 'STORE_READ_ONLY');
    await store.close();
  }));

void test('directory: a volume that turns read-only while it is open', () =>
  withTmpfs('size=4m', async (directory) => {
    const store = await openDirectoryStore(directory);
    // The lock file is open for writing, and would keep the volume busy as a real one's would not after an error.
    await store.close();
    mount('tmpfs', directory, 'tmpfs', 0x21, '');
    assert.equal(await failure(store.put('packs/b', [Buffer.of(1)], anySignal)), 'STORE_READ_ONLY');
  }));

void test('directory: temporary files of the dead go, those of the living stay', () =>
  withDirectory(async (directory) => {
    const living = await openDirectoryStore(directory);
    const [lock] = (await readdir(directory)).filter((name) => name.startsWith('.writer-'));
    const digits = lock?.slice('.writer-'.length) ?? '';
    await writeFile(join(directory, 'packs', `.tmp-${digits}-7`), 'being written');
    const dead = '0123456789abcdef';
    await writeFile(join(directory, `.writer-${dead}`), '');
    await writeFile(join(directory, 'packs', `.tmp-${dead}-0`), 'half');
    await writeFile(join(directory, 'manifests', `.tmp-${dead}-1`), 'half');
    await writeFile(join(directory, 'packs', 'stranger'), 'not ours to touch');
    const second = await openDirectoryStore(directory);
    assert.deepEqual((await readdir(join(directory, 'packs'))).sort(), [`.tmp-${digits}-7`, 'stranger']);
    assert.deepEqual(await readdir(join(directory, 'manifests')), []);
    assert.equal((await readdir(directory)).filter((name) => name.startsWith('.writer-')).length, 2);
    await Promise.all([living.close(), second.close()]);
  }));

void test('directory: kill -9 in the middle of puts leaves only whole objects', () =>
  withDirectory(async (directory) => {
    const script = `
      const { openDirectoryStore } = await import(${JSON.stringify(new URL('../../src/repository/index.js', import.meta.url).href)});
      const store = await openDirectoryStore(${JSON.stringify(directory)});
      for (let i = 0; ; i += 1) {
        await Promise.all([0, 1, 2].map((k) => store.put('packs/p-' + i + '-' + k, [Buffer.alloc(1 << 20, i)], { signal: undefined })));
        if (i === 2) process.stdout.write('going');
      }`;
    const child = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'data');
    child.kill('SIGKILL');
    await once(child, 'exit');
    assert.equal((await readdir(directory)).filter((name) => name.startsWith('.writer-')).length, 1, 'it left its lock');
    const store = await openDirectoryStore(directory);
    const objects = await Array.fromAsync(store.list('packs/', anySignal));
    assert.ok(objects.length >= 9);
    for (const { size } of objects) assert.equal(size, 1 << 20);
    assert.equal((await readdir(join(directory, 'packs'))).length, objects.length, 'its temporary files are gone');
    await store.close();
    assert.deepEqual((await readdir(directory)).filter((name) => name.startsWith('.')), []);
  }));

void test('directory: what is not a file is not an object', () =>
  withDirectory(async (directory) => {
    const store = await openDirectoryStore(directory);
    await symlink('/etc/passwd', join(directory, 'packs', 'link'));
    await mkdir(join(directory, 'packs', 'folder'));
    assert.equal(await failure(store.get('packs/link', undefined, anySignal)), 'OBJECT_CORRUPT');
    assert.equal(await failure(store.get('packs/folder', undefined, anySignal)), 'OBJECT_CORRUPT');
    await store.close();
  }));

void test('directory: a put that is cancelled half-way leaves nothing', () =>
  withDirectory(async (directory) => {
    const store = await openDirectoryStore(directory);
    const controller = new AbortController();
    const put = store.put('packs/a', Array.from({ length: 64 }, () => Buffer.alloc(1 << 20)), { signal: controller.signal });
    setImmediate(() => controller.abort(new Error('enough')));
    await assert.rejects(put, /enough/);
    assert.deepEqual(await readdir(join(directory, 'packs')), []);
    await store.close();
  }));

void test('system errors become the codes of the contract', () => {
  const system = (code: string): Error => Object.assign(new Error(code), { code });
  for (const [errno, code] of [['EIO', 'STORE_UNAVAILABLE'], ['ESTALE', 'STORE_UNAVAILABLE'], ['ENOSPC', 'NO_SPACE'], ['EDQUOT', 'NO_SPACE'], ['EROFS', 'STORE_READ_ONLY'], ['EACCES', 'PERMISSION_DENIED'], ['ENOENT', 'OBJECT_MISSING']]) {
    assert.equal(storeError(system(errno ?? ''), 'packs/a', 'read').code, code);
  }
  const ours = new StasisError('OBJECT_CORRUPT', 'x');
  assert.equal(storeError(ours, 'packs/a', 'read'), ours);
});
