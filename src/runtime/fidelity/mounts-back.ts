/** Options of mounts that CRIU, or the runtime at a restore, leaves out: they are set again before a task runs. */
import { changeMounts, type MountChange } from '../../host/foreign-mounts.ts';
import { readMountinfo, type Mount } from '../../host/mountinfo.ts';
import type { OciSpec } from '../types.ts';
import { valueOf } from './compare.ts';
import { MOUNT_ATTRIBUTES, isMask, mountNames } from './mount-attributes.ts';
import type { FidelityRecord } from './types.ts';

/** Rows whose value is a list of options; what they take away from the container is given back, what they grant never is. */
const LISTED = ['mask-options', 'mount-options', 'mount-links'] as const;
const RESTRICTIONS = new Set(['ro', 'nosuid', 'nodev', 'noexec', 'nosymfollow']);

const rows = new Map(MOUNT_ATTRIBUTES.map((row) => [row.name, row]));

/** `pid`: the container's first process, which stands still. Returns what could not be set, in words. */
export function putBackMounts(was: FidelityRecord, pid: number): string[] {
  const mounts = readMountinfo(pid);
  const names = mountNames(mounts);
  return changeMounts(pid, mounts.flatMap((mount, index) => changeOf(was, mount, names[index] ?? '')));
}

function changeOf(was: FidelityRecord, mount: Mount, name: string): MountChange[] {
  if (!was.mounts.includes(name)) return [];
  const lacking = LISTED.flatMap((row) => valueOf(was, row, name)?.split(',') ?? []).filter((option) => RESTRICTIONS.has(option) && !mount.options.includes(option));
  const times = valueOf(was, 'mount-times', name);
  const sameTimes = times === undefined || times === rows.get('mount-times')?.read(mount, []);
  const add = [...lacking, ...(sameTimes ? [] : times === '' ? ['strictatime'] : times.split(','))];
  return add.length === 0 ? [] : [{ mountPoint: mount.mountPoint, id: mount.id, add }];
}

/**
 * Of a container whose images a stranger wrote, by its bundle: what hides a path can hide it for good only if it is not
 * written to. Returns what could not be set.
 */
export function closeMasks({ linux }: OciSpec, pid: number): string[] {
  const masked = new Set(Array.isArray(linux?.['maskedPaths']) ? linux['maskedPaths'] : []);
  // What another mount hides nobody comes to.
  const uppermost = new Map(readMountinfo(pid).map((mount) => [mount.mountPoint, mount]));
  const open = [...uppermost.values()].filter((mount) => masked.has(mount.mountPoint) && isMask(mount));
  return changeMounts(pid, open.map(({ mountPoint, id, options, fsType }) => ({
    mountPoint, id, add: ['nosuid', 'noexec', ...(fsType === 'tmpfs' ? ['ro', 'nodev'] : [])].filter((option) => !options.includes(option)),
  })).filter(({ add }) => add.length > 0));
}
