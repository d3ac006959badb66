/**
 * System calls that Node.js does not offer, through koffi (the only place that imports it).
 * Paths are byte strings, because file names are. A failing call throws an Error with `code`
 * (ENOENT, …), `errno` and `syscall`, as node:fs does. All calls are synchronous: use them in a
 * worker, or where a call cannot block for long.
 */
import koffi from 'koffi';
import { constants as fsConstants } from 'node:fs';
import { constants } from 'node:os';

/** For tree-calls.ts, which binds the hot calls of the tree walk. */
export const libc = koffi.load('libc.so.6');

const errnoNames = new Map(Object.entries(constants.errno).map(([name, value]) => [value, name]));

const raw = {
  openat2: libc.func('long syscall(long number, int dirfd, const void* path, void* how, size_t size)'),
  fcntl: libc.func('int fcntl(int fd, int command, long argument)'),
  pidfdOpen: libc.func('long syscall(long number, int pid, unsigned int flags)'),
  pidfdGetfd: libc.func('long syscall(long number, int pidfd, int fd, unsigned int flags)'),
  mknodat: libc.func('int mknodat(int dirfd, const void* path, uint32_t mode, uint64_t dev)'),
  mkdirat: libc.func('int mkdirat(int dirfd, const void* path, uint32_t mode)'),
  symlinkat: libc.func('int symlinkat(const void* target, int dirfd, const void* path)'),
  linkat: libc.func('int linkat(int olddir, const void* oldpath, int newdir, const void* newpath, int flags)'),
  unlinkat: libc.func('int unlinkat(int dirfd, const void* path, int flags)'),
  readlinkat: libc.func('int64_t readlinkat(int dirfd, const void* path, void* buffer, size_t size)'),
  fchownat: libc.func('int fchownat(int dirfd, const void* path, uint32_t uid, uint32_t gid, int flags)'),
  fchmodat: libc.func('int fchmodat(int dirfd, const void* path, uint32_t mode, int flags)'),
  utimensat: libc.func('int utimensat(int dirfd, const void* path, const void* times, int flags)'),
  llistxattr: libc.func('int64_t llistxattr(const void* path, void* list, size_t size)'),
  lgetxattr: libc.func('int64_t lgetxattr(const void* path, const void* name, void* value, size_t size)'),
  lsetxattr: libc.func('int lsetxattr(const void* path, const void* name, const void* value, size_t size, int flags)'),
  close: libc.func('int close(int fd)'),
  lseek: libc.func('int64_t lseek(int fd, int64_t offset, int whence)'),
  fallocate: libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)'),
  flock: libc.func('int flock(int fd, int operation)'),
  syncfs: libc.func('int syncfs(int fd)'),
  mount: libc.func('int mount(const void* source, const void* target, const void* type, uint64_t flags, const void* data)'),
  umount2: libc.func('int umount2(const void* target, int flags)'),
  mallopt: libc.func('int mallopt(int param, int value)'),
};

export const AT_FDCWD = -100;
export const AT_SYMLINK_NOFOLLOW = 0x100;
export const AT_EMPTY_PATH = 0x1000;
export const AT_REMOVEDIR = 0x200;

/** openat2(2) `resolve` flags. */
export const RESOLVE_NO_XDEV = 0x01;
export const RESOLVE_NO_MAGICLINKS = 0x02;
export const RESOLVE_NO_SYMLINKS = 0x04;
export const RESOLVE_BENEATH = 0x08;

const SYS_OPENAT2 = 437;

export type Path = Buffer | string;

/** A NUL-terminated copy; a NUL inside a path is refused, it would silently cut the path short. */
function cstring(path: Path): Buffer {
  const bytes = typeof path === 'string' ? Buffer.from(path) : path;
  if (bytes.includes(0)) throw new TypeError('a path must not contain a NUL byte');
  return Buffer.concat([bytes, Buffer.of(0)]);
}

/** The errno of the last failed call of this thread, by name. Read it before any other call. */
export function lastErrno(): string {
  const errno = koffi.errno();
  return errnoNames.get(errno) ?? `errno ${errno}`;
}

export function systemError(syscall: string, path?: Path): Error {
  const errno = koffi.errno();
  const code = errnoNames.get(errno) ?? `errno ${errno}`;
  const where = path === undefined ? '' : ` '${path.toString()}'`;
  return Object.assign(new Error(`${code}: ${syscall}${where}`), { code, errno, syscall, path: path?.toString() });
}

export function check(result: number | bigint, syscall: string, path?: Path): number {
  if (result < 0) throw systemError(syscall, path);
  return Number(result);
}

/** openat2(2): opens `path` below `dirfd` under `resolve`. Returns a close-on-exec descriptor. */
export function openat2(dirfd: number, path: Path, flags: number, mode: number, resolve: number): number {
  const how = Buffer.alloc(24);
  how.writeBigUInt64LE(BigInt(flags >>> 0) | 0o2000000n, 0);
  how.writeBigUInt64LE(BigInt(mode), 8);
  how.writeBigUInt64LE(BigInt(resolve), 16);
  return check(raw.openat2(SYS_OPENAT2, dirfd, cstring(path), how, 24) as number, 'openat2', path);
}

/** `dev` as from makedev(): see {@link makeDevice}. `mode` carries the file type (S_IFIFO, S_IFCHR, …). */
export function mknodat(dirfd: number, path: Path, mode: number, dev: bigint): void {
  check(raw.mknodat(dirfd, cstring(path), mode, dev) as number, 'mknodat', path);
}

export function mkdirat(dirfd: number, path: Path, mode: number): void {
  check(raw.mkdirat(dirfd, cstring(path), mode) as number, 'mkdirat', path);
}

export function symlinkat(target: Path, dirfd: number, path: Path): void {
  check(raw.symlinkat(cstring(target), dirfd, cstring(path)) as number, 'symlinkat', path);
}

export function linkat(oldDir: number, oldPath: Path, newDir: number, newPath: Path): void {
  check(raw.linkat(oldDir, cstring(oldPath), newDir, cstring(newPath), 0) as number, 'linkat', newPath);
}

export function unlinkat(dirfd: number, path: Path, flags: number): void {
  check(raw.unlinkat(dirfd, cstring(path), flags) as number, 'unlinkat', path);
}

export function readlinkat(dirfd: number, path: Path): Buffer {
  const buffer = Buffer.alloc(4096);
  return buffer.subarray(0, check(raw.readlinkat(dirfd, cstring(path), buffer, buffer.length) as number, 'readlinkat', path));
}

/** Never follows a final symlink. */
export function lchownat(dirfd: number, path: Path, uid: number, gid: number): void {
  check(raw.fchownat(dirfd, cstring(path), uid, gid, AT_SYMLINK_NOFOLLOW) as number, 'fchownat', path);
}

/** Follows a final symlink (Linux has no lchmod): call it only on what was just created and is none. */
export function chmodat(dirfd: number, path: Path, mode: number): void {
  check(raw.fchmodat(dirfd, cstring(path), mode, 0) as number, 'fchmodat', path);
}

/** Times in nanoseconds since 1970. Never follows a final symlink. */
export function lutimensat(dirfd: number, path: Path, atimeNs: bigint, mtimeNs: bigint): void {
  const times = Buffer.alloc(32);
  [atimeNs, mtimeNs].forEach((ns, i) => {
    // POSIX wants the nanosecond part in 0..999999999 also before 1970.
    const rest = ((ns % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
    times.writeBigInt64LE((ns - rest) / 1_000_000_000n, i * 16);
    times.writeBigInt64LE(rest, i * 16 + 8);
  });
  check(raw.utimensat(dirfd, cstring(path), times, AT_SYMLINK_NOFOLLOW) as number, 'utimensat', path);
}

/** Names of the extended attributes of `path` itself (not of what a symlink points to). */
export function llistxattr(path: Path): Buffer[] {
  const name = cstring(path);
  const size = check(raw.llistxattr(name, null, 0) as number, 'llistxattr', path);
  if (size === 0) return [];
  const list = Buffer.alloc(size + 1024);
  const used = list.subarray(0, check(raw.llistxattr(name, list, list.length) as number, 'llistxattr', path));
  const names: Buffer[] = [];
  for (let start = 0; start < used.length; ) {
    const end = used.indexOf(0, start);
    names.push(used.subarray(start, end));
    start = end + 1;
  }
  return names;
}

/** The value, or undefined when the attribute is gone (ENODATA). At most 64 KiB (XATTR_SIZE_MAX). */
export function lgetxattr(path: Path, name: Path): Buffer | undefined {
  const value = Buffer.alloc(65536);
  const size = Number(raw.lgetxattr(cstring(path), cstring(name), value, value.length));
  if (size < 0) {
    const error = systemError('lgetxattr', path);
    if ((error as { code?: string }).code === 'ENODATA') return undefined;
    throw error;
  }
  return Buffer.from(value.subarray(0, size));
}

export function lsetxattr(path: Path, name: Path, value: Buffer): void {
  check(raw.lsetxattr(cstring(path), cstring(name), value, value.length, 0) as number, 'lsetxattr', path);
}

/** The data extents of a file, holes left out: [offset, length] pairs in ascending order. */
export function dataExtents(fd: number, size: number): [number, number][] {
  const SEEK_DATA = 3;
  const SEEK_HOLE = 4;
  const extents: [number, number][] = [];
  for (let at = 0; at < size; ) {
    const start = Number(raw.lseek(fd, at, SEEK_DATA));
    if (start < 0) {
      if (koffi.errno() === constants.errno.ENXIO) break;
      throw systemError('lseek');
    }
    const end = Math.min(size, check(raw.lseek(fd, start, SEEK_HOLE) as number, 'lseek'));
    if (end <= start) break;
    extents.push([start, end - start]);
    at = end;
  }
  return extents;
}

/** fallocate(2), mode 0: really allocates the blocks, or fails with ENOSPC. */
export function fallocate(fd: number, offset: number, length: number): void {
  check(raw.fallocate(fd, 0, offset, length) as number, 'fallocate');
}

const SYS_PIDFD_OPEN = 434;
const SYS_PIDFD_GETFD = 438;

/** Duplicates of descriptors of another process, close-on-exec here (pidfd_getfd(2), Linux 5.6). Those that are gone are left out. */
export function duplicateDescriptors(pid: number, fds: readonly number[]): number[] {
  const process = check(raw.pidfdOpen(SYS_PIDFD_OPEN, pid, 0) as number, 'pidfd_open');
  try {
    const copies: number[] = [];
    for (const fd of fds) {
      const copy = raw.pidfdGetfd(SYS_PIDFD_GETFD, process, fd, 0) as number;
      if (copy >= 0) copies.push(copy);
      else if (koffi.errno() !== constants.errno.EBADF) throw systemError('pidfd_getfd');
    }
    return copies;
  } finally {
    raw.close(process);
  }
}

/** Sets O_NONBLOCK on the open file, so also for others who have it. */
export function setNonblocking(fd: number): void {
  const F_GETFL = 3;
  const F_SETFL = 4;
  const flags = check(raw.fcntl(fd, F_GETFL, 0) as number, 'fcntl');
  check(raw.fcntl(fd, F_SETFL, flags | fsConstants.O_NONBLOCK) as number, 'fcntl');
}

/** Takes an exclusive advisory lock without waiting. False when somebody else holds it. */
export function tryLock(fd: number): boolean {
  const LOCK_EX = 2;
  const LOCK_NB = 4;
  if ((raw.flock(fd, LOCK_EX | LOCK_NB) as number) === 0) return true;
  if (koffi.errno() === constants.errno.EAGAIN) return false;
  throw systemError('flock');
}

export function syncfs(fd: number): void {
  check(raw.syncfs(fd) as number, 'syncfs');
}

/** mount(2) flags. */
export const MS_NOSUID = 2;
export const MS_NODEV = 4;
export const MS_NOEXEC = 8;
/** umount2(2): detach now, finish when the last user is gone. */
export const MNT_DETACH = 2;

export function mount(source: Path, target: Path, type: string, flags: number, data: string): void {
  check(raw.mount(cstring(source), cstring(target), cstring(type), flags, cstring(data)) as number, 'mount', target);
}

export function umount(target: Path, flags: number): void {
  check(raw.umount2(cstring(target), flags) as number, 'umount2', target);
}

/** The kernel's 64-bit dev_t as glibc's makedev() builds it. */
export function makeDevice(major: number, minor: number): bigint {
  const [a, b] = [BigInt(major), BigInt(minor)];
  return ((a & 0xfffff000n) << 32n) | ((a & 0xfffn) << 8n) | ((b & 0xffffff00n) << 12n) | (b & 0xffn);
}

/**
 * Allocations of this size and more go back to the kernel when they are freed. By default glibc raises the limit to the
 * largest one that it sees, and each thread keeps what it once had: 64 MiB for each stage worker (measured).
 */
const GIVE_BACK_FROM = 256 * 1024;

/** For processes that handle bulk data in several threads; before those start. */
export function giveBackFreedMemory(): void {
  const M_MMAP_THRESHOLD = -3;
  raw.mallopt(M_MMAP_THRESHOLD, GIVE_BACK_FROM);
}
