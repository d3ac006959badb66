/**
 * Processes of a container that had gone to cgroups below its own: neither criu nor the runtime brings them back there.
 */
import { chownSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { valueOf } from './compare.ts';
import { processesOf } from './observe.ts';
import type { Surroundings } from './surroundings.ts';
import { belowOf } from './task-attributes.ts';
import type { FidelityRecord } from './types.ts';

/** A new cpuset of version 1 is empty, and takes no process. */
const INHERITED = ['cpuset.mems', 'cpuset.cpus'];

/** `init`: the container's first process; all stand still. Returns what could not be done. */
export function putBackCgroups(was: FidelityRecord, init: number, { cgroups }: Surroundings): string[] {
  const failed: string[] = [];
  const moved = was.tasks.filter((subject) => belowOf(valueOf(was, 'cgroup', subject)).length > 0);
  if (moved.length === 0) return failed;
  const pids = new Map(processesOf(init).map(({ subject, pid }) => [subject, pid]));
  for (const subject of moved) {
    const pid = pids.get(subject);
    if (pid === undefined) continue;
    for (const { name, below } of belowOf(valueOf(was, 'cgroup', subject))) {
      try {
        const outer = cgroups.find((place) => place.name === name)?.directory;
        if (outer === undefined) throw new Error('this node has no such hierarchy');
        makeBelow(outer, below);
        writeFileSync(join(outer, below, 'cgroup.procs'), String(pid));
      } catch (error) {
        failed.push(`process ${subject} does not come into its cgroup ${name}:${below}: ${(error as Error).message}`);
      }
    }
  }
  return failed;
}

/** Each directory belongs to whom the one above it belongs: it may have been handed to the container. */
function makeBelow(outer: string, below: string): void {
  let directory = outer;
  for (const part of below.split('/').filter(Boolean)) {
    directory = join(directory, part);
    try {
      mkdirSync(directory);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') continue;
      throw error;
    }
    const { uid, gid } = statSync(dirname(directory));
    chownSync(directory, uid, gid);
    for (const file of INHERITED) inherit(directory, file);
  }
}

function inherit(directory: string, file: string): void {
  let value: string;
  try {
    value = readFileSync(join(dirname(directory), file), 'latin1');
  } catch {
    // Of another controller.
    return;
  }
  writeFileSync(join(directory, file), value);
}
