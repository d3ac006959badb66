/** The mounts of imported images: where the bundle has them, of its type, no more writable, and nothing before what hides something. */
import { existsSync } from 'node:fs';
import type { ImageMount } from '../../image/criu/index.ts';
import type { OciSpec } from '../../runtime/types.ts';

type OciMount = NonNullable<OciSpec['mounts']>[number];

/** Of one mount namespace. */
export function* mountReasons(mounts: readonly ImageMount[], bundle: OciSpec): Generator<string> {
  const granted = new Map((bundle.mounts ?? []).map((mount) => [mount.destination.replace(/(?<=.)\/+$/, ''), mount]));
  const hidden = paths(bundle, 'maskedPaths');
  const readOnly = paths(bundle, 'readonlyPaths');
  for (const mount of mounts) {
    if (mount.plugin) yield `${printable(mount.mountpoint)} is mounted by a plugin`;
    else if (mount.mountpoint === '/') yield* rootReasons(mount, bundle);
    else if (hidden.has(mount.mountpoint)) yield* maskReasons(mount);
    else if (readOnly.has(mount.mountpoint) && !granted.has(mount.mountpoint)) yield* sealReasons(mount);
    else yield* givenReasons(mount, granted);
  }
  yield* orderReasons(mounts);
  const mounted = new Set(mounts.map(({ mountpoint }) => mountpoint));
  const writable = new Set(mounts.filter(({ options }) => !options.has('ro')).map(({ mountpoint }) => mountpoint));
  for (const path of hidden) if (!mounted.has(path) && existsSync(path)) yield `${path} is not masked`;
  for (const path of readOnly) if ((!mounted.has(path) || writable.has(path)) && existsSync(path)) yield `${path} is not read-only`;
}

/** Its files come from the bundle, whatever the images say of their source. */
function* rootReasons({ options }: ImageMount, { root }: OciSpec): Generator<string> {
  if (root?.readonly === true && !options.has('ro')) yield 'its root is writable';
}

/** Files are hidden by /dev/null, directories by an empty file system. */
function* maskReasons({ mountpoint, type, external, root }: ImageMount): Generator<string> {
  const hides = external === undefined ? type === 'tmpfs' && root === '/' : external === '/dev/null' || external === mountpoint || external === '';
  if (!hides) yield `${mountpoint} is not masked`;
}

/** The same part of the same file system, laid over itself. */
function* sealReasons({ mountpoint, type, external, root }: ImageMount): Generator<string> {
  const [, top = '', inside = ''] = /^\/(proc|sys)(\/.*)$/.exec(mountpoint) ?? [];
  if (external !== undefined || type !== (top === 'sys' ? 'sysfs' : top) || root !== inside) yield `it mounts ${type} at ${printable(mountpoint)}`;
}

function* givenReasons(mount: ImageMount, granted: ReadonlyMap<string, OciMount>): Generator<string> {
  const { mountpoint, type, external, options } = mount;
  const place = printable(mountpoint);
  const given = granted.get(mountpoint);
  // runc mounts the controllers of cgroup version 1 below the one place that the bundle names.
  const controller = given === undefined && mountpoint.startsWith('/sys/fs/cgroup/') && granted.has('/sys/fs/cgroup') && (type === 'cgroup' || type === 'tmpfs');
  if (controller && (external === undefined || external === mountpoint || external === '')) return;
  if (given === undefined) yield `it mounts ${type} at ${place}`;
  else if (external !== undefined && external !== mountpoint && external !== '') yield `it mounts what the bundle has for ${printable(external)} at ${place}`;
  else if (external === undefined && !sameType(type, given.type ?? '')) yield `it mounts ${type} at ${place}, the bundle ${given.type ?? 'a directory'}`;
  // The tmpfs that holds the controllers of cgroup version 1 has nothing but mount points.
  else if (mountpoint !== '/sys/fs/cgroup') for (const option of restrictions) if ((given.options ?? []).includes(option) && !options.has(option)) yield `${place} is not ${words[option]}`;
}

const words = { ro: 'read-only', nosuid: 'nosuid', nodev: 'nodev', noexec: 'noexec' } as const;
const restrictions = Object.keys(words) as (keyof typeof words)[];

/** A second mount over the first would bring back what the first hides; so would one that is made too early. */
function* orderReasons(mounts: readonly ImageMount[]): Generator<string> {
  const ids = new Map<string, number>();
  for (const { mountpoint, id } of mounts) {
    if (ids.has(mountpoint)) yield `it mounts twice at ${printable(mountpoint)}`;
    ids.set(mountpoint, id);
  }
  for (const { mountpoint, parent } of mounts) {
    if (mountpoint !== '/' && ids.get(above(mountpoint, ids)) !== parent) yield `${printable(mountpoint)} is not mounted in ${printable(above(mountpoint, ids))}`;
  }
}

function above(mountpoint: string, ids: ReadonlyMap<string, number>): string {
  for (let at = mountpoint.lastIndexOf('/'); at > 0; at = mountpoint.lastIndexOf('/', at - 1)) if (ids.has(mountpoint.slice(0, at))) return mountpoint.slice(0, at);
  return '/';
}

/** Only what lies in file systems of the kernel: elsewhere the image of the container decides what there is to be masked. */
function paths({ linux }: OciSpec, key: 'maskedPaths' | 'readonlyPaths'): Set<string> {
  const list = linux?.[key];
  return new Set(Array.isArray(list) ? list.filter((path): path is string => typeof path === 'string' && /^\/(proc|sys)\//.test(path)) : []);
}

/** A cgroup mount is of the version that the node has. */
function sameType(image: string, given: string): boolean {
  if (given === 'cgroup' || given === 'cgroup2') return image === 'cgroup' || image === 'cgroup2' || image === 'tmpfs';
  // An overlay's directories are named by the images.
  return image === given && image !== 'overlay';
}

function printable(text: string): string {
  return JSON.stringify(text.slice(0, 200)).replaceAll(/[\p{Cf}\p{Cs}]/gu, '?');
}
