import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, linkSync, lutimesSync, mkdirSync, mkdtempSync, openSync, closeSync, rmSync, symlinkSync, truncateSync, utimesSync, writeFileSync, writeSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { AT_FDCWD, lsetxattr, makeDevice, mknodat } from '../../../src/host/libc.ts';
import { TreeSaver, loadTree, readTreeIndex } from '../../../src/image/tree/index.ts';
import type { DeviceRule } from '../../../src/core/devices.ts';
import type { TreeKind } from '../../../src/image/tree/index.ts';
import { MemoryCheckpoint } from '../../support/memory-checkpoint.ts';
import { snapshot } from '../../support/tree-snapshot.ts';

const signal = undefined;
/** A file system with everything; /tmp of the box is a tmpfs. */
const scratch = '/srv';

async function roundTrip(root: string, kind: TreeKind, options: { ahead?: boolean; between?: () => void; devices?: readonly DeviceRule[] } = {}): Promise<{ target: string; checkpoint: MemoryCheckpoint; saved: Awaited<ReturnType<TreeSaver['finish']>>; warnings: readonly string[] }> {
  const checkpoint = new MemoryCheckpoint();
  await using saver = new TreeSaver({ writer: checkpoint, prefix: 't/', root, kind });
  if (options.ahead !== false) await saver.readAhead({ signal });
  options.between?.();
  await saver.delta({ signal });
  const saved = await saver.finish({ signal });
  const target = mkdtempSync(join(scratch, 'target-'));
  const loaded = await loadTree(checkpoint, 't/', target, { signal, devices: options.devices ?? [{ allow: true }] });
  assert.equal(loaded.entries, saved.entries);
  return { target, checkpoint, saved, warnings: loaded.warnings };
}

function makeEverything(root: string): void {
  const at = (name: string): string => join(root, name);
  mkdirSync(at('a/b/empty'), { recursive: true });
  writeFileSync(at('a/zero'), '');
  writeFileSync(at('a/hello'), 'hello');
  writeFileSync(at('a/b/large'), randomBytes(3 * 1024 * 1024 + 17));
  writeFileSync(at('a/b/exact'), randomBytes(1024 * 1024));
  writeFileSync(at('a/b/zeros'), Buffer.alloc(2 * 1024 * 1024 + 4096));
  const sparse = openSync(at('sparse'), 'w');
  writeSync(sparse, randomBytes(8192), 0, 8192, 1024 * 1024);
  writeSync(sparse, randomBytes(4096), 0, 4096, 9 * 1024 * 1024);
  closeSync(sparse);
  truncateSync(at('sparse'), 12 * 1024 * 1024 + 5);
  writeFileSync(at('hole'), '');
  truncateSync(at('hole'), 5 * 1024 * 1024 * 1024);
  linkSync(at('a/hello'), at('a/b/hello-again'));
  linkSync(at('a/hello'), at('0-first'));
  symlinkSync('../../etc/passwd', at('a/link'));
  symlinkSync('x'.repeat(4000), at('long-link'));
  linkSync(at('a/link'), at('a/link-again'));
  mknodat(AT_FDCWD, at('pipe'), 0o010640, 0n);
  mknodat(AT_FDCWD, at('socket'), 0o140755, 0n);
  mknodat(AT_FDCWD, at('null'), 0o020666, makeDevice(1, 3));
  mknodat(AT_FDCWD, at('disk'), 0o060600, makeDevice(259, 70000));
  writeFileSync(at('setuid'), 'x');
  chownSync(at('setuid'), 1234, 4_000_000_000);
  chmodSync(at('setuid'), 0o6755);
  lsetxattr(at('setuid'), 'security.capability', Buffer.from('0100000200040000000000000000000000000000', 'hex'));
  lsetxattr(at('a/hello'), 'user.color', Buffer.from([0, 255, 10]));
  lsetxattr(at('a/hello'), 'user.empty', Buffer.alloc(0));
  lsetxattr(at('a/link'), 'trusted.on-a-link', Buffer.from('1'));
  lsetxattr(at('a/b'), 'trusted.t', Buffer.from('y'));
  // The order of tags is that of the kernel: owner, user, group, named group, mask, others.
  lsetxattr(at('a/hello'), 'system.posix_acl_access', acl([1, 6], [2, 7, 1000], [4, 4], [8, 5, 7], [16, 7], [32, 4]));
  lsetxattr(at('a/b'), 'system.posix_acl_default', acl([1, 7], [2, 5, 1001], [4, 5], [16, 5], [32, 0]));
  for (const name of [Buffer.from([0xff, 0xfe, 0x80]), Buffer.from('new\nline'), Buffer.alloc(255, 'n'), Buffer.from(' '), Buffer.from('-rf'), Buffer.from('...'), Buffer.from('\x01')]) {
    writeFileSync(Buffer.concat([Buffer.from(`${root}/`), name]), name);
  }
  chmodSync(at('a/zero'), 0);
  chmodSync(at('a/b/empty'), 0o1777);
  utimesSync(at('a/hello'), 1, -5.5);
  lutimesSync(at('a/link'), 1, 1_234_567_890.125);
  utimesSync(at('a/b'), 1, 1_000_000_000.000000001);
  utimesSync(at('a'), 1, 4_000_000_000);
}

/** Entries of tag, permissions, id (linux/posix_acl_xattr.h). */
function acl(...entries: [number, number, number?][]): Buffer {
  return Buffer.concat([Buffer.from([2, 0, 0, 0]), ...entries.map(([tag, permissions, id]) => Buffer.from(Uint32Array.of(tag | (permissions << 16), id ?? 0xffffffff).buffer))]);
}

void describe('a tree, saved and loaded', () => {
  for (const ahead of [true, false]) {
    void it(`is the same in everything a file system holds (${ahead ? 'with' : 'without'} read-ahead)`, async () => {
      const root = mkdtempSync(join(scratch, 'source-'));
      makeEverything(root);
      const before = snapshot(root, { holes: true });
      // The zeros that were written out come back as a hole: the repository keeps no zero pages.
      const { target, saved } = await roundTrip(root, 'plain', { ahead });
      const after = snapshot(target, { holes: true });
      const without = (map: Map<string, string>): [string, string][] => [...map].map(([k, v]) => [k, k === 'a/b/zeros' ? v.replace(/data .*?\]\]?/, '') : v] as [string, string]);
      assert.deepEqual(without(after), without(before));
      assert.equal(saved.entries, before.size);
      assert.deepEqual(saved.warnings, []);
      rmSync(root, { recursive: true });
      rmSync(target, { recursive: true });
    });
  }

  void it('leaves devices out unless told, and says so', async () => {
    const root = mkdtempSync(join(scratch, 'source-'));
    makeEverything(root);
    linkSync(join(root, 'null'), join(root, 'a/null-again'));
    const { target, warnings } = await roundTrip(root, 'plain', { devices: [] });
    const after = snapshot(target);
    assert.equal(after.has('null') || after.has('disk') || after.has('a/null-again'), false);
    assert.equal(warnings.filter((line) => /device/.test(line)).length, 3);
    assert.match(warnings.join('\n'), /"disk", the block device 259:70000, was left out/);
    rmSync(root, { recursive: true });
    rmSync(target, { recursive: true });
  });

  void it('goes deeper than PATH_MAX', async () => {
    const root = mkdtempSync(join(scratch, 'deep-'));
    const program = (body: string): string => `import os,hashlib\nname='d'*200\nfor i in range(45):\n${body}`;
    // Step by step: no path is ever too long for a call.
    const down = program(" os.mkdir(name); os.chdir(name); open('file','w').write(str(i))\nd=os.urandom(3000000); open('big','wb').write(d); os.link('big','big2'); open('sparse','wb').truncate(9999999)\nprint(hashlib.sha256(d).hexdigest())");
    const sum = execFileSync('python3', ['-c', down], { encoding: 'utf8', cwd: root });
    const { target } = await roundTrip(root, 'plain');
    const check = program(" os.chdir(name); assert open('file').read()==str(i)\nassert os.path.samefile('big','big2') and os.path.getsize('sparse')==9999999\nprint(hashlib.sha256(open('big','rb').read()).hexdigest())");
    assert.equal(execFileSync('python3', ['-c', check], { encoding: 'utf8', cwd: target }), sum);
    execFileSync('rm', ['-rf', root, target]);
  });

  void it('lists its entries for inspect', async () => {
    const root = mkdtempSync(join(scratch, 'source-'));
    makeEverything(root);
    const { target, checkpoint } = await roundTrip(root, 'plain');
    const entries = [];
    for await (const entry of readTreeIndex(checkpoint, 't/', { signal })) entries.push(entry);
    assert.deepEqual(entries.map((entry) => Buffer.from(entry.path).toString('latin1')).toSorted(), [...snapshot(root).keys()].toSorted());
    const link = entries.find((entry) => Buffer.from(entry.path).toString() === 'long-link');
    assert.equal(Buffer.from(link?.target ?? []).toString(), 'x'.repeat(4000));
    assert.equal(entries.filter((entry) => entry.link !== undefined).length, 3);
    rmSync(root, { recursive: true });
    rmSync(target, { recursive: true });
  });

  void it('refuses a directory that is not empty', async () => {
    const root = mkdtempSync(join(scratch, 'source-'));
    const checkpoint = new MemoryCheckpoint();
    await using saver = new TreeSaver({ writer: checkpoint, prefix: '', root, kind: 'plain' });
    await saver.delta({ signal });
    await saver.finish({ signal });
    writeFileSync(join(root, 'x'), '');
    await assert.rejects(async () => loadTree(checkpoint, '', root, { signal }), { code: 'RESTORE_FAILED' });
    rmSync(root, { recursive: true });
  });

  void it('is the same for random trees', async () => {
    const name = fc.uint8Array({ minLength: 1, maxLength: 12 }).map((bytes) => Buffer.from(bytes.map((byte) => (byte === 0 || byte === 0x2f ? 0x41 : byte)))).filter((bytes) => !['.', '..'].includes(bytes.toString()));
    const leaf = fc.oneof(
      fc.record({ type: fc.constant('file' as const), size: fc.oneof(fc.nat(20_000), fc.constantFrom(0, 1, 4096, 1048576, 1048577, 2097152, 2500000)), mode: fc.nat(0o7777), hole: fc.nat(3) }),
      fc.record({ type: fc.constant('symlink' as const), target: name }),
      fc.record({ type: fc.constant('fifo' as const), mode: fc.nat(0o777) }),
      fc.record({ type: fc.constant('link' as const) }),
    );
    const node: fc.Arbitrary<TestNode> = fc.letrec<{ node: TestNode }>((tie) => ({
      node: fc.oneof({ maxDepth: 4 }, leaf, fc.record({ type: fc.constant('dir' as const), mode: fc.nat(0o7777), children: fc.array(fc.tuple(name, tie('node')), { maxLength: 6 }) })),
    })).node;
    const tree = fc.array(fc.tuple(name, node), { maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(tree, fc.boolean(), fc.integer({ min: -1e9, max: 4e9 }), async (children, ahead, seconds) => {
        const root = mkdtempSync(join(scratch, 'random-'));
        make(Buffer.from(root), children, { files: [], seconds });
        const before = snapshot(root);
        const { target } = await roundTrip(root, 'plain', { ahead });
        try {
          assert.deepEqual([...snapshot(target)], [...before]);
        } finally {
          rmSync(root, { recursive: true });
          rmSync(target, { recursive: true });
        }
      }),
      { numRuns: 40 },
    );
  });
});

type TestNode =
  | { type: 'file'; size: number; mode: number; hole: number }
  | { type: 'symlink'; target: Buffer }
  | { type: 'fifo'; mode: number }
  | { type: 'link' }
  | { type: 'dir'; mode: number; children: [Buffer, TestNode][] };

function make(directory: Buffer, children: [Buffer, TestNode][], made: { files: Buffer[]; seconds: number }): void {
  const seen = new Set<string>();
  for (const [name, node] of children) {
    if (seen.has(name.toString('latin1'))) continue;
    seen.add(name.toString('latin1'));
    const path = Buffer.concat([directory, Buffer.from('/'), name]);
    if (node.type === 'file') {
      writeFileSync(path, randomBytes(node.size));
      if (node.hole > 0) truncateSync(path, node.size + node.hole * 1_000_000);
      chmodSync(path, node.mode);
      made.files.push(path);
    } else if (node.type === 'symlink') symlinkSync(node.target, path);
    else if (node.type === 'fifo') mknodat(AT_FDCWD, path, 0o010000 | node.mode, 0n);
    else if (node.type === 'link') {
      const from = made.files.at(-1);
      if (from !== undefined) linkSync(from, path);
    } else {
      mkdirSync(path);
      make(path, node.children, made);
      chmodSync(path, node.mode);
    }
    if (node.type !== 'link') lutimesSync(path, 0, made.seconds + seen.size / 8);
  }
}
