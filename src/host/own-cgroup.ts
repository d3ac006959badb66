/**
 * A cgroup for processes that must outlive the agent. What ends or freezes the agent's own cgroup (its Pod is deleted, its
 * unit is stopped, its memory is exhausted) would take them along.
 */
import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errnoCode } from '../core/errors.ts';
import { readMountinfo, type Mount } from './mountinfo.ts';
import { readCgroups, type CgroupEntry } from './proc.ts';

/** A cgroup may be removed, because its last process has ended, between the making of it and the move. */
const TRIES = 5;

/** Nothing is ended or frozen through these, and a new v1 cpuset takes no process before it is given processors. */
const HARMLESS: ReadonlySet<string> = new Set(['cpu', 'cpuacct', 'cpuset', 'net_cls', 'net_prio', 'perf_event', 'blkio', 'hugetlb', 'rdma', 'misc']);

function hierarchies(): Mount[] {
  return readMountinfo('self').filter(({ fsType }) => fsType === 'cgroup' || fsType === 'cgroup2');
}

function isOf(entry: CgroupEntry, mount: Mount): boolean {
  return entry.hierarchy === 0 ? mount.fsType === 'cgroup2' : mount.fsType === 'cgroup' && entry.controllers.every((name) => mount.superOptions.includes(name));
}

/** With a cgroup namespace and mount of its own the agent sees its cgroup as the root. Version 2 tells: a true root has no type. */
function isAgentsOwn({ fsType, mountPoint }: Mount): boolean {
  return fsType === 'cgroup2' && existsSync(join(mountPoint, 'cgroup.type'));
}

/**
 * Moves a process to the cgroup `name` below the root of every hierarchy in which it is in some cgroup and could be ended or frozen.
 * Returns the hierarchies in which that could not be done, as "memory: EACCES".
 */
export function leaveCgroups(pid: number, name: string): string[] {
  const mounts = hierarchies();
  return readCgroups(pid).flatMap((entry) => {
    if (entry.hierarchy !== 0 && entry.controllers.every((controller) => HARMLESS.has(controller))) return [];
    const what = entry.hierarchy === 0 ? 'cgroup v2' : entry.controllers.join(',');
    const mount = mounts.find((candidate) => isOf(entry, candidate));
    if (mount === undefined) return entry.path === '/' ? [] : [`${what}: not mounted`];
    if (entry.path === '/' && mount.root === '/') return isAgentsOwn(mount) ? [`${what}: no cgroup but the agent's own is seen from here`] : [];
    const problem = move(pid, join(mount.mountPoint, name));
    return problem === undefined ? [] : [`${what}: ${problem}`];
  });
}

function move(pid: number, directory: string): string | undefined {
  for (let tries = 1; ; tries++) {
    try {
      mkdirSync(directory, { recursive: true });
      writeFileSync(join(directory, 'cgroup.procs'), String(pid));
      return undefined;
    } catch (error) {
      const code = errnoCode(error);
      // The process has ended, and needs no other place.
      if (code === 'ESRCH') return undefined;
      if (tries === TRIES || (code !== 'ENOENT' && code !== 'ENODEV')) return code ?? String(error);
    }
  }
}

/** Removes the cgroups `name` that hold no process; the others are of use to somebody. */
export function removeEmptyCgroups(name: string): void {
  for (const mount of hierarchies()) {
    try {
      rmdirSync(join(mount.mountPoint, name));
    } catch {
      // Not there, or not empty.
    }
  }
}
