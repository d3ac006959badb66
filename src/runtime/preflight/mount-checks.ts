/** Mounts: what CRIU refuses, what a checkpoint does not hold, and what Stasis saves itself. */
import { constants } from 'node:fs';
import { join, normalize, resolve } from 'node:path';
import { mountOf, type Mount } from '../../host/mountinfo.ts';
import { statOpen, statPath, withinRoot } from '../../host/still-files.ts';
import type { Container, Finding, Volume } from '../types.ts';
import { PROVIDED, isBindMount, mountPointOf } from '../spec.ts';
import { printable } from '../text.ts';
import { fatal, warning, who, type Scene } from './findings.ts';

/** Served by somebody else over a wire or a device of the node; CRIU cannot mount them again. */
const REMOTE = /^(fuse|fuseblk|fuse\..*|nfs4?|ceph|cifs|smb3|9p|virtiofs|lustre|gpfs|beegfs|afs|ocfs2|gfs2)$/;
/** Made anew, or saved with their contents, by CRIU. */
const KNOWN: ReadonlySet<string> = new Set(['proc', 'sysfs', 'devtmpfs', 'binfmt_misc', 'tmpfs', 'devpts', 'rootfs', 'cgroup', 'cgroup2', 'aufs', 'mqueue', 'fusectl', 'securityfs', 'debugfs', 'tracefs', 'pstore', 'autofs', 'overlay']);
/** Directories in memory that all of the node uses. */
const OF_THE_NODE = /^\/(run|tmp|dev|dev\/shm|dev\/mqueue|var\/run|run\/lock|run\/user(\/\d+)?|run\/systemd(\/.*)?|sys\/.*)\/?$/;
const MEMORY_FILE_SYSTEMS: ReadonlySet<string> = new Set(['tmpfs', 'ramfs']);

interface Bind {
  readonly destination: string;
  readonly source: string;
  readonly mount: Mount;
}

/** The bind mounts of config.json as they are mounted now. */
function binds(container: Container, mounts: readonly Mount[]): Bind[] {
  return (container.spec.mounts ?? []).filter(isBindMount).flatMap(({ destination, source }) => {
    const at = mountPointOf(destination);
    // The last one listed covers the others.
    const mount = mounts.findLast(({ mountPoint }) => mountPoint === at);
    return mount === undefined || source === undefined ? [] : [{ destination: at, source, mount }];
  });
}

function isDirectory({ pid }: Container, path: string): boolean {
  const mode = withinRoot(pid, path, (fd) => statOpen(fd)?.mode) ?? 0;
  return (mode & constants.S_IFMT) === constants.S_IFDIR;
}

/** Directories bound from memory: gone with the container, and not in CRIU's images. Read-only, provided and the node's own ones are not the container's. */
export function findVolumes(container: Container, mounts: readonly Mount[]): Volume[] {
  return binds(container, mounts)
    .filter(({ mount, source }) => MEMORY_FILE_SYSTEMS.has(mount.fsType) && !mount.options.includes('ro') && !OF_THE_NODE.test(source))
    .filter(({ destination }) => !PROVIDED.test(destination) && isDirectory(container, destination))
    .map(({ destination, source, mount }) => ({ destination, source, fstype: mount.fsType }));
}

export function checkBindMounts({ container, mounts }: Scene): Finding[] {
  const volumes = new Set(findVolumes(container, mounts).map(({ destination }) => destination));
  return binds(container, mounts)
    .filter(({ destination, mount }) => !volumes.has(destination) && !PROVIDED.test(destination) && !mount.options.includes('ro') && !destination.startsWith('/dev/'))
    .map(({ destination, source, mount }) => (
      warning('external-mount', `the contents of ${printable(destination)} (${mount.fsType}, bound from ${printable(source)}) are not in the checkpoint`, 'a restore needs them where they are now, as they are now')
    ));
}

export function checkFileSystems({ container, mounts }: Scene): Finding[] {
  const declared = binds(container, mounts).map(({ destination }) => destination);
  const masked = new Set([...(container.spec.linux?.['maskedPaths'] as string[] | undefined) ?? [], ...(container.spec.linux?.['readonlyPaths'] as string[] | undefined) ?? []]);
  return mounts.filter((mount) => {
    const below = declared.some((destination) => mount.mountPoint === destination || mount.mountPoint.startsWith(`${destination}/`));
    return mount.mountPoint !== '/' && !below && !masked.has(mount.mountPoint) && !mount.mountPoint.startsWith('/dev/') && mountOf(mounts, mount.mountPoint) === mount && !KNOWN.has(mount.fsType);
  }).map((mount) => {
    const what = `${printable(mount.mountPoint)} is a mount of type ${printable(mount.fsType)} that config.json does not know`;
    const hint = 'mount it from outside, as a bind mount of the container';
    return REMOTE.test(mount.fsType) ? fatal('mount', what, hint) : warning('mount', `${what}; CRIU may refuse it`, hint);
  });
}

/** Sources that are not what the container has mounted any more: replaced by another file, or removed. What a rebuilt bundle provides itself is left out. */
export function checkSources({ container, mounts }: Scene): Finding[] {
  return binds(container, mounts).filter(({ destination, mount }) => !PROVIDED.test(destination) && !REMOTE.test(mount.fsType)).flatMap(({ destination, source, mount }) => {
    const inside = withinRoot(container.pid, destination, (fd) => statOpen(fd));
    if (inside === undefined || inside.mountId !== mount.id) return [];
    const outside = statPath(resolve(container.bundle, source));
    const name = `${printable(source)}, the source of the mount ${printable(destination)}`;
    if (outside === undefined) return [fatal('source', `${name}, is not there any more`, 'make it again, or give it its name back, before a checkpoint: a restore here has nothing to mount')];
    if (outside.key === inside.key) return [];
    return [warning('source', `${name}, is another file or directory by now`, 'a restore mounts what is there then: start the container again to have it use the new one')];
  });
}

/** Overlays that were mounted from inside: their layers are paths of the container, which CRIU looks for on the node. */
export function checkInnerOverlays({ container, mounts }: Scene): Finding[] {
  const declared = new Set((container.spec.mounts ?? []).map(({ destination }) => normalize(join('/', destination))));
  return mounts.filter(({ fsType, mountPoint, root }) => fsType === 'overlay' && root === '/' && mountPoint !== '/' && !declared.has(mountPoint)).slice(0, 1).map(({ mountPoint }) => (
    fatal('mount', `an overlay was mounted at ${printable(mountPoint)} from inside the container`, 'mount it from outside, in config.json: a restore cannot find the layers of an overlay that was made inside')
  ));
}

/** A pipe is opened again through /proc, in the mounts of the container. */
export function checkProc({ tree, mounts }: Scene): Finding[] {
  if (mounts.length === 0 || mounts.some(({ fsType, mountPoint }) => fsType === 'proc' && mountPoint === '/proc')) return [];
  const process = tree.processes.find(({ descriptors }) => descriptors.some(({ target }) => target.startsWith('pipe:')));
  if (process === undefined) return [];
  return [fatal('mount', `the container has no /proc, and ${who(process)} holds a pipe, which a restore opens again through it`, 'let the container keep /proc mounted', process)];
}
