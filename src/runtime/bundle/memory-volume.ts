/** File systems in memory that a restore makes anew in place of those that were bound into a container. */
import { mkdirSync } from 'node:fs';
import { StasisError } from '../../core/errors.ts';
import { MS_NODEV, MS_NOEXEC, MS_NOSUID, mount } from '../../host/libc.ts';
import type { Mount } from '../../host/mountinfo.ts';
import { hasUserNamespace, mountPointOf } from '../spec.ts';
import { printable } from '../text.ts';
import type { OciSpec, VolumeMount } from '../types.ts';

export interface MemoryVolume {
  /** Mount point inside the container. */
  readonly destination: string;
  readonly fstype: string;
  /** Absent in checkpoints of older versions: then its size has no limit of its own. */
  readonly mount?: VolumeMount | undefined;
}

const FLAGS: ReadonlyMap<string, number> = new Map([['nosuid', MS_NOSUID], ['nodev', MS_NODEV], ['noexec', MS_NOEXEC]]);
/** Of one mount; or written by the kernel according to its own build. */
const NOT_GIVEN = /^(ro|rw|inode64|inode32|seclabel|context=.*|rootcontext=.*|fscontext=.*|defcontext=.*)$/;

/** What the mount at a volume's destination is like, for the checkpoint. Undefined when there is none. */
export function volumeMount(mounts: readonly Mount[], destination: string): VolumeMount | undefined {
  const at = mountPointOf(destination);
  // The last one listed covers the others.
  const found = mounts.findLast(({ mountPoint }) => mountPoint === at);
  if (found === undefined) return undefined;
  return {
    flags: found.options.filter((option) => FLAGS.has(option)),
    options: found.superOptions.filter((option) => !NOT_GIVEN.test(option)),
  };
}

/**
 * Mounts it at `target`, with its old limits of size and inodes. Throws RESTORE_INCOMPATIBLE when this kernel does not
 * know an option.
 */
export function makeMemoryVolume(target: string, volume: MemoryVolume, spec: OciSpec): string {
  mkdirSync(target, { recursive: true, mode: 0o700 });
  const { flags, options } = volume.mount ?? { flags: defaultFlags(spec), options: ['mode=1777'] };
  try {
    const type = volume.mount === undefined ? 'tmpfs' : volume.fstype;
    mount('stasis', target, type, flags.reduce((all, flag) => all | (FLAGS.get(flag) ?? 0), 0), options.join(','));
  } catch (error) {
    throw new StasisError('RESTORE_INCOMPATIBLE', `the memory at ${printable(volume.destination)} cannot be made as `
      + `it was (${volume.fstype} with ${options.join(',') || 'no options'}): ${(error as Error).message}`, {
      cause: error,
      hint: 'restore on a node whose kernel knows these options, or in a bundle of yours that has the mount: stasis '
        + 'restore --bundle DIR',
    });
  }
  return target;
}

/**
 * In a user namespace the kernel takes no option away that a mount has outside; the directory above is root's alone.
 */
function defaultFlags(spec: OciSpec): string[] {
  return hasUserNamespace(spec) ? [] : ['nosuid', 'nodev'];
}
