/** Removing directories that may have mounts below them. */
import { existsSync, realpathSync, rmSync } from 'node:fs';
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

/** Nothing when it does not exist. */
export function removeTreeAndMounts(directory: string): void {
  unmountBelow(directory);
  rmSync(directory, { recursive: true, force: true });
}
