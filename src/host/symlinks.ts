/** Whether a path leads through a symlink, asked of the kernel without following any. */
import { closeSync, constants, openSync } from 'node:fs';
import { errnoCode } from '../core/errors.ts';
import { RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2 } from './libc.ts';

const O_PATH = 0o10000000;
const RESOLVE_IN_ROOT = 0x10;

/** One of the components of `path` below the directory `root`, the last one included, is a symlink. What is not there is none. */
export function throughSymlink(root: string, path: string): boolean {
  const fd = openSync(root, O_PATH | constants.O_DIRECTORY);
  try {
    // Latin-1 text of the bytes that a stranger's images have.
    closeSync(openat2(fd, Buffer.from(path, 'latin1'), O_PATH, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS));
    return false;
  } catch (error) {
    if (errnoCode(error) === undefined) throw error;
    return errnoCode(error) === 'ELOOP';
  } finally {
    closeSync(fd);
  }
}
