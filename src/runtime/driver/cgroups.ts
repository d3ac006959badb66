/** The cgroups of a container that is being restored, found by linux.cgroupsPath of its bundle. */
import { existsSync, rmdirSync, writeFileSync } from 'node:fs';
import { isAbsolute, basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { cgroupProcesses, cgroupTree } from '../../host/cgroup-walk.ts';
import { readMountinfo } from '../../host/mountinfo.ts';
import { listPids, readCgroups, readStat } from '../../host/proc.ts';
import { cgroupDirectory } from '../cgroup.ts';
import { readSpec } from '../spec.ts';

interface ContainerCgroup {
  readonly directory: string;
  /** Controllers of a v1 hierarchy ("freezer", "name=systemd"), or empty for v2. */
  readonly controllers: readonly string[];
  readonly path: string;
}

/** In every hierarchy that is mounted here and has it. */
async function cgroupsOf(bundle: string): Promise<ContainerCgroup[]> {
  const path = (await readSpec(bundle)).linux?.cgroupsPath;
  if (path === undefined || !isAbsolute(path)) return [];
  return readMountinfo('self').filter(({ fsType }) => fsType === 'cgroup' || fsType === 'cgroup2').flatMap((mount) => {
    const directory = cgroupDirectory(mount, path);
    if (directory === undefined || !existsSync(directory)) return [];
    return [{ directory, path, controllers: mount.fsType === 'cgroup' ? mount.superOptions : [] }];
  });
}

/** The process and all below it. */
function family(pid: number): number[] {
  const stats = listPids().flatMap((candidate) => readStat(candidate) ?? []);
  const members = new Set([pid]);
  for (let size = 0; size < members.size;) {
    size = members.size;
    for (const stat of stats) if (members.has(stat.ppid)) members.add(stat.pid);
  }
  return [...members];
}

function isIn(pid: number, { controllers, path }: ContainerCgroup): boolean {
  const entry = readCgroups(pid).find((candidate) => (controllers.length === 0 ? candidate.hierarchy === 0 : candidate.controllers.some((name) => controllers.includes(name))));
  return entry === undefined || entry.path === path || entry.path.startsWith(`${path}/`);
}

/** Rounds until no process is found outside: one that forks while it is moved leaves a child behind. */
const ROUNDS = 20;

/**
 * Puts the processes of a restored container where they belong. crun makes the v1 cgroups of a restored container and
 * leaves its processes in its own.
 */
export async function adoptProcesses(pid: number, bundle: string): Promise<void> {
  const cgroups = await cgroupsOf(bundle);
  for (let round = 0; round < ROUNDS; round++) {
    let moved = 0;
    for (const member of family(pid)) {
      for (const cgroup of cgroups.filter((candidate) => !isIn(member, candidate))) {
        try {
          writeFileSync(join(cgroup.directory, 'cgroup.procs'), String(member));
          moved += 1;
        } catch {
          // It has ended.
        }
      }
    }
    if (moved === 0) return;
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
export async function sweepCgroups(bundle: string, id: string): Promise<void> {
  let cgroups: ContainerCgroup[];
  try {
    cgroups = (await cgroupsOf(bundle)).filter(({ path }) => basename(path) === id);
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
