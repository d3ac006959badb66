/**
 * Who is in a cgroup, those below it included: systemd in a container, or an engine in one, makes cgroups of its own for its processes.
 * Names are taken as bytes, since any byte but "/" and a line feed may be in the name of a cgroup.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { errnoCode } from '../core/errors.ts';

/** Cgroups come and go while they are walked; "not supported" is cgroup.procs of a threaded one, whose processes its parent lists. */
const ABSENT: ReadonlySet<string | undefined> = new Set(['ENOENT', 'ENODEV', 'ENOTDIR', 'EOPNOTSUPP']);

function orNothing<T>(read: () => T[]): T[] {
  try {
    return read();
  } catch (error) {
    if (ABSENT.has(errnoCode(error))) return [];
    throw error;
  }
}

/** The directory and all below it, parents first; empty when it is gone. */
export function cgroupTree(directory: string): Buffer[] {
  const found: Buffer[] = [];
  const rest: Buffer<ArrayBuffer>[] = [Buffer.from(directory)];
  for (let next = rest.pop(); next !== undefined; next = rest.pop()) {
    const entries = orNothing(() => readdirSync(next, { withFileTypes: true, encoding: 'buffer' }));
    if (entries.length === 0) continue;
    found.push(next);
    for (const entry of entries) if (entry.isDirectory()) rest.push(join(next, entry.name));
  }
  return found;
}

function join(directory: Buffer, name: Buffer | string): Buffer<ArrayBuffer> {
  return Buffer.concat([directory, Buffer.from('/'), Buffer.from(name)]);
}

function listed(directory: Buffer, file: string): number[] {
  // A process of a pid namespace that is not seen from here is listed as 0.
  return orNothing(() => readFileSync(join(directory, file), 'latin1').split('\n').map(Number).filter((id) => id > 0));
}

/** Host pids in this very cgroup. */
export function processesIn(directory: Buffer): number[] {
  return listed(directory, 'cgroup.procs');
}

/** Host pids. */
export function cgroupProcesses(directory: string): number[] {
  return [...new Set(cgroupTree(directory).flatMap(processesIn))];
}

/** Host thread ids, at most `limit`. */
export function cgroupThreads(directory: string, limit: number): number[] {
  const found: number[] = [];
  for (const cgroup of cgroupTree(directory)) {
    // Version 1 calls them tasks.
    for (const file of ['tasks', 'cgroup.threads']) found.push(...listed(cgroup, file));
    if (found.length >= limit) return found.slice(0, limit);
  }
  return found;
}
