/** Where the freezer of a container is: the v1 freezer hierarchy when this node has one, else cgroup v2. */
import { existsSync } from 'node:fs';
import { join, relative } from 'node:path';
import { readMountinfo, type Mount } from '../host/mountinfo.ts';
import { readCgroups, type CgroupEntry } from '../host/proc.ts';
import type { Container } from './types.ts';

type FreezerLocation = NonNullable<Container['freezer']>;

interface Hierarchy {
  readonly version: 1 | 2;
  readonly mount: Mount;
}

function isFreezer(mount: Mount): boolean {
  return mount.fsType === 'cgroup' && mount.superOptions.includes('freezer');
}

/** Hierarchies in which a freezer can be, the v1 one first: where both exist runtimes use that. */
export function freezerHierarchies(mounts: readonly Mount[]): Hierarchy[] {
  const v1 = mounts.filter(isFreezer).map((mount) => ({ version: 1 as const, mount }));
  const v2 = mounts.filter((mount) => mount.fsType === 'cgroup2').map((mount) => ({ version: 2 as const, mount }));
  return [...v1, ...v2];
}

/** The directory of a cgroup path below a mounted hierarchy; undefined for the root itself and for what lies outside. */
export function cgroupDirectory(mount: Mount, path: string): string | undefined {
  const below = relative(mount.root, path);
  if (below === '' || below.startsWith('..')) return undefined;
  return join(mount.mountPoint, below);
}

/** The freezer of the cgroup that a process is in. */
export function freezerOf(pid: number): FreezerLocation | undefined {
  return findFreezer(pid, undefined, readMountinfo('self'));
}

function pathIn(entries: readonly CgroupEntry[], version: 1 | 2): string | undefined {
  return entries.find((entry) => (version === 2 ? entry.hierarchy === 0 : entry.controllers.includes('freezer')))?.path;
}

/**
 * `recorded` is where the runtime says it put the container. It wins when the first process lies in it or below it: the
 * container may have moved its processes to cgroups of its own.
 */
export function findFreezer(pid: number, recorded: string | undefined, mounts: readonly Mount[]): FreezerLocation | undefined {
  const entries = readCgroups(pid);
  for (const { version, mount } of freezerHierarchies(mounts)) {
    const path = pathIn(entries, version);
    const directory = path === undefined ? undefined : cgroupDirectory(mount, path);
    if (directory === undefined) continue;
    const candidates = recorded === undefined ? [] : [recorded, cgroupDirectory(mount, recorded)];
    const outer = candidates.find((candidate) => candidate !== undefined && (candidate === directory || directory.startsWith(`${candidate}/`)));
    const chosen = outer ?? directory;
    if (existsSync(join(chosen, version === 1 ? 'freezer.state' : 'cgroup.freeze'))) return { version, directory: chosen };
  }
  return undefined;
}

/** A hierarchy of cgroups, by the names of its controllers ("memory"), or "unified". */
export interface CgroupPlace {
  readonly name: string;
  /** The container's cgroup in it. */
  readonly path: string;
  /** Where the node shows it; undefined where it does not. */
  readonly directory: string | undefined;
}

/**
 * The container's cgroup in each hierarchy. Processes may have gone to cgroups below it: where that is, the directory
 * of its freezer tells for all hierarchies.
 */
export function cgroupPlaces(pid: number, freezer: string | undefined): CgroupPlace[] {
  const mounts = readMountinfo('self').filter(({ fsType }) => fsType === 'cgroup' || fsType === 'cgroup2');
  const at = mounts.find(({ mountPoint }) => freezer?.startsWith(`${mountPoint}/`) === true);
  const outer = at === undefined || freezer === undefined ? undefined : join(at.root, relative(at.mountPoint, freezer));
  return readCgroups(pid).map(({ hierarchy, controllers, path: own }) => {
    const path = outer !== undefined && (own === outer || own.startsWith(`${outer}/`)) ? outer : own;
    const mount = mounts.find(({ fsType, superOptions }) => (
      fsType === 'cgroup2' ? hierarchy === 0 : controllers.some((name) => superOptions.includes(name))
    ));
    return {
      name: hierarchy === 0 ? 'unified' : controllers.join(','), path,
      directory: mount === undefined ? undefined : cgroupDirectory(mount, path),
    };
  });
}
