/**
 * Changes options of mounts in another mount namespace (mount_setattr(2), Linux 5.12). No program runs in there: it would be
 * the container's own. The kernel wants the caller in the namespace, so this thread goes there and comes back at once
 * (ADR 0032).
 */
import { closeSync, constants, openSync } from 'node:fs';
import { invariant } from '../core/assert.ts';
import { AT_EMPTY_PATH, RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, check, lastErrno, libc, openat2 } from './libc.ts';
import { statOpen } from './still-files.ts';
import { O_PATH } from './tree-calls.ts';

const raw = {
  unshare: libc.func('int unshare(int flags)'),
  setns: libc.func('int setns(int fd, int type)'),
  fchdir: libc.func('int fchdir(int fd)'),
  chroot: libc.func('int chroot(const char* path)'),
  setattr: libc.func('long syscall(long number, int fd, const char* path, uint32_t flags, const void* attributes, size_t size)'),
};

const CLONE_FS = 0x200;
const CLONE_NEWNS = 0x20000;
const SYS_MOUNT_SETATTR = 442;

/** MOUNT_ATTR_* of linux/mount.h, by the words of mountinfo. */
const ATTRIBUTES: Readonly<Record<string, bigint>> = { ro: 0x1n, nosuid: 0x2n, nodev: 0x4n, noexec: 0x8n, noatime: 0x10n, strictatime: 0x20n, nodiratime: 0x80n, relatime: 0n, nosymfollow: 0x200000n };
/** MOUNT_ATTR__ATIME: a field of its own, which is cleared before a value is set. */
const TIMES_FIELD = 0x70n;
const TIMES = ['noatime', 'strictatime', 'relatime'];

export interface MountChange {
  /** As the container's first process sees it. */
  readonly mountPoint: string;
  /** As in mountinfo: what another mount hides is not mistaken for it. */
  readonly id: number;
  /** Options that it gets beside those that it has: ro, nosuid, nodev, noexec, noatime, strictatime, relatime, nodiratime, nosymfollow. */
  readonly add: readonly string[];
}

/** struct mount_attr: what is set, what is cleared, propagation, user namespace. */
function attributes(add: readonly string[]): Buffer {
  const bytes = Buffer.alloc(32);
  bytes.writeBigUInt64LE(add.reduce((all, option) => all | (ATTRIBUTES[option] ?? 0n), 0n), 0);
  bytes.writeBigUInt64LE(add.some((option) => TIMES.includes(option)) ? TIMES_FIELD : 0n, 8);
  return bytes;
}

/** `pid`: a task in that namespace that stands still. Synchronous. Returns what could not be changed, in words. */
export function changeMounts(pid: number, changes: readonly MountChange[]): string[] {
  if (changes.length === 0) return [];
  const failed: string[] = [];
  using held = new DisposableStack();
  const open = (path: string, flags: number): number => held.adopt(openSync(path, flags), closeSync);
  const root = open(`/proc/${pid}/root`, O_PATH | constants.O_DIRECTORY);
  const found = changes.flatMap(({ mountPoint, id, add }) => {
    try {
      const fd = held.adopt(openat2(root, mountPoint.slice(1) || '.', O_PATH, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS), closeSync);
      if (statOpen(fd)?.mountId === id) return [{ fd, mountPoint, attributes: attributes(add) }];
      failed.push(`${mountPoint}: another mount hides it`);
    } catch (error) {
      failed.push(`${mountPoint}: ${(error as Error).message}`);
    }
    return [];
  });
  const places = { there: open(`/proc/${pid}/ns/mnt`, constants.O_RDONLY), back: open('/proc/thread-self/ns/mnt', constants.O_RDONLY), root: open('/', O_PATH), cwd: open('.', O_PATH) };
  inside(places, () => {
    for (const { fd, mountPoint, attributes: bytes } of found) {
      if ((raw.setattr(SYS_MOUNT_SETATTR, fd, '', AT_EMPTY_PATH, bytes, bytes.length) as number) !== 0) failed.push(`${mountPoint}: ${lastErrno()}`);
    }
  });
  return failed;
}

/** Nothing in `use` may open a file by its path. */
function inside({ there, back, root, cwd }: Readonly<Record<'there' | 'back' | 'root' | 'cwd', number>>, use: () => void): void {
  // A thread that shares its root and working directory with others may not change its mount namespace.
  check(raw.unshare(CLONE_FS) as number, 'unshare');
  check(raw.setns(there, CLONE_NEWNS) as number, 'setns');
  try {
    use();
  } finally {
    const returned = raw.setns(back, CLONE_NEWNS) === 0 && raw.fchdir(root) === 0 && raw.chroot('.') === 0 && raw.fchdir(cwd) === 0;
    invariant(returned, 'a thread could not return to its own mount namespace');
  }
}
