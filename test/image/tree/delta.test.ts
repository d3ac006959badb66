import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, chmodSync, closeSync, existsSync, linkSync, mkdirSync, mkdtempSync, openSync, readdirSync, renameSync, rmSync, statSync, symlinkSync, truncateSync, unlinkSync, utimesSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { describe, it } from 'node:test';
import { MNT_DETACH, lsetxattr, mount, umount } from '../../../src/host/libc.ts';
import { TreeSaver, loadTree } from '../../../src/image/tree/index.ts';
import type { SavedTreeCounts } from '../../../src/image/tree/index.ts';
import type { FileSlice, Piece } from '../../../src/repository/stage/port.ts';
import { MemoryCheckpoint } from '../../support/memory-checkpoint.ts';
import { snapshot } from '../../support/tree-snapshot.ts';

const signal = undefined;
/** Longer than what a file's times may hide. */
const settle = async (): Promise<void> => sleep(150);

async function cycle(root: string, between: () => void | Promise<void>, distrust: string[] = [], checkpoint = new MemoryCheckpoint()): Promise<SavedTreeCounts> {
  await using saver = new TreeSaver({ writer: checkpoint, prefix: '', root, kind: 'plain' });
  await saver.readAhead({ signal });
  await between();
  const frozen = snapshot(root);
  await saver.delta({ signal, distrust: distrust.map((path) => Buffer.from(path)) });
  const saved = await saver.finish({ signal });
  const target = mkdtempSync('/srv/target-');
  await loadTree(checkpoint, '', target, { signal });
  assert.deepEqual([...snapshot(target)], [...frozen]);
  rmSync(target, { recursive: true });
  return saved;
}

function source(files: number): string {
  const root = mkdtempSync('/srv/source-');
  mkdirSync(join(root, 'd'));
  for (let i = 0; i < files; i++) writeFileSync(join(root, 'd', `f${i}`), `content ${i}`);
  return root;
}

void describe('what is read while the container is frozen', () => {
  void it('is nothing when nothing changed', async () => {
    const root = source(50);
    await settle();
    const saved = await cycle(root, () => {});
    assert.deepEqual(saved.ahead.files, 50);
    assert.deepEqual(saved.frozen, { files: 0, bytes: 0 });
    assert.equal(saved.supersededBytes, 0);
    rmSync(root, { recursive: true });
  });

  void it('is what changed, in any of the ways in which a file changes', async () => {
    const root = source(20);
    const at = (name: string): string => join(root, 'd', name);
    linkSync(at('f0'), at('other-name'));
    await settle();
    const saved = await cycle(root, () => {
      writeFileSync(at('f1'), 'CONTENT 1');
      appendFileSync(at('f2'), ' and more');
      truncateSync(at('f3'), 3);
      chmodSync(at('f4'), 0o600);
      lsetxattr(at('f5'), 'user.x', Buffer.from('1'));
      unlinkSync(at('f6'));
      renameSync(at('f7'), at('f7-renamed'));
      writeFileSync(at('new'), 'new');
      linkSync(at('f8'), at('f8-again'));
      unlinkSync(at('f9'));
      mkdirSync(at('f9'));
      symlinkSync('x', join(root, 'link'));
      // The times are set back, but not the time of the change.
      const { atime, mtime } = statSync(at('f10'));
      writeFileSync(at('f10'), 'CONTENTX10');
      utimesSync(at('f10'), atime, mtime);
      writeFileSync(at('replacement'), 'content X');
      renameSync(at('replacement'), at('f11'));
    });
    assert.equal(saved.ahead.files, 20);
    assert.ok(saved.frozen.files >= 8 && saved.frozen.files <= 12, `${saved.frozen.files} files were read again`);
    assert.ok(saved.supersededBytes > 0);
    rmSync(root, { recursive: true });
  });

  void it('is what was written too shortly before the read-ahead to tell a later write from it', async () => {
    const root = source(3);
    const saved = await cycle(root, () => {});
    assert.equal(saved.frozen.files, 3);
    rmSync(root, { recursive: true });
  });

  void it('shrinks with a second read-ahead', async () => {
    const root = source(30);
    const checkpoint = new MemoryCheckpoint();
    await using saver = new TreeSaver({ writer: checkpoint, prefix: '', root, kind: 'plain' });
    await saver.readAhead({ signal });
    await settle();
    await saver.readAhead({ signal });
    await saver.delta({ signal });
    const saved = await saver.finish({ signal });
    assert.deepEqual([saved.ahead.files, saved.frozen.files], [60, 0]);
    rmSync(root, { recursive: true });
  });

  void it('is what the caller says can be written without a trace', async () => {
    const root = source(3);
    await settle();
    const saved = await cycle(root, () => {}, ['d/f1', 'd/gone', 'nowhere/x', '/d/f2']);
    assert.equal(saved.frozen.files, 2);
    rmSync(root, { recursive: true });
  });

  void it('is everything on a file system in memory', async () => {
    const root = mkdtempSync('/srv/shm-');
    mount('tmpfs', root, 'tmpfs', 0, 'mode=1777');
    try {
      writeFileSync(join(root, 'segment'), Buffer.alloc(300_000, 'x'));
      const fd = openSync(join(root, 'sparse'), 'w');
      writeSync(fd, Buffer.alloc(4096, 'y'), 0, 4096, 40_960);
      closeSync(fd);
      await settle();
      const saved = await cycle(root, () => {});
      assert.deepEqual([saved.ahead.files, saved.frozen.files, saved.frozen.bytes], [0, 2, 304_096]);
    } finally {
      umount(root, MNT_DETACH);
      rmSync(root, { recursive: true });
    }
  });

  void it('is read until it holds still', async () => {
    const root = source(2);
    await settle();
    const checkpoint = new MemoryCheckpoint();
    let writes = 0;
    checkpoint.onTake = (piece) => {
      if (names(piece).includes('d/f1') && writes++ < 2) writeFileSync(join(root, 'd/f1'), `changed ${writes}`);
    };
    await using saver = new TreeSaver({ writer: checkpoint, prefix: '', root, kind: 'plain' });
    await saver.delta({ signal });
    const saved = await saver.finish({ signal });
    assert.equal(saved.frozen.files, 4);
    const target = mkdtempSync('/srv/target-');
    await loadTree(checkpoint, '', target, { signal });
    assert.deepEqual([...snapshot(target)], [...snapshot(root)]);
    rmSync(root, { recursive: true });
    rmSync(target, { recursive: true });
  });

  void it('fails when a file never holds still, and names it', async () => {
    const root = source(2);
    const checkpoint = new MemoryCheckpoint();
    let size = 100;
    checkpoint.onTake = () => truncateSync(join(root, 'd/f1'), size++);
    await using saver = new TreeSaver({ writer: checkpoint, prefix: '', root, kind: 'plain' });
    await assert.rejects(saver.delta({ signal }), (error: Error & { code?: string }) => error.code === 'DUMP_FAILED' && error.message.includes('"d/f1"'));
    rmSync(root, { recursive: true });
  });

  void it('is consistent for a log that grows all the time', async () => {
    const root = source(100);
    const log = join(root, 'log');
    writeFileSync(log, '');
    const busy = new Worker(`const fs = require('node:fs'); const { workerData: d, parentPort: p } = require('node:worker_threads');
      let run = true; let n = 0; p.on('message', () => { run = false; });
      const tick = () => { for (let i = 0; i < 50; i++) fs.appendFileSync(d + '/log', 'line ' + n++ + '\\n'); fs.writeFileSync(d + '/d/f' + (n % 100), 'n ' + n); if (run) setImmediate(tick); else p.postMessage('held'); };
      tick();`, { eval: true, workerData: root });
    await sleep(100);
    const saved = await cycle(root, async () => {
      const held = new Promise((resolve) => busy.once('message', resolve));
      busy.postMessage('hold');
      await held;
    });
    assert.ok(saved.frozen.files > 0);
    await busy.terminate();
    rmSync(root, { recursive: true });
  });
});

void describe('a saver', () => {
  void it('reads a volume that only the container’s mount namespace has', async () => {
    const script = 'mkdir -p /srv/elsewhere; mount -t tmpfs none /srv/elsewhere; echo inside > /srv/elsewhere/file; truncate -s 1M /srv/elsewhere/sparse; echo ready; exec sleep 60';
    const other = spawn('unshare', ['--mount', 'sh', '-c', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      await once(other.stdout, 'data');
      const root = `/proc/${other.pid}/root/srv/elsewhere`;
      const saved = await cycle(root, () => {});
      assert.deepEqual([saved.files, saved.frozen.files], [2, 2]);
    } finally {
      const closed = once(other, 'close');
      other.kill('SIGKILL');
      await closed;
      rmSync('/srv/elsewhere', { recursive: true });
    }
  });

  void it('stops when it is cancelled, and leaves no descriptor open', async () => {
    const root = source(300);
    const before = readdirSync('/proc/self/fd').length;
    {
      const controller = new AbortController();
      const checkpoint = new MemoryCheckpoint();
      checkpoint.onTake = () => controller.abort(new Error('enough'));
      await using saver = new TreeSaver({ writer: checkpoint, prefix: '', root, kind: 'plain' });
      await assert.rejects(saver.readAhead({ signal: controller.signal }), /enough/);
    }
    assert.equal(readdirSync('/proc/self/fd').length, before);
    rmSync(root, { recursive: true });
  });

  void it('says what is missing when the directory is gone', async () => {
    await using saver = new TreeSaver({ writer: new MemoryCheckpoint(), prefix: '', root: '/srv/nothing-here', kind: 'plain' });
    await assert.rejects(saver.readAhead({ signal }), /\/srv\/nothing-here is not a directory/);
    assert.equal(existsSync('/srv/nothing-here'), false);
  });
});

function names(piece: Piece): string[] {
  return piece.source.kind === 'files' ? piece.source.files.map((file: FileSlice) => Buffer.from(file.path).toString()) : [];
}
