/**
 * The calls that a walk over many thousand files makes for each of them: no allocation per call, names straight
 * out of the kernel's directory buffer, all relative to a directory descriptor. Synchronous: for workers.
 * A `name` is one path component and ends with a NUL byte, which the caller sees to.
 */
import { constants, openSync } from 'node:fs';
import { AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, check, lastErrno, libc, openat2, systemError } from './libc.ts';
import type { Path } from './libc.ts';

const raw = {
  statx: libc.func('int statx(int dirfd, const void* path, int flags, uint32_t mask, void* out)'),
  getdents64: libc.func('int64_t getdents64(int fd, void* buffer, size_t size)'),
  readlinkat: libc.func('int64_t readlinkat(int dirfd, const void* path, void* buffer, size_t size)'),
  syscall5: libc.func('long syscall(long number, int dirfd, const void* path, uint32_t flags, void* argument, size_t size)'),
  openTree: libc.func('long syscall(long number, int dirfd, const void* path, uint32_t flags)'),
  close: libc.func('int close(int fd)'),
  ftruncate: libc.func('int ftruncate(int fd, int64_t length)'),
  llistxattr: libc.func('int64_t llistxattr(const void* path, void* list, size_t size)'),
  lgetxattr: libc.func('int64_t lgetxattr(const void* path, const void* name, void* value, size_t size)'),
  lsetxattr: libc.func('int lsetxattr(const void* path, const void* name, const void* value, size_t size, int flags)'),
  lremovexattr: libc.func('int lremovexattr(const void* path, const void* name)'),
  fchownat: libc.func('int fchownat(int dirfd, const void* path, uint32_t uid, uint32_t gid, int flags)'),
  fchmodat: libc.func('int fchmodat(int dirfd, const void* path, uint32_t mode, int flags)'),
  utimensat: libc.func('int utimensat(int dirfd, const void* path, const void* times, int flags)'),
  unlinkat: libc.func('int unlinkat(int dirfd, const void* path, int flags)'),
};

/** Below the root, through no link of any kind and into no other mount. */
export const CONFINED = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;

/** open(2) flags that node:fs does not have; the same on x86-64 and arm64. */
export const O_PATH = 0o10000000;
export const O_CLOEXEC = 0o2000000;

const AT_NO_AUTOMOUNT = 0x800;
const STATX_BASIC_STATS = 0x7ff;
const STATX_ATTR_MOUNT_ROOT = 0x2000;

/** The answer of statx(2), reused from call to call: copy what you keep. Field offsets are those of struct statx. */
export class StatBuffer {
  readonly bytes = new Uint8Array(256);
  readonly #u32 = new Uint32Array(this.bytes.buffer);
  readonly #i32 = new Int32Array(this.bytes.buffer);

  get mountRoot(): boolean {
    return ((this.#u32[2] as number) & STATX_ATTR_MOUNT_ROOT) !== 0;
  }
  get links(): number {
    return this.#u32[4] as number;
  }
  get uid(): number {
    return this.#u32[5] as number;
  }
  get gid(): number {
    return this.#u32[6] as number;
  }
  /** File type and permission bits. */
  get mode(): number {
    return (this.#u32[7] as number) & 0xffff;
  }
  get inodeLow(): number {
    return this.#u32[8] as number;
  }
  get inodeHigh(): number {
    return this.#u32[9] as number;
  }
  get size(): number {
    return (this.#u32[10] as number) + (this.#u32[11] as number) * 2 ** 32;
  }
  /** Bytes that are allocated on the file system. */
  get allocated(): number {
    return ((this.#u32[12] as number) + (this.#u32[13] as number) * 2 ** 32) * 512;
  }
  get ctimeSeconds(): number {
    return (this.#u32[24] as number) + (this.#i32[25] as number) * 2 ** 32;
  }
  get ctimeNanoseconds(): number {
    return this.#u32[26] as number;
  }
  get mtimeSeconds(): number {
    return (this.#u32[28] as number) + (this.#i32[29] as number) * 2 ** 32;
  }
  get mtimeNanoseconds(): number {
    return this.#u32[30] as number;
  }
  get deviceMajor(): number {
    return this.#u32[32] as number;
  }
  get deviceMinor(): number {
    return this.#u32[33] as number;
  }
  /** The device that the file system is on. */
  get onMajor(): number {
    return this.#u32[34] as number;
  }
  get onMinor(): number {
    return this.#u32[35] as number;
  }
}

/** lstat of a name in a directory, or of the descriptor itself when the name is empty. False when it is not there (any more). */
export function statAt(dirfd: number, name: Uint8Array, out: StatBuffer): boolean {
  if ((raw.statx(dirfd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH, STATX_BASIC_STATS, out.bytes) as number) === 0) return true;
  const code = lastErrno();
  if (code === 'ENOENT' || code === 'ENOTDIR') return false;
  throw systemError('statx', shown(name));
}

/** Target of a symlink; undefined when it is gone. At most PATH_MAX, as symlink(2) allows no more. */
export function readLink(dirfd: number, name: Uint8Array): Buffer | undefined {
  const target = Buffer.alloc(4096);
  const size = Number(raw.readlinkat(dirfd, name, target, target.length));
  if (size >= 0) return target.subarray(0, size);
  const code = lastErrno();
  if (code === 'ENOENT' || code === 'EINVAL') return undefined;
  throw systemError('readlinkat', shown(name));
}

const SYS_OPEN_TREE = 428;
const SYS_MOUNT_SETATTR = 442;
const OPEN_TREE_CLONE = 1;
const MOUNT_ATTR = { rdonly: 0x1, nosuid: 0x2, nodev: 0x4, noexec: 0x8, noatime: 0x10 };

/**
 * A private view of a directory that nobody else can see, as a descriptor (kernel 5.12): without what is mounted
 * below it, and on which no device can be opened and nothing executed. Read-only (and no access times) unless
 * `writable`. The last symlink of `path` is not followed.
 */
export function openPrivateView(path: Path, { writable }: { writable: boolean }): number {
  const name = typeof path === 'string' ? Buffer.from(path) : path;
  const fd = check(raw.openTree(SYS_OPEN_TREE, AT_FDCWD, terminated(name), OPEN_TREE_CLONE | O_CLOEXEC | AT_SYMLINK_NOFOLLOW) as number, 'open_tree', path);
  const always = MOUNT_ATTR.nosuid | MOUNT_ATTR.nodev | MOUNT_ATTR.noexec;
  const attributes = Buffer.alloc(32);
  attributes.writeUInt32LE(writable ? always : always | MOUNT_ATTR.rdonly | MOUNT_ATTR.noatime, 0);
  // The access time mode is a field of its own that must be cleared before it is set.
  if (!writable) attributes.writeUInt32LE(0x70, 8);
  if ((raw.syscall5(SYS_MOUNT_SETATTR, fd, Buffer.of(0), AT_EMPTY_PATH, attributes, attributes.length) as number) === 0) return fd;
  const error = systemError('mount_setattr', path);
  closeFd(fd);
  throw error;
}

/** Types of directory entries: DT_UNKNOWN, DT_CHR, DT_DIR, DT_BLK of dirent.h. */
export const ENTRY = { unknown: 0, character: 2, directory: 4, block: 6 } as const;

/** Reads directories. One object per thread; it owns the buffer that the names lie in. */
export class DirectoryScanner {
  readonly #buffer = Buffer.alloc(256 * 1024);

  /**
   * Calls `visit` with each name but "." and "..": NUL-terminated, `length` bytes before the NUL, valid during the call
   * only.
   * `type`: see {@link ENTRY}; 0 where the file system does not tell.
   */
  scan(dirfd: number, visit: (name: Buffer, length: number, type: number) => void): void {
    const buffer = this.#buffer;
    for (;;) {
      const used = check(raw.getdents64(dirfd, buffer, buffer.length) as number, 'getdents64');
      if (used === 0) return;
      for (let at = 0; at < used; ) {
        const size = (buffer[at + 16] as number) | ((buffer[at + 17] as number) << 8);
        const start = at + 19;
        at += size;
        let end = start;
        while (buffer[end] !== 0) end += 1;
        const length = end - start;
        const dots = buffer[start] === 0x2e && (length === 1 || (length === 2 && buffer[start + 1] === 0x2e));
        if (!dots) visit(buffer.subarray(start, end + 1), length, buffer[start - 1] as number);
      }
    }
  }
}

export function closeFd(fd: number): void {
  raw.close(fd);
}

export function truncate(fd: number, length: number): void {
  check(raw.ftruncate(fd, length) as number, 'ftruncate');
}

/** The first error code that makes a path "not there or not what it was", for callers that race with its owner. */
const goneCodes = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'EXDEV']);

export function isGone(error: unknown): boolean {
  return goneCodes.has((error as { code?: string }).code ?? '');
}

/** Longest part of a path given to one call, below PATH_MAX (4096). */
const MAX_PATH_BYTES = 4000;

/**
 * Opens a path of any length below `root`, confined. Longer paths are opened in stretches. An empty path is the root itself.
 */
export function openConfined(root: number, path: Buffer, flags: number, mode: number): number {
  if (path.length === 0) return openat2(root, '.', flags, mode, CONFINED);
  let from = root;
  let rest = path;
  try {
    while (rest.length > MAX_PATH_BYTES) {
      const cut = rest.lastIndexOf(0x2f, MAX_PATH_BYTES);
      if (cut <= 0) throw Object.assign(new Error('a path component is too long'), { code: 'ENAMETOOLONG' });
      const next = openat2(from, rest.subarray(0, cut), O_PATH, 0, CONFINED);
      if (from !== root) closeFd(from);
      from = next;
      rest = rest.subarray(cut + 1);
    }
    return openat2(from, rest, flags, mode, CONFINED);
  } finally {
    if (from !== root) closeFd(from);
  }
}

/**
 * Opens a file of a directory for reading, or nothing (undefined) when it is not a regular file: a device is not even
 * opened, because that alone can have effects. `name` without a NUL.
 */
export function openRegular(dirfd: number, name: Buffer): number | undefined {
  const looked = openat2(dirfd, name, O_PATH | constants.O_NOFOLLOW, 0, CONFINED);
  try {
    const stat = new StatBuffer();
    if (!statAt(looked, Buffer.of(0), stat) || (stat.mode & constants.S_IFMT) !== constants.S_IFREG) return undefined;
    return openSync(`/proc/self/fd/${looked}`, constants.O_RDONLY);
  } finally {
    closeFd(looked);
  }
}

function shown(name: Uint8Array): Path {
  return Buffer.from(name.buffer, name.byteOffset, Math.max(0, name.length - 1));
}

/**
 * Extended attributes of names in a directory, through /proc/self/fd/N/NAME: the calls that take a descriptor and a
 * name exist only from kernel 6.13 on. The final component is never followed.
 */
export class XattrAccess {
  readonly #path = Buffer.alloc(320);
  readonly #list = Buffer.alloc(65536);
  readonly #value = Buffer.alloc(65536);
  readonly #times = Buffer.alloc(32);

  #at(dirfd: number, name: Uint8Array): Buffer {
    const prefix = this.#path.write(`/proc/self/fd/${dirfd}/`, 'latin1');
    this.#path.set(name, prefix);
    return this.#path;
  }

  /** Names, each without its NUL; valid until the next call. */
  list(dirfd: number, name: Uint8Array): readonly Buffer[] {
    const size = Number(raw.llistxattr(this.#at(dirfd, name), this.#list, this.#list.length));
    if (size === 0) return [];
    if (size < 0) {
      const code = lastErrno();
      if (code === 'ENOTSUP' || code === 'EOPNOTSUPP' || code === 'ENOENT') return [];
      throw systemError('llistxattr', shown(name));
    }
    const names: Buffer[] = [];
    for (let start = 0; start < size; ) {
      const end = this.#list.indexOf(0, start);
      names.push(this.#list.subarray(start, end));
      start = end + 1;
    }
    return names;
  }

  /** A copy of the value, undefined when it is gone. */
  get(dirfd: number, name: Uint8Array, attribute: Uint8Array): Buffer | undefined {
    const size = Number(raw.lgetxattr(this.#at(dirfd, name), terminated(attribute), this.#value, this.#value.length));
    if (size >= 0) return Buffer.from(this.#value.subarray(0, size));
    const code = lastErrno();
    if (code === 'ENODATA' || code === 'ENOENT') return undefined;
    throw systemError('lgetxattr', shown(name));
  }

  set(dirfd: number, name: Uint8Array, attribute: Uint8Array, value: Uint8Array): void {
    check(raw.lsetxattr(this.#at(dirfd, name), terminated(attribute), value, value.length, 0) as number, 'lsetxattr', shown(name));
  }

  remove(dirfd: number, name: Uint8Array, attribute: Uint8Array): void {
    check(raw.lremovexattr(this.#at(dirfd, name), terminated(attribute)) as number, 'lremovexattr', shown(name));
  }

  /** Sets mtime and leaves atime as it is. */
  setModified(dirfd: number, name: Uint8Array, seconds: number, nanoseconds: number): void {
    const UTIME_OMIT = 0x3ffffffe;
    this.#times.writeInt32LE(UTIME_OMIT, 8);
    this.#times.writeInt32LE(seconds | 0, 16);
    this.#times.writeInt32LE(Math.floor(seconds / 2 ** 32), 20);
    this.#times.writeInt32LE(nanoseconds, 24);
    check(raw.utimensat(dirfd, name, this.#times, AT_SYMLINK_NOFOLLOW) as number, 'utimensat', shown(name));
  }
}

function terminated(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.of(0)]);
}

/** Never follows a symlink. */
export function chownAt(dirfd: number, name: Uint8Array, uid: number, gid: number): void {
  check(raw.fchownat(dirfd, name, uid, gid, AT_SYMLINK_NOFOLLOW) as number, 'fchownat', shown(name));
}

/** Follows a symlink: only for what is known to be none. */
export function chmodAt(dirfd: number, name: Uint8Array, mode: number): void {
  check(raw.fchmodat(dirfd, name, mode, 0) as number, 'fchmodat', shown(name));
}

/** False when there was nothing of that name. */
export function removeAt(dirfd: number, name: Uint8Array, flags: number): boolean {
  if ((raw.unlinkat(dirfd, name, flags) as number) === 0) return true;
  if (lastErrno() === 'ENOENT') return false;
  throw systemError('unlinkat', shown(name));
}
