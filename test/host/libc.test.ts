import assert from 'node:assert/strict';
import { closeSync, constants, linkSync, lstatSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import {
  AT_FDCWD, AT_REMOVEDIR, RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, chmodat, dataExtents, fallocate, lchownat, lgetxattr, linkat, llistxattr, lsetxattr, lutimensat, makeDevice, mkdirat, mknodat,
  openat2, readlinkat, symlinkat, tryLock, unlinkat,
} from '../../src/host/libc.ts';
import { CONFINED, DirectoryScanner, StatBuffer, XattrAccess, closeFd, openConfined, openPrivateView, readLink, removeAt, statAt } from '../../src/host/tree-calls.ts';

const c = (text: string): Buffer => Buffer.from(`${text}\0`);

function withDirectory(use: (path: string, fd: number) => void): void {
  const path = mkdtempSync('/srv/libc-');
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    use(path, fd);
  } finally {
    closeSync(fd);
    rmSync(path, { recursive: true, force: true });
  }
}

void describe('libc', () => {
  void it('makes, links, names and removes below a descriptor', () => {
    withDirectory((path, fd) => {
      mkdirat(fd, 'd', 0o755);
      symlinkat('target', fd, 'd/s');
      assert.equal(readlinkat(fd, 'd/s').toString(), 'target');
      mknodat(fd, 'p', constants.S_IFIFO | 0o600, 0n);
      linkat(fd, 'p', fd, 'q');
      assert.equal(lstatSync(join(path, 'q')).nlink, 2);
      unlinkat(fd, 'q', 0);
      unlinkat(fd, 'd/s', 0);
      unlinkat(fd, 'd', AT_REMOVEDIR);
      assert.throws(() => unlinkat(fd, 'd', AT_REMOVEDIR), { code: 'ENOENT', syscall: 'unlinkat' });
    });
  });

  void it('sets owner, mode and times beyond 2038 and before 1970', () => {
    withDirectory((path, fd) => {
      writeFileSync(join(path, 'f'), '');
      lchownat(fd, 'f', 4_000_000_000, 7);
      chmodat(fd, 'f', 0o6711);
      for (const ns of [5_000_000_000_123_456_789n, -1_500_000_001n, -1n, 0n]) {
        lutimensat(fd, 'f', 0n, ns);
        assert.equal(lstatSync(join(path, 'f'), { bigint: true }).mtimeNs, ns);
      }
      const stat = lstatSync(join(path, 'f'));
      assert.deepEqual([stat.uid, stat.gid, stat.mode & 0o7777], [4_000_000_000, 7, 0o6711]);
    });
  });

  void it('keeps openat2 below its root', () => {
    withDirectory((path, fd) => {
      mkdirSync(join(path, 'in'));
      symlinkSync('/etc', join(path, 'out'));
      for (const [name, code] of [['..', 'EXDEV'], ['/etc/passwd', 'EXDEV'], ['in/../../x', 'EXDEV'], ['out/passwd', 'ELOOP']] as const) {
        assert.throws(() => openat2(fd, name, constants.O_RDONLY, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS), { code }, name);
      }
      assert.throws(() => openat2(fd, 'in\0/../..', constants.O_RDONLY, 0, 0), /NUL/);
      closeSync(openat2(fd, 'in', constants.O_RDONLY, 0, RESOLVE_BENEATH));
    });
  });

  void it('reads and writes extended attributes of a link itself', () => {
    withDirectory((path) => {
      const link = join(path, 'l');
      symlinkSync('nowhere', link);
      lsetxattr(link, 'trusted.x', Buffer.from([0, 1]));
      assert.deepEqual(llistxattr(link).map(String), ['trusted.x']);
      assert.deepEqual(lgetxattr(link, 'trusted.x'), Buffer.from([0, 1]));
      assert.equal(lgetxattr(link, 'trusted.y'), undefined);
    });
  });

  void it('finds the data of a sparse file', () => {
    withDirectory((path) => {
      const fd = openSync(join(path, 's'), 'w+');
      writeSync(fd, Buffer.alloc(4096, 1), 0, 4096, 1024 * 1024);
      truncateSync(join(path, 's'), 3 * 1024 * 1024);
      assert.deepEqual(dataExtents(fd, 3 * 1024 * 1024), [[1024 * 1024, 4096]]);
      fallocate(fd, 0, 65536);
      assert.ok(lstatSync(join(path, 's')).blocks * 512 >= 65536 + 4096);
      closeSync(fd);
    });
  });

  void it('locks a file for one', () => {
    withDirectory((path) => {
      writeFileSync(join(path, 'lock'), '');
      const [one, two] = [openSync(join(path, 'lock'), 'r'), openSync(join(path, 'lock'), 'r')];
      assert.equal(tryLock(one), true);
      assert.equal(tryLock(two), false);
      closeSync(one);
      assert.equal(tryLock(two), true);
      closeSync(two);
    });
  });

  void it('builds device numbers as the kernel does', () => {
    withDirectory((path) => {
      mknodat(AT_FDCWD, join(path, 'd'), constants.S_IFBLK | 0o600, makeDevice(259, 70_000));
      const stat = new StatBuffer();
      assert.ok(statAt(AT_FDCWD, c(join(path, 'd')), stat));
      assert.deepEqual([stat.deviceMajor, stat.deviceMinor], [259, 70_000]);
    });
  });
});

void describe('the calls of a walk', () => {
  void it('stat what lstat says', () => {
    withDirectory((path, fd) => {
      writeFileSync(join(path, 'f'), Buffer.alloc(10_000));
      linkSync(join(path, 'f'), join(path, 'g'));
      lutimensat(fd, 'f', 0n, -1_500_000_001n);
      const stat = new StatBuffer();
      assert.equal(statAt(fd, c('f'), stat), true);
      const expected = lstatSync(join(path, 'f'), { bigint: true });
      assert.equal(BigInt(stat.inodeHigh) * 2n ** 32n + BigInt(stat.inodeLow), expected.ino);
      assert.equal(BigInt(stat.mtimeSeconds) * 1_000_000_000n + BigInt(stat.mtimeNanoseconds), expected.mtimeNs);
      assert.equal(BigInt(stat.ctimeSeconds) * 1_000_000_000n + BigInt(stat.ctimeNanoseconds), expected.ctimeNs);
      assert.deepEqual([stat.mode, stat.size, stat.links, stat.allocated], [Number(expected.mode), 10_000, 2, Number(expected.blocks) * 512]);
      assert.equal(statAt(fd, c('none'), stat), false);
      assert.equal(statAt(fd, c('f/none'), stat), false);
    });
  });

  void it('list every name once, also of a large directory', () => {
    withDirectory((path, fd) => {
      const names = new Set(Array.from({ length: 5000 }, (_, i) => `${'n'.repeat(i % 200)}-${i}`));
      for (const name of names) writeFileSync(join(path, name), '');
      const found: string[] = [];
      new DirectoryScanner().scan(fd, (name, length) => {
        assert.equal(name[length], 0);
        found.push(name.toString('latin1', 0, length));
      });
      assert.equal(found.length, names.size);
      assert.deepEqual(new Set(found), names);
    });
  });

  void it('open nothing outside', () => {
    withDirectory((path, fd) => {
      mkdirSync(join(path, 'in'));
      symlinkSync('in', join(path, 'link'));
      for (const name of ['link', '..', '/etc', 'link/x', `in/${'../'.repeat(2000)}x`]) assert.throws(() => openConfined(fd, Buffer.from(name), constants.O_RDONLY, 0), name);
      closeFd(openConfined(fd, Buffer.alloc(0), constants.O_RDONLY, 0));
      // Longer than one call takes, and a component in the middle leads out.
      const long = Buffer.from(`${'in/'.repeat(10)}${'x'.repeat(200)}/`.repeat(30));
      assert.throws(() => openConfined(fd, long, constants.O_RDONLY, 0), { code: 'ENOENT' });
    });
  });

  void it('see a private view that cannot be written and opens no device', () => {
    withDirectory((path) => {
      writeFileSync(join(path, 'f'), 'x');
      mknodat(AT_FDCWD, join(path, 'null'), constants.S_IFCHR | 0o666, makeDevice(1, 3));
      const view = openPrivateView(path, { writable: false });
      assert.throws(() => openat2(view, 'f', constants.O_WRONLY, 0, CONFINED), { code: 'EROFS' });
      assert.throws(() => openat2(view, 'null', constants.O_RDONLY, 0, CONFINED), { code: 'EACCES' });
      const fd = openat2(view, 'f', constants.O_RDONLY, 0, CONFINED);
      assert.equal(readFileSync(fd, 'utf8'), 'x');
      closeSync(fd);
      closeFd(view);
      const writable = openPrivateView(path, { writable: true });
      closeFd(openat2(writable, 'new', constants.O_WRONLY | constants.O_CREAT, 0o600, CONFINED));
      closeFd(writable);
      assert.equal(lstatSync(join(path, 'new')).size, 0);
    });
  });

  void it('read links and attributes by descriptor and name', () => {
    withDirectory((path, fd) => {
      const access = new XattrAccess();
      const odd = Buffer.concat([Buffer.alloc(254, 0xff), Buffer.of(0x0a, 0)]);
      symlinkat('t'.repeat(4095), fd, odd.subarray(0, -1));
      assert.equal(readLink(fd, odd)?.length, 4095);
      assert.equal(readLink(fd, c('none')), undefined);
      assert.deepEqual(access.list(fd, odd), []);
      writeFileSync(join(path, 'f'), '');
      access.set(fd, c('f'), Buffer.from('user.a'), Buffer.from('1'));
      access.set(fd, c('f'), Buffer.from('user.b'), Buffer.alloc(3000));
      assert.deepEqual(access.list(fd, c('f')).map(String).toSorted(), ['user.a', 'user.b']);
      assert.equal(access.get(fd, c('f'), Buffer.from('user.b'))?.length, 3000);
      access.remove(fd, c('f'), Buffer.from('user.a'));
      assert.equal(access.get(fd, c('f'), Buffer.from('user.a')), undefined);
      access.setModified(fd, c('f'), -7, 5);
      assert.equal(lstatSync(join(path, 'f'), { bigint: true }).mtimeNs, -6_999_999_995n);
      assert.equal(removeAt(fd, c('f'), 0), true);
      assert.equal(removeAt(fd, c('f'), 0), false);
    });
  });
});
