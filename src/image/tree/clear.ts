/** Removes what stands in the way of a tree, without ever leaving the directory it stands in. */
import { constants } from 'node:fs';
import { openat2, AT_REMOVEDIR } from '../../host/libc.ts';
import { CONFINED, DirectoryScanner, StatBuffer, closeFd, removeAt, statAt } from '../../host/tree-calls.ts';

/** Removes a file or a whole directory of that name, if there is one. `name` is one component. */
export function removeTree(dirfd: number, name: Buffer): void {
  const terminated = Buffer.concat([name, Buffer.of(0)]);
  const stat = new StatBuffer();
  if (!statAt(dirfd, terminated, stat)) return;
  if ((stat.mode & constants.S_IFMT) !== constants.S_IFDIR) {
    removeAt(dirfd, terminated, 0);
    return;
  }
  const directory = openat2(dirfd, name, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW, 0, CONFINED);
  try {
    clearDirectory(directory);
  } finally {
    closeFd(directory);
  }
  removeAt(dirfd, terminated, AT_REMOVEDIR);
}

export function clearDirectory(directory: number): void {
  const names: Buffer[] = [];
  new DirectoryScanner().scan(directory, (name, length) => names.push(Buffer.from(name.subarray(0, length))));
  for (const name of names) removeTree(directory, name);
}
