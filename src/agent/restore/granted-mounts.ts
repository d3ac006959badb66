/** The mounts of imported images: where the bundle has them, of its type, no more writable, and nothing before what hides something. */
import { existsSync } from 'node:fs';
import { formatBytes } from '../../core/units.ts';
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
    else yield* givenReasons(mount, bundle, granted);
    if (mount.propagates && !propagates(bundle, granted.get(mount.mountpoint))) yield `${printable(mount.mountpoint)} passes mounts on`;
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

/** crun lays this over directories. */
const EMPTY_DIRECTORY = /^\/run(?:\/user\/\d+)?\/crun\/\.empty-directory$/;

/** Files are hidden by /dev/null, directories by an empty file system. What is external comes from the runtime, under this name. */
function* maskReasons({ mountpoint, type, external, root, options, data: given }: ImageMount): Generator<string> {
  const empty = type === 'tmpfs' && root === '/' && options.has('ro') && given.every((option) => data['tmpfs']?.test(option) === true);
  const hides = external === undefined ? empty : external === '/dev/null' || external === mountpoint || EMPTY_DIRECTORY.test(external);
  if (!hides) yield `${mountpoint} is not masked`;
}

/** The same part of the same file system, laid over itself. */
function* sealReasons({ mountpoint, type, external, root }: ImageMount): Generator<string> {
  const [, top = '', inside = ''] = /^\/(proc|sys)(\/.*)$/.exec(mountpoint) ?? [];
  if (external !== undefined || type !== (top === 'sys' ? 'sysfs' : top) || root !== inside) yield `it mounts ${type} at ${printable(mountpoint)}`;
}

function* givenReasons(mount: ImageMount, bundle: OciSpec, granted: ReadonlyMap<string, OciMount>): Generator<string> {
  const { mountpoint, type, external } = mount;
  const place = printable(mountpoint);
  // Runtimes mount the controllers of cgroup version 1 below the one place that the bundle names, and devices where a user namespace may not make them.
  const controller = /^\/sys\/fs\/cgroup\/[^/]+$/.test(mountpoint) && type === 'cgroup' ? granted.get('/sys/fs/cgroup') : undefined;
  const given = granted.get(mountpoint) ?? controller;
  const mapped = hasNamespace(bundle, 'user');
  if (given === undefined && mapped && boundDevices.has(mountpoint) && isDevice(external, mountpoint)) return;
  if (given === undefined) yield `it mounts ${type} at ${place}`;
  else if (external !== undefined && external !== mountpoint && !(mapped && isOwnCgroup(mount))) {
    yield `it mounts what the bundle has for ${printable(external)} at ${place}`;
  }
  else if (external === undefined && !sameType(type, given.type ?? '')) yield `it mounts ${type} at ${place}, the bundle ${given.type ?? 'a directory'}`;
  else {
    // The tmpfs that holds the controllers of version 1 is writable with every runtime: there are mount points and links in it.
    const holder = mountpoint === '/sys/fs/cgroup' && type === 'tmpfs';
    for (const option of restrictions) if ((given.options ?? []).includes(option) && !mount.options.has(option) && !(holder && option === 'ro')) yield `${place} is not ${words[option]}`;
    if (external === undefined) yield* dataReasons(mount, bundle, given);
  }
}

const boundDevices = new Set(['null', 'zero', 'full', 'random', 'urandom', 'tty'].map((name) => `/dev/${name}`));

/** As runc names it, and as Stasis does for crun (src/runtime/driver/external-mounts.ts). */
const isDevice = (external: string | undefined, mountpoint: string): boolean => (
  external === mountpoint || external === mountpoint.replace('/dev/', 'stasis-device-')
);

/** What a restore puts there is the container's own directory in that hierarchy. */
const isOwnCgroup = ({ external, type }: ImageMount): boolean => (
  external?.startsWith('stasis-cgroup-') === true && type.startsWith('cgroup')
);

const hasNamespace = ({ linux }: OciSpec, type: string): boolean => (linux?.namespaces ?? []).some((namespace) => namespace.type === type);

/** Of cgroup file systems: controllers and what else changes nothing on the node ("release_agent" is a program that it runs). */
const cgroupData = /^(?:blkio|cpu|cpuacct|cpuset|devices|freezer|hugetlb|memory|misc|net_cls|net_prio|perf_event|pids|rdma|name=systemd|xattr|nsdelegate|memory_recursiveprot|memory_localevents|favordynmods)$/;
const data: Readonly<Record<string, RegExp>> = {
  tmpfs: /^(?:size=\d+[kmg]?|nr_inodes=\d+k?|mode=[0-7]{1,4}|[ug]id=\d+|inode(?:32|64)|noswap)$/, devpts: /^(?:[ug]id=\d+|mode=[0-7]{1,4}|ptmxmode=[0-7]{1,4}|newinstance|max=\d+)$/,
  proc: /^(?:hidepid=\w+|gid=\d+|subset=pid)$/, cgroup: cgroupData, cgroup2: cgroupData, sysfs: /^$/, mqueue: /^$/,
};

/** What CRIU tells the file system itself. */
function* dataReasons({ mountpoint, type, data: options, root }: ImageMount, bundle: OciSpec, given: OciMount): Generator<string> {
  const place = printable(mountpoint);
  const strange = options.find((option) => data[type]?.test(option) !== true);
  if (strange !== undefined) yield `${place} is mounted with ${printable(strange)}`;
  if (root !== '/') yield `${place} is ${printable(root)} of a ${type}`;
  if (type.startsWith('cgroup') && !hasNamespace(bundle, 'cgroup')) yield `${place} shows all cgroups of the node`;
  // Else it would be the one of the node.
  if (type === 'devpts' && !options.includes('newinstance')) yield `${place} shows the terminals of the node`;
  for (const option of given.options ?? []) {
    if (/^(?:hidepid|subset)=/.test(option) && !options.includes(option)) yield `${place} is not ${option}`;
    const [most, has] = [bytesOf(option), Math.max(...options.map(bytesOf).filter((size) => size >= 0), -1)];
    if (type === 'tmpfs' && most >= 0 && (has < 0 || has > most)) yield `${place} is larger than the ${formatBytes(most)} of the bundle`;
  }
}

/** Of "size=64m"; -1 for what is none, and for shares of the node's memory. */
function bytesOf(option: string): number {
  const [, number, unit = ''] = /^size=(\d+)([kmg]?)$/i.exec(option) ?? [];
  return number === undefined ? -1 : Number(number) * 1024 ** ' kmg'.indexOf(unit === '' ? ' ' : unit.toLowerCase());
}

function propagates({ linux }: OciSpec, given: OciMount | undefined): boolean {
  return [linux?.['rootfsPropagation'], ...(given?.options ?? [])].some((option) => typeof option === 'string' && /^r?(?:shared|slave)$/.test(option));
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
