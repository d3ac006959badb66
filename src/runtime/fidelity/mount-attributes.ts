/** The rows of the table that are read of each mount of the container's first process (proc(5), mountinfo). */
import type { Mount } from '../../host/mountinfo.ts';
import type { CgroupEntry } from '../../host/proc.ts';
import type { Attribute } from './types.ts';

export interface MountAttribute extends Attribute {
  /** `cgroups`: those of the container's first process. */
  readonly read: (mount: Mount, cgroups: readonly CgroupEntry[]) => string | undefined;
}

/** File systems whose options are the container's own, not those of a disk that a mount shows a part of. */
const VIRTUAL = new Set(['proc', 'sysfs', 'tmpfs', 'devpts', 'mqueue', 'cgroup', 'cgroup2']);
/** Written by the kernel according to its own build. */
const UNASKED = /^(inode64|inode32|seclabel|huge=never)$/;
/** What a write could do harm through. Times of access are no matter of safety, and the runtime's mount decides them. */
const TIMES = /^(noatime|relatime|nodiratime|lazytime|strictatime)$/;

/** What a runtime hides parts of /proc and /sys with: an empty tmpfs, or the device null of whatever file system. */
export function isMask({ mountPoint, fsType, root }: Mount): boolean {
  return /^\/(proc|sys)\/./.test(mountPoint) && mountPoint !== '/sys/fs/cgroup' && (root === '/null' || fsType === 'tmpfs');
}

const LINKS = 'nosymfollow';

function options(mount: Mount): string {
  return mount.options.filter((option) => !TIMES.test(option) && option !== LINKS).sort().join(',');
}

function propagation({ tags }: Mount): string {
  const kinds = tags.map((tag) => tag.replace(/:.*/, '')).filter((kind) => ['shared', 'master', 'unbindable'].includes(kind));
  return kinds.length === 0 ? 'private' : [...new Set(kinds)].sort().join(',');
}

export const ALL_CGROUPS = 'all cgroups';
export const OWN_CGROUPS = 'cgroups of the container';

/** Of the hierarchy that a mount shows: all, the part that the container is in, or another. */
function cgroupPart({ fsType, root, superOptions }: Mount, cgroups: readonly CgroupEntry[]): string | undefined {
  const own = cgroups.find(({ hierarchy, controllers }) => (
    fsType === 'cgroup2' ? hierarchy === 0 : controllers.some((name) => superOptions.includes(name))
  ))?.path;
  if (own === undefined) return undefined;
  return root === '/' ? ALL_CGROUPS : `${own}/`.startsWith(`${root}/`) ? OWN_CGROUPS : 'cgroups of others';
}

/** A part of a virtual file system is the same everywhere; where a directory of the node lies is the bundle's matter. */
function part(mount: Mount, cgroups: readonly CgroupEntry[]): string | undefined {
  const { fsType, root } = mount;
  if (fsType === 'cgroup' || fsType === 'cgroup2') return cgroupPart(mount, cgroups);
  return ['proc', 'sysfs', 'devpts', 'mqueue'].includes(fsType) ? root : undefined;
}

export const MOUNT_ATTRIBUTES: readonly MountAttribute[] = [
  { name: 'mount', meaning: 'file system at a mount point', keeper: 'kept', read: (mount) => (isMask(mount) ? 'mask' : mount.fsType) },
  { name: 'mount-options', meaning: 'ro, nosuid, nodev, noexec and the like of a mount', keeper: 'kept', read: (mount) => (isMask(mount) ? undefined : options(mount)) },
  { name: 'mask-options', meaning: 'the same of what hides a path below /proc or /sys', keeper: 'put-back', read: (mount) => (isMask(mount) ? options(mount) : undefined) },
  { name: 'mount-links', meaning: 'whether a mount follows symbolic links', keeper: 'put-back', read: (mount) => (mount.options.includes(LINKS) ? LINKS : 'follow') },
  {
    name: 'mount-times', meaning: 'whether a mount notes times of access', keeper: 'kept',
    read: (mount) => mount.options.filter((option) => TIMES.test(option)).sort().join(','),
  },
  { name: 'mount-propagation', meaning: 'whether mounts are passed on', keeper: 'kept', read: propagation },
  { name: 'mount-part', meaning: 'which part of /proc, /sys and the like it shows', keeper: 'kept', read: part },
  {
    name: 'file-system-options', meaning: 'options of proc, sysfs, tmpfs, devpts, mqueue and cgroup file systems',
    keeper: 'kept',
    read: (mount) => (VIRTUAL.has(mount.fsType) && !isMask(mount) ? mount.superOptions.filter(
      (option) => !UNASKED.test(option)
    ).sort().join(',') : undefined),
  },
];

/** Mounts that lie on one another are told apart by a number, from the lowest. */
export function mountNames(mounts: readonly Mount[]): string[] {
  const seen = new Map<string, number>();
  return mounts.map(({ mountPoint }) => {
    const count = (seen.get(mountPoint) ?? 0) + 1;
    seen.set(mountPoint, count);
    return count === 1 ? mountPoint : `${mountPoint} (${count})`;
  });
}
