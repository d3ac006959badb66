/**
 * Looking at files of a container without ever waiting for whoever serves them (a FUSE server inside the container, a
 * network file system that hangs), and without following its links onto the node. Everything here answers from what the
 * kernel has in memory, so the calls may be synchronous; what it does not have is `undefined`.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { errnoCode } from '../core/errors.ts';
import { RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, libc, openat2 } from './libc.ts';
import { O_PATH } from './tree-calls.ts';

const raw = {
  statx: libc.func('int statx(int dirfd, const void* path, int flags, uint32_t mask, void* out)'),
  listxattr: libc.func('int64_t listxattr(const void* path, void* list, size_t size)'),
  fstatfs: libc.func('int fstatfs(int fd, void* out)'),
};

const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const AT_NO_AUTOMOUNT = 0x800;
/** What the kernel remembers is enough: a FUSE server is not asked. */
const AT_STATX_DONT_SYNC = 0x4000;
/** STATX_BASIC_STATS and STATX_MNT_ID. */
const STATX_WANTED = 0x17ff;
const RESOLVE_IN_ROOT = 0x10;
/** Fails with EAGAIN where a lookup would have to ask the file system (kernel 5.12). */
const RESOLVE_CACHED = 0x20;

export interface StillStat {
  readonly mode: number;
  readonly links: number;
  /** Unique on this node while the file exists: "254:1 131072". */
  readonly key: string;
  readonly size: number;
  /** Bytes that are allocated. */
  readonly allocated: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  /** As in mountinfo; 0 where the kernel does not tell (before 5.8). */
  readonly mountId: number;
}

function parse(bytes: Buffer): StillStat {
  const u64 = (at: number): number => Number(bytes.readBigUInt64LE(at));
  return {
    mode: bytes.readUInt16LE(28), links: bytes.readUInt32LE(16), size: u64(40), allocated: u64(48) * 512,
    key: `${bytes.readUInt32LE(136)}:${bytes.readUInt32LE(140)} ${bytes.readBigUInt64LE(32)}`,
    deviceMajor: bytes.readUInt32LE(128), deviceMinor: bytes.readUInt32LE(132), mountId: u64(144),
  };
}

function stat(dirfd: number, path: string, flags: number): StillStat | undefined {
  const out = Buffer.alloc(256);
  const result = raw.statx(dirfd, Buffer.from(`${path}\0`), flags | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_WANTED, out) as number;
  return result === 0 ? parse(out) : undefined;
}

/** What a link of /proc/PID ("fd/7", "exe", "cwd") leads to: the very file, whatever its path is now. Undefined when it is gone. */
export function statLink(pid: number, link: string): StillStat | undefined {
  return stat(AT_FDCWD, `/proc/${pid}/${link}`, 0);
}

/** A path of the node itself. */
export function statPath(path: string): StillStat | undefined {
  return stat(AT_FDCWD, path, 0);
}

export function statOpen(fd: number): StillStat | undefined {
  return stat(fd, '', AT_EMPTY_PATH);
}

/**
 * Runs `use` with a descriptor (O_PATH) of `path` below the root of a process. No link on the way is followed. Undefined
 * when there is no such path, or the kernel would have to ask for it.
 */
export function withinRoot<T>(pid: number, path: string, use: (fd: number) => T): T | undefined {
  let root: number | undefined;
  let fd: number | undefined;
  try {
    root = openSync(`/proc/${pid}/root`, O_PATH | constants.O_DIRECTORY);
    fd = openat2(root, path, O_PATH | constants.O_NOFOLLOW, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_CACHED);
    return use(fd);
  } catch (error) {
    if (errnoCode(error) === undefined) throw error;
    return undefined;
  } finally {
    if (fd !== undefined) closeSync(fd);
    if (root !== undefined) closeSync(root);
  }
}

/** Bytes in use on the file system of an open file. Only for what lies in memory: others may have to ask somebody. */
export function usedBytes(fd: number): number | undefined {
  const out = Buffer.alloc(256);
  if ((raw.fstatfs(fd, out) as number) !== 0) return undefined;
  const u64 = (at: number): number => Number(out.readBigUInt64LE(at));
  return (u64(16) - u64(24)) * u64(8);
}

/** Names of the extended attributes of what is open (O_PATH will do). Only for what lies in memory. */
export function attributesOf(fd: number): string[] {
  const list = Buffer.alloc(4096);
  const size = Number(raw.listxattr(Buffer.from(`/proc/self/fd/${fd}\0`), list, list.length));
  return size <= 0 ? [] : list.toString('latin1', 0, size).split('\0').filter(Boolean);
}
