/** The directory descriptor that everything about a tree starts from. */
import { constants, openSync, statfsSync } from 'node:fs';
import { StasisError, asStasisError, errnoCode } from '../../core/errors.ts';
import { openPrivateView } from '../../host/tree-calls.ts';

/** linux/magic.h: tmpfs, ramfs, hugetlbfs. */
const memoryFileSystems = new Set([0x01021994, 0x858458f6, 0x958458f6]);

/** Whether files can be changed through a shared mapping without any change of their times. */
export function volatileFileSystem(fd: number): boolean {
  return memoryFileSystems.has(statfsSync(`/proc/self/fd/${fd}`).type);
}

/** ext2 to ext4, XFS, btrfs: on them every write, also the first to a page of a new mapping, changes ctime at once. */
const promptFileSystems = new Set([0xef53, 0x58465342, 0x9123683e]);

/** Whether ctime tells of every write that began since the file was looked at, also when nobody watched. */
export function timesTell(fd: number): boolean {
  return promptFileSystems.has(statfsSync(`/proc/self/fd/${fd}`).type);
}

/**
 * Opens a private view of the directory where the kernel can make one. It cannot of a mount in another mount namespace
 * (/proc/PID/root/…): then the directory itself is opened. The caller closes it with closeFd.
 */
export function openRoot(path: string, options: { writable: boolean }): number {
  try {
    return openPrivateView(path, options);
  } catch (error) {
    const code = errnoCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP') throw notADirectory(path, error);
  }
  try {
    return openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  } catch (error) {
    if (errnoCode(error) === 'ENOTDIR' || errnoCode(error) === 'ENOENT' || errnoCode(error) === 'ELOOP') throw notADirectory(path, error);
    throw asStasisError(error, `the directory ${path} cannot be opened`);
  }
}

function notADirectory(path: string, cause: unknown): StasisError {
  return new StasisError('INTERNAL', `${path} is not a directory`, { cause, hint: 'the container or its files went away in the meantime; try again' });
}
