/** The cgroups of a container that is being restored, found by linux.cgroupsPath of its bundle. */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { cgroupProcesses, cgroupTree } from '../../host/cgroup-walk.ts';
import { readMountinfo, type Mount } from '../../host/mountinfo.ts';
import { readCgroups } from '../../host/proc.ts';
import { cgroupDirectory } from '../cgroup.ts';
import { readSpec } from '../spec.ts';
import type { RuntimeName } from '../types.ts';
import { cgroupKey } from './external-mounts.ts';

/** What the runtimes make the place of a container's cgroups of. */
export interface CgroupOwner {
  readonly runtime: RuntimeName;
  readonly id: string;
  readonly bundle: string;
}

interface ContainerCgroup {
  readonly directory: string;
  /** Of the hierarchy that it lies in. */
  readonly mount: Mount;
  readonly path: string;
}

/** One mount of each hierarchy that the runtime puts containers in: runc leaves an empty version 2 beside version 1 alone. */
function hierarchies(runtime: RuntimeName): Mount[] {
  const mounts = readMountinfo('self').filter(({ fsType }) => fsType === 'cgroup' || fsType === 'cgroup2');
  const first = mounts.filter((mount, index) => mounts.findIndex(({ device }) => device === mount.device) === index);
  const version1 = first.filter(({ fsType }) => fsType === 'cgroup');
  return version1.length === 0 || runtime === 'crun' ? first : version1;
}

/** Relative paths count from runc's own cgroup, on version 2 from the one above it; for crun from the root. */
function parentOf(mount: Mount, runtime: RuntimeName): string {
  if (runtime === 'crun') return '/';
  const entries = readCgroups('self');
  if (mount.fsType === 'cgroup2') return dirname(entries.find(({ hierarchy }) => hierarchy === 0)?.path ?? '/');
  return entries.find(({ controllers }) => controllers.some((name) => mount.superOptions.includes(name)))?.path ?? '/';
}

async function cgroupsOf({ runtime, id, bundle }: CgroupOwner): Promise<ContainerCgroup[]> {
  const named = (await readSpec(bundle)).linux?.cgroupsPath || id;
  return hierarchies(runtime).flatMap((mount) => {
    const path = isAbsolute(named) ? named : join(parentOf(mount, runtime), named);
    const directory = cgroupDirectory(mount, path);
    return directory === undefined ? [] : [{ directory, path, mount }];
  });
}

function read(path: string): string {
  return existsSync(path) ? readFileSync(path, 'utf8').trim() : '';
}

/** A new cpuset of version 1 has neither processors nor memory, and takes no process. */
function fillCpuset(directory: string): void {
  for (const file of ['cpuset.cpus', 'cpuset.mems']) {
    const path = join(directory, file);
    // Version 2 inherits what is empty.
    if (!existsSync(path) || read(path) !== '' || existsSync(join(directory, 'cgroup.controllers'))) continue;
    writeFileSync(path, read(join(dirname(directory), file)));
  }
}

export interface PreparedCgroups {
  /** One in each hierarchy, by what names that (cgroupKey). */
  readonly directories: ReadonlyMap<string, string>;
  /** The same, by the mount points of the hierarchies. */
  readonly places: ReadonlyMap<string, string>;
  /** Takes those away that were made and are empty. */
  remove(): void;
}

/** Makes the cgroups that the runtime will use, so that processes can be started in them. */
export async function prepareCgroups(owner: CgroupOwner): Promise<PreparedCgroups> {
  const made: string[] = [];
  const prepared = {
    directories: new Map<string, string>(), places: new Map<string, string>(),
    remove: () => made.toReversed().forEach(removeEmpty),
  };
  try {
    for (const { directory, mount } of await cgroupsOf(owner)) {
      for (const path of ancestors(mount.mountPoint, directory)) {
        if (!existsSync(path)) {
          mkdirSync(path);
          made.push(path);
        }
        fillCpuset(path);
      }
      prepared.directories.set(cgroupKey(mount), directory);
      prepared.places.set(mount.mountPoint, directory);
    }
  } catch (error) {
    prepared.remove();
    throw error;
  }
  return prepared;
}

/** The directories between two, the lower one included, from above. */
function ancestors(above: string, below: string): string[] {
  return below === above || below === '/' ? [] : [...ancestors(above, dirname(below)), below];
}

function removeEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch {
    // In use, or gone.
  }
}

function removeCgroup(directory: string): void {
  for (const cgroup of cgroupTree(directory).reverse()) {
    try {
      rmdirSync(cgroup);
    } catch {
      // Gone already, or a zombie keeps it for a moment: an empty cgroup does no harm.
    }
  }
}

const DEATH_MS = 2000;

/**
 * Ends what a restore that was killed left of its container: half-made processes wait for a criu that is dead. Only in
 * cgroups that bear the container's id.
 */
export async function sweepCgroups(owner: CgroupOwner): Promise<void> {
  let cgroups: ContainerCgroup[];
  try {
    cgroups = (await cgroupsOf(owner)).filter(({ path }) => basename(path) === owner.id);
  } catch {
    // No readable config.json: nothing was started from it.
    return;
  }
  for (let waited = 0; waited < DEATH_MS; waited += 20) {
    const pids = new Set(cgroups.flatMap(({ directory }) => cgroupProcesses(directory)));
    if (pids.size === 0) break;
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It ended by itself.
      }
    }
    await delay(20);
  }
  for (const { directory } of cgroups) removeCgroup(directory);
}
