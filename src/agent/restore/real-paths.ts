/**
 * Open files of imported images must lie where they say. CRIU opens them by path, as root of the node, before the container
 * runs, and follows symlinks: one that the archive put on the way could lead into /proc, where "self" is CRIU itself.
 */
import { statSync } from 'node:fs';
import { StasisError } from '../../core/errors.ts';
import { throughSymlink } from '../../host/symlinks.ts';
import type { OciSpec } from '../../runtime/types.ts';

interface Places {
  /** The container's root file system on the node, mounted. */
  readonly rootfs: string;
  readonly mounts: OciSpec['mounts'];
}

/** The kernel names an open file by its real path, so that no honest image has a symlink in one. Throws RESTORE_INCOMPATIBLE. */
export function requireRealPaths(paths: ReadonlySet<string>, { rootfs, mounts = [] }: Places): void {
  const places = mounts.map(({ destination, source, options = [] }) => ({ top: destination.replace(/\/+$/, ''), directory: options.some((option) => /^r?bind$/.test(option)) ? source : undefined }));
  for (const path of paths) {
    const mount = places.filter(({ top }) => path === top || path.startsWith(`${top}/`)).toSorted((a, b) => b.top.length - a.top.length)[0];
    if (mount === undefined ? throughSymlink(rootfs, path) : belowMount(mount.directory, path.slice(mount.top.length))) {
      throw new StasisError('RESTORE_INCOMPATIBLE', `the imported images have the open file ${JSON.stringify(path.slice(0, 200))}, and a symlink is on the way to it`, {
        hint: 'the kernel names open files without symlinks: the archive was made to do harm, or the bundle has other files than the container had',
      });
    }
  }
}

/** A file that is mounted by itself has nothing below it; file systems that the runtime makes have nothing in them yet. */
function belowMount(directory: string | undefined, rest: string): boolean {
  if (directory === undefined || rest === '' || statSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true) return false;
  return throughSymlink(directory, rest);
}
