/** How much memory a dump will hold, and whether there is room for the dump itself. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { MiB, formatBytes } from '../../core/units.ts';
import { readCgroups } from '../../host/proc.ts';
import { statLink, statOpen, usedBytes, withinRoot } from '../../host/still-files.ts';
import { readMountinfo, type Mount } from '../../host/mountinfo.ts';
import { cgroupDirectory } from '../cgroup.ts';
import { isBindMount } from '../spec.ts';
import type { Container, Finding, MemoryEstimate } from '../types.ts';
import { warning, type ProcessTree, type Scene } from './findings.ts';

/** The parasite that CRIU puts into each process, and what the kernel needs beside it. */
const HEADROOM_BYTES = 16 * MiB;

/**
 * Private memory counts in every process, because CRIU writes it for every process. Shared memory is written once: the
 * resident sums count it for each process that has touched it, so the sizes of the mappings bound it.
 */
export function estimateMemory({ tree, container, mounts }: Scene): MemoryEstimate {
  let anonymous = 0;
  let shared = 0;
  const segments = new Map<string, number>();
  for (const process of tree.processes) {
    anonymous += process.anonymous + process.swapped;
    shared += process.shared;
    for (const { sharedMapping, name, inode, length } of process.mappings) {
      if (!sharedMapping || !/^\/(dev\/zero|dev\/shm\/|memfd:|SYSV|\[)/.test(name)) continue;
      const key = `${name} ${inode}`;
      segments.set(key, Math.max(segments.get(key) ?? 0, length));
    }
  }
  const mapped = [...segments.values()].reduce((sum, length) => sum + length, 0);
  const eager = Math.min(shared, mapped) + memoryFiles(tree) + memoryMounts(container, mounts);
  return { bytes: anonymous + eager, shared: eager, processes: tree.processes.length + tree.unexamined };
}

/** Contents of memfds that are open but not mapped. */
function memoryFiles(tree: ProcessTree): number {
  const mapped = new Set(tree.processes.flatMap(({ mappings }) => mappings.filter(({ name }) => name.startsWith('/memfd:')).map(({ inode }) => inode)));
  const sizes = new Map<number, number>();
  for (const { pid, descriptors } of tree.processes) {
    for (const { fd } of descriptors.filter(({ target }) => target.startsWith('/memfd:'))) {
      const stat = statLink(pid, `fd/${fd}`);
      const inode = Number(stat?.key.split(' ')[1]);
      if (stat !== undefined && !mapped.has(inode)) sizes.set(inode, stat.allocated);
    }
  }
  return [...sizes.values()].reduce((sum, size) => sum + size, 0);
}

/** The container's own tmpfs mounts: CRIU packs their files into its images. */
function memoryMounts(container: Container, mounts: readonly Mount[]): number {
  const bound = new Set((container.spec.mounts ?? []).filter(isBindMount).map(({ destination }) => destination));
  let bytes = 0;
  for (const { id, fsType, mountPoint, root } of mounts) {
    if (fsType !== 'tmpfs' || root !== '/' || bound.has(mountPoint)) continue;
    // Another file system may lie on it by now, one that would have to be asked.
    bytes += withinRoot(container.pid, mountPoint, (fd) => (statOpen(fd)?.mountId === id ? usedBytes(fd) : undefined)) ?? 0;
  }
  return bytes;
}

function number(path: string): number | undefined {
  try {
    const value = Number(readFileSync(path, 'utf8'));
    return Number.isFinite(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function fileCache(directory: string): number {
  try {
    const text = readFileSync(join(directory, 'memory.stat'), 'utf8');
    return [...text.matchAll(/^(?:total_)?(?:active|inactive)_file (\d+)$/gm)].reduce((sum, match) => sum + Number(match[1]), 0);
  } catch {
    return 0;
  }
}

/** The directory of a controller that a process is under: version 1 when that controller is mounted so, else version 2. */
export function controllerDirectory(pid: number, controller: string): { version: 1 | 2; directory: string } | undefined {
  const entries = readCgroups(pid);
  const mounts = readMountinfo('self');
  const v1 = mounts.find((mount) => mount.fsType === 'cgroup' && mount.superOptions.includes(controller));
  const mount = v1 ?? mounts.find(({ fsType }) => fsType === 'cgroup2');
  const entry = entries.find(({ hierarchy, controllers }) => (v1 === undefined ? hierarchy === 0 : controllers.includes(controller)));
  const directory = mount === undefined || entry === undefined ? undefined : cgroupDirectory(mount, entry.path);
  return directory === undefined ? undefined : { version: v1 === undefined ? 2 : 1, directory };
}

/** A file of a cgroup that holds one number; undefined when it says "max" or is not there. */
export function cgroupNumber(directory: string, name: string): number | undefined {
  return number(join(directory, name));
}

function memoryCgroup(pid: number): { limit: number | undefined; usage: number | undefined; directory: string } | undefined {
  const found = controllerDirectory(pid, 'memory');
  if (found === undefined) return undefined;
  const { version, directory } = found;
  const names = version === 2 ? { limit: 'memory.max', usage: 'memory.current' } : { limit: 'memory.limit_in_bytes', usage: 'memory.usage_in_bytes' };
  return { limit: cgroupNumber(directory, names.limit), usage: cgroupNumber(directory, names.usage), directory };
}

export function checkHeadroom({ container }: Scene): Finding[] {
  const cgroup = container.pid === 0 ? undefined : memoryCgroup(container.pid);
  if (cgroup?.limit === undefined || cgroup.usage === undefined) return [];
  const free = cgroup.limit - cgroup.usage + fileCache(cgroup.directory);
  if (free >= HEADROOM_BYTES) return [];
  return [warning('memory', `the container is ${formatBytes(Math.max(0, free))} below its memory limit of ${formatBytes(cgroup.limit)}`, 'raise its limit a little: CRIU needs some memory inside the container while it dumps')];
}
