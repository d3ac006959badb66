/** Removing directories that may have mounts below them. */
import { existsSync, realpathSync, rmSync, rmdirSync } from 'node:fs';
import { StasisError } from '../core/errors.ts';
import { MNT_DETACH, umount } from './libc.ts';
import { readMountinfo } from './mountinfo.ts';

/** Unmounts what is mounted below, the newest first. Throws RUNTIME_FAILED when something stays: a recursive delete must not walk into it. */
export function unmountBelow(directory: string): void {
  if (!existsSync(directory)) return;
  const real = realpathSync(directory);
  const below = (): string[] => readMountinfo('self').map(({ mountPoint }) => mountPoint).filter((path) => path.startsWith(`${real}/`));
  for (const path of below().reverse()) umount(path, MNT_DETACH);
  const [left] = below();
  if (left !== undefined) throw new StasisError('RUNTIME_FAILED', `${left} cannot be unmounted`, { hint: `unmount it by hand (umount ${left})` });
}

/** Unmounts everything at a mount point and removes the empty directory. Nothing when it does not exist. */
export function removeMountPoint(path: string): void {
  if (!existsSync(path)) return;
  unmountBelow(path);
  const real = realpathSync(path);
  for (let left = readMountinfo('self').filter(({ mountPoint }) => mountPoint === real).length; left > 0; left--) umount(real, MNT_DETACH);
  rmdirSync(real);
}

/** Nothing when it does not exist. */
export function removeTreeAndMounts(directory: string): void {
  unmountBelow(directory);
  rmSync(directory, { recursive: true, force: true });
}
