/** Indexes that nobody's saver wrote, after the ways in which restore programs were tricked (podman #27977, containerd 8.x, …). */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { isStasisError } from '../../../src/core/errors.ts';
import { TreeSaver, loadTree, loadTreeMerged } from '../../../src/image/tree/index.ts';
import { decodeIndex } from '../../../src/image/tree/decode.ts';
import { MemoryCheckpoint } from '../../support/memory-checkpoint.ts';
import { snapshot } from '../../support/tree-snapshot.ts';

const signal = undefined;
const DATA = Buffer.from('0123456789');
const [FILE, DIRECTORY, SYMLINK, FIFO, CHARACTER, WHITEOUT, LINK] = [0, 1, 2, 3, 5, 7, 8];
const [SAME, XATTRS, OPAQUE] = [0x30, 0x40, 0x80];

/** LEB128 without any check: tests write what they like. */
function varint(value: number | bigint): number[] {
  const bytes = [];
  let rest = BigInt(value);
  for (; rest >= 128n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  return [...bytes, Number(rest)];
}

type Part = number | Buffer | string | readonly Part[];
const flat = (part: Part): number[] => (typeof part === 'number' ? [part] : typeof part === 'string' ? [...Buffer.from(part)] : Buffer.isBuffer(part) ? [...part] : part.flatMap(flat));

const magic = Buffer.from('STTREE\n\x01', 'latin1');
/** mtime: no change of seconds, no nanoseconds. */
const now = [0, 0];
const dir = [DIRECTORY | SAME, now];
const header = (kind: number, data = DATA.length): Part => [magic, kind, varint(data)];
const name = (text: string | Buffer, shared = 0): Part => [varint(shared), varint(Buffer.from(text).length), Buffer.from(text)];
/** A root with these children and the directories below it, already encoded. */
const tree = (children: readonly Part[], { kind = 0, below = [], entries = children.length + 1 }: { kind?: number; below?: readonly Part[]; entries?: number } = {}): Buffer =>
  Buffer.from(flat([header(kind), dir, varint(children.length), ...children, ...below, varint(entries), 'END\n']));
const file = (size: number | bigint, ...extents: readonly (readonly [number | bigint, number | bigint, number | bigint])[]): Part => [
  FILE | SAME, now, varint(size), varint(extents.length), extents.map(([gap, length, delta]) => [varint(gap), varint(length), varint(BigInt(delta) >= 0n ? BigInt(delta) * 2n : -BigInt(delta) * 2n - 1n)]),
];
const symlink = (target: string | Buffer): Part => [SYMLINK | SAME, now, varint(Buffer.from(target).length), Buffer.from(target)];
const xattr = (attribute: string | Buffer, value = 'y'): Part => [varint(0), varint(1), varint(Buffer.from(attribute).length), Buffer.from(attribute), varint(value.length), value];

/** Cases that are refused before anything is made. */
const refused: Record<string, { bytes: Buffer; code: string }> = {
  'a name with a path (podman #27977)': { bytes: tree([[name('../../../x'), file(0)]]), code: 'PATH_ESCAPES' },
  'a name that is the parent': { bytes: tree([[name('..'), file(0)]]), code: 'PATH_ESCAPES' },
  'a directory that is the parent': { bytes: tree([[name('..'), dir]], { below: [varint(1), [name('escaped'), file(0)]], entries: 3 }), code: 'PATH_ESCAPES' },
  'a name that is the directory itself': { bytes: tree([[name('.'), symlink('/')]]), code: 'PATH_ESCAPES' },
  'an absolute name': { bytes: tree([[name('/etc/cron.d/x'), file(0)]]), code: 'PATH_ESCAPES' },
  'a name with a slash inside': { bytes: tree([[name('a/b'), file(0)]]), code: 'PATH_ESCAPES' },
  'a name with a NUL, which cuts it in C': { bytes: tree([[name('ok\0/../../x'), file(0)]]), code: 'PATH_ESCAPES' },
  'an empty name': { bytes: tree([[name(''), file(0)]]), code: 'PATH_ESCAPES' },
  'a name that becomes ".." by its shared part': { bytes: tree([[name('.a'), file(0)], [name('.', 1), file(0)]]), code: 'PATH_ESCAPES' },
  'a whiteout of ".."': { bytes: tree([[name('..'), [WHITEOUT | SAME, now]]], { kind: 1 }), code: 'PATH_ESCAPES' },
  'a whiteout with a path': { bytes: tree([[name('../../etc'), [WHITEOUT | SAME, now]]], { kind: 1 }), code: 'PATH_ESCAPES' },
  'a name longer than 255 bytes by its shared part': { bytes: tree([[name('a'.repeat(255)), file(0)], [name('b'.repeat(255), 255), file(0)]]), code: 'PATH_ESCAPES' },
  'a name twice: a symlink, then a directory through it': { bytes: tree([[name('a'), symlink('/srv')], [name('a'), dir]], { below: [varint(1), [name('x'), file(0)]], entries: 4 }), code: 'OBJECT_CORRUPT' },
  'names out of order': { bytes: tree([[name('b'), file(0)], [name('a'), file(0)]]), code: 'OBJECT_CORRUPT' },
  'a file with files below it': { bytes: tree([[name('a'), symlink('/srv')]], { below: [varint(1), [name('x'), file(0)]], entries: 3 }), code: 'OBJECT_CORRUPT' },
  'a root that is a symlink': { bytes: Buffer.from(flat([header(0), symlink('/etc'), varint(1), 'END\n'])), code: 'OBJECT_CORRUPT' },
  'a root that is a hard link': { bytes: Buffer.from(flat([header(0), LINK, varint(0), varint(1), 'END\n'])), code: 'OBJECT_CORRUPT' },
  'a hard link to a later entry': { bytes: tree([[name('a'), [LINK, varint(2)]], [name('b'), file(0)]]), code: 'OBJECT_CORRUPT' },
  'a hard link to itself': { bytes: tree([[name('a'), [LINK, varint(1)]]]), code: 'OBJECT_CORRUPT' },
  'a hard link to the root': { bytes: tree([[name('a'), [LINK, varint(0)]]]), code: 'OBJECT_CORRUPT' },
  'a hard link to a whiteout': { bytes: tree([[name('a'), [WHITEOUT | SAME, now]], [name('b'), [LINK, varint(1)]]], { kind: 1 }), code: 'OBJECT_CORRUPT' },
  'a hard link to a hard link': { bytes: tree([[name('a'), file(0)], [name('b'), [LINK, varint(1)]], [name('c'), [LINK, varint(2)]]]), code: 'OBJECT_CORRUPT' },
  'a whiteout in a plain tree': { bytes: tree([[name('a'), [WHITEOUT | SAME, now]]]), code: 'OBJECT_CORRUPT' },
  'an opaque directory in a plain tree': { bytes: tree([[name('a'), [DIRECTORY | SAME | OPAQUE, now]]], { below: [varint(0)] }), code: 'OBJECT_CORRUPT' },
  'an opaque file': { bytes: tree([[name('a'), [FILE | SAME | OPAQUE, now, 0, 0]]], { kind: 1 }), code: 'OBJECT_CORRUPT' },
  'a whiteout written as a device': { bytes: tree([[name('a'), [CHARACTER | SAME, now, 0, 0]]], { kind: 1 }), code: 'OBJECT_CORRUPT' },
  'a redirect of overlayfs to another directory': { bytes: tree([[name('a'), [DIRECTORY | SAME | XATTRS, now, xattr('trusted.overlay.redirect', '/etc')]]], { kind: 1, below: [varint(0)] }), code: 'OBJECT_CORRUPT' },
  'a file handle of overlayfs to any file of the host': { bytes: tree([[name('a'), [FILE | SAME | XATTRS, now, xattr('trusted.overlay.origin'), 0, 0]]], { kind: 1 }), code: 'OBJECT_CORRUPT' },
  'an attribute in no namespace': { bytes: tree([[name('a'), [FILE | SAME | XATTRS, now, xattr('evil'), 0, 0]]]), code: 'OBJECT_CORRUPT' },
  'an attribute with a NUL in its name': { bytes: tree([[name('a'), [FILE | SAME | XATTRS, now, xattr('user.a\0b'), 0, 0]]]), code: 'OBJECT_CORRUPT' },
  'an attribute set that was never defined': { bytes: tree([[name('a'), [FILE | SAME | XATTRS, now, varint(7), 0, 0]]]), code: 'OBJECT_CORRUPT' },
  'a size of 2^53': { bytes: tree([[name('a'), file(2n ** 53n)]]), code: 'OBJECT_CORRUPT' },
  'a size of 2^64 and more': { bytes: tree([[name('a'), file(2n ** 70n)]]), code: 'OBJECT_CORRUPT' },
  'data beyond the end of the data': { bytes: tree([[name('a'), file(11, [0, 11, 0])]]), code: 'OBJECT_CORRUPT' },
  'data before the begin of the data': { bytes: tree([[name('a'), file(4, [0, 4, -4])]]), code: 'OBJECT_CORRUPT' },
  'data beyond the size of the file': { bytes: tree([[name('a'), file(4, [2, 4, 0])]]), code: 'OBJECT_CORRUPT' },
  'the same data for two files (a bomb)': { bytes: tree([[name('a'), file(10, [0, 10, 0])], [name('b'), file(10, [0, 10, -10])]]), code: 'OBJECT_CORRUPT' },
  'a data extent of no length': { bytes: tree([[name('a'), file(4, [0, 0, 0])]]), code: 'OBJECT_CORRUPT' },
  'more children than there are bytes': { bytes: Buffer.from(flat([header(0), dir, varint(2 ** 40)])), code: 'OBJECT_CORRUPT' },
  'more entries than are kept': { bytes: Buffer.from(flat([header(0), dir, varint(5_000_000), Buffer.alloc(5_000_000)])), code: 'OBJECT_CORRUPT' },
  'a wrong number of entries': { bytes: tree([[name('a'), file(0)]], { entries: 3 }), code: 'OBJECT_CORRUPT' },
  'bytes after the end': { bytes: Buffer.concat([tree([]), Buffer.of(0)]), code: 'OBJECT_CORRUPT' },
  'a number that is longer than it must be': { bytes: Buffer.from(flat([header(0), dir, 0x80, 0x00, varint(1), 'END\n'])), code: 'OBJECT_CORRUPT' },
  'an index that belongs to other data': { bytes: Buffer.from(flat([header(0, 11), dir, 0, varint(1), 'END\n'])), code: 'OBJECT_CORRUPT' },
  'a symlink to nothing': { bytes: tree([[name('a'), symlink('')]]), code: 'OBJECT_CORRUPT' },
  'a symlink longer than PATH_MAX': { bytes: tree([[name('a'), symlink('x'.repeat(4096))]]), code: 'OBJECT_CORRUPT' },
  'a user id of -1, which chown(2) ignores': { bytes: tree([[name('a'), [FILE | 0x20, varint(2 ** 32 - 1), 0, now, 0, 0]]]), code: 'OBJECT_CORRUPT' },
  'a mode with a file type in it': { bytes: tree([[name('a'), [FILE | 0x10, varint(0o120777), now, 0, 0]]]), code: 'OBJECT_CORRUPT' },
  'a kind that does not exist': { bytes: tree([[name('a'), [0x0f | SAME, now]]]), code: 'OBJECT_CORRUPT' },
  'another version': { bytes: Buffer.from(flat([magic.subarray(0, 7), 9, 0])), code: 'FORMAT_UNSUPPORTED' },
  'a directory deeper than any': { bytes: tree([[name('a'), dir]], { below: Array.from({ length: 9000 }, () => [varint(1), name('a'), dir]), entries: 9002 }), code: 'LIMIT_EXCEEDED' },
  nothing: { bytes: Buffer.alloc(0), code: 'OBJECT_CORRUPT' },
};

function checkpointWith(index: Buffer): MemoryCheckpoint {
  const checkpoint = new MemoryCheckpoint();
  checkpoint.pieces.set('index', [{ bytes: index, zeroPages: false }]);
  checkpoint.pieces.set('data', [{ bytes: DATA, zeroPages: false }]);
  return checkpoint;
}

/** A place with something beside it that must not change. */
function place(): { base: string; target: string; before: Map<string, string>; check: () => void } {
  const base = mkdtempSync('/srv/hostile-');
  const target = join(base, 'outer/target');
  mkdirSync(target, { recursive: true });
  mkdirSync(join(base, 'outside'));
  writeFileSync(join(base, 'outside/precious'), 'precious');
  const before = snapshot(join(base, 'outside'));
  const check = (): void => {
    assert.deepEqual([...snapshot(join(base, 'outside'))], [...before]);
    assert.deepEqual(readdirSync(base), ['outer', 'outside']);
    assert.deepEqual(readdirSync(join(base, 'outer')), ['target']);
  };
  return { base, target, before, check };
}

void describe('a hostile index', () => {
  for (const [what, { bytes, code }] of Object.entries(refused)) {
    void it(`is refused: ${what}`, async () => {
      const { base, target, check } = place();
      for (const load of [loadTree, loadTreeMerged]) {
        await assert.rejects(async () => load(checkpointWith(bytes), '', target, { signal }), { code });
        assert.deepEqual(readdirSync(target), []);
        check();
      }
      rmSync(base, { recursive: true });
    });
  }

  void it('makes its symlinks, but nothing goes through them', async () => {
    const { base, target, check } = place();
    // a → outside; a hard link to a; b → target's own parent.
    const bytes = tree([[name('a'), symlink('../../outside')], [name('b'), [LINK, varint(1)]], [name('c'), symlink('..')], [name('d'), file(10, [0, 10, 0])]]);
    await loadTree(checkpointWith(bytes), '', target, { signal });
    assert.deepEqual(readdirSync(target), ['a', 'b', 'c', 'd']);
    check();
    rmSync(base, { recursive: true });
  });

  void it('through a merged view replaces a symlink that leads out, and does not follow it', async () => {
    const { base, target, check } = place();
    symlinkSync(join(base, 'outside'), join(target, 'a'));
    symlinkSync(join(base, 'outside/precious'), join(target, 'b'));
    symlinkSync(join(base, 'outside'), join(target, 'c'));
    const children = [[name('a'), dir], [name('b'), file(10, [0, 10, 0])], [name('c'), [WHITEOUT | SAME, now]]];
    const bytes = tree(children, { kind: 1, below: [varint(1), [name('precious'), file(0)]], entries: 5 });
    await loadTreeMerged(checkpointWith(bytes), '', target, { signal });
    assert.deepEqual(readdirSync(target), ['a', 'b']);
    assert.deepEqual(readdirSync(join(target, 'a')), ['precious']);
    check();
    rmSync(base, { recursive: true });
  });

  void it('gets no device, unless the caller says so', async () => {
    const { base, target } = place();
    const bytes = tree([[name('sda'), [6 | SAME, now, varint(8), 0]], [name('sda-again'), [LINK, varint(1)]], [name('zero'), [CHARACTER | SAME, now, varint(1), varint(5)]]]);
    const { warnings } = await loadTree(checkpointWith(bytes), '', target, { signal });
    assert.deepEqual(readdirSync(target), []);
    assert.equal(warnings.length, 3);
    rmSync(base, { recursive: true });
  });

  void it('with a huge sparse file takes no space', async () => {
    const { base, target } = place();
    const bytes = tree([[name('a'), file(2 ** 40, [2 ** 39, 10, 0])]]);
    await loadTree(checkpointWith(bytes), '', target, { signal });
    assert.ok(existsSync(join(target, 'a')));
    rmSync(base, { recursive: true });
  });

  void it('cut short at any byte is refused', () => {
    const whole = tree([[name('a'), file(10, [0, 10, 0])], [name('d'), dir], [name('f'), [FIFO | SAME, now]]], { below: [varint(1), [name('x'), symlink('y')]], entries: 5 });
    decodeIndex(whole, DATA.length);
    for (let length = 0; length < whole.length; length++) assert.throws(() => decodeIndex(whole.subarray(0, length), DATA.length), isStasisError);
  });

  void it('of any bytes is a tree or an error with a code', async () => {
    const root = mkdtempSync('/srv/seed-');
    mkdirSync(join(root, 'd'));
    for (let i = 0; i < 20; i++) writeFileSync(join(root, 'd', `file-${i}`), `x${i}`);
    symlinkSync('d', join(root, 'l'));
    const checkpoint = new MemoryCheckpoint();
    await using saver = new TreeSaver({ writer: checkpoint, prefix: '', root, kind: 'plain' });
    await saver.delta({ signal });
    await saver.finish({ signal });
    const good = checkpoint.blob('index');
    const length = checkpoint.blob('data').length;
    decodeIndex(good, length);
    const attempt = (bytes: Buffer): void => {
      try {
        const { table } = decodeIndex(bytes, length);
        for (let entry = 1; entry < table.count; entry++) assert.match(table.name(entry).toString('latin1'), /^(?!\.{1,2}$)[^/\0]{1,255}$/s);
      } catch (error) {
        assert.ok(isStasisError(error), String(error));
        assert.ok(['OBJECT_CORRUPT', 'PATH_ESCAPES', 'LIMIT_EXCEEDED', 'FORMAT_UNSUPPORTED'].includes(error.code), error.code);
      }
    };
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 5 }), (changes) => {
        const bytes = Buffer.from(good);
        for (const [at, value] of changes) bytes[at] = value;
        attempt(bytes);
      }),
      { numRuns: 3000 },
    );
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (rest) => attempt(Buffer.concat([good.subarray(0, 12), rest]))), { numRuns: 2000 });
    rmSync(root, { recursive: true });
  });
});
