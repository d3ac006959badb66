/** Limits of a container's cgroups as they are now: `update` changes them without a word in config.json. */
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { errnoCode } from '../../core/errors.ts';
import type { OciSpec } from '../types.ts';

/** By file of the cgroup ("memory.max", "cpu.cfs_quota_us"). */
export type Limits = Readonly<Record<string, string>>;

/** In the order in which they are set; those of version 1 and 2 have other names. */
const FILES = [
  'cpuset.cpus', 'cpuset.mems', 'cpu.shares', 'cpu.cfs_period_us', 'cpu.cfs_quota_us', 'cpu.cfs_burst_us', 'cpu.rt_period_us', 'cpu.rt_runtime_us', 'cpu.weight', 'cpu.idle', 'cpu.max', 'cpu.max.burst',
  'pids.max', 'memory.soft_limit_in_bytes', 'memory.swappiness', 'memory.limit_in_bytes', 'memory.memsw.limit_in_bytes', 'memory.low', 'memory.min', 'memory.high', 'memory.max', 'memory.swap.max', 'memory.oom.group',
  'blkio.weight', 'blkio.bfq.weight', 'io.weight', 'io.bfq.weight', 'io.max',
  'blkio.throttle.read_bps_device', 'blkio.throttle.write_bps_device', 'blkio.throttle.read_iops_device', 'blkio.throttle.write_iops_device',
] as const;

/** Where each of the files is. To open those that other hierarchies have would take most of the time. */
function findFiles(directories: readonly string[]): ReadonlyMap<string, string> {
  const wanted = new Set<string>(FILES);
  return new Map(directories.toReversed().flatMap((directory): [string, string][] => {
    try {
      return readdirSync(directory).filter((name) => wanted.has(name)).map((name) => [name, join(directory, name)]);
    } catch {
      return [];
    }
  }));
}

/** Undefined for one that this kernel does not let read. */
function read(path: string | undefined): string | undefined {
  try {
    return path === undefined ? undefined : readFileSync(path, 'latin1').trim();
  } catch {
    return undefined;
  }
}

/** `directories`: the container's cgroup in each hierarchy. */
export function readLimits(directories: readonly string[]): Limits {
  const paths = findFiles(directories);
  return Object.fromEntries(FILES.flatMap((file) => {
    const value = read(paths.get(file));
    return value === undefined ? [] : [[file, value]];
  }));
}

/** One line after the other: a file of devices takes no more at once. */
function write(path: string, value: string): void {
  for (const line of value === '' ? [''] : value.split('\n')) writeFileSync(path, line, { flag: 'r+' });
}

/**
 * A cpuset of version 1 is never smaller than those below it: crun makes one there for itself, for the time of a
 * restore.
 */
function writeCpuset(path: string, value: string): void {
  try {
    write(path, value);
  } catch (error) {
    if (errnoCode(error) !== 'EBUSY') throw error;
    const directory = dirname(path);
    for (
      const below of readdirSync(directory, { withFileTypes: true })
    ) if (below.isDirectory()) write(join(directory, below.name, basename(path)), value);
    write(path, value);
  }
}

/** As long as criu runs it counts among the container's tasks. */
const AFTER_CRIU: ReadonlySet<string> = new Set(['pids.max']);

/**
 * Sets what differs, and returns what could not be: at the gate all that criu can live with, and the rest when it has ended.
 * A limit and the one above it may need each other: twice.
 */
export function putBackLimits(limits: Limits, directories: readonly string[], { ended }: { readonly ended: boolean }): string[] {
  const paths = findFiles(directories);
  let failed: string[] = [];
  for (let round = 0; round < 2; round++) {
    failed = [];
    for (const file of FILES) {
      if (AFTER_CRIU.has(file) !== ended) continue;
      const [wanted, path] = [limits[file], paths.get(file)];
      const now = read(path);
      if (path === undefined || wanted === undefined || now === undefined || now === wanted) continue;
      try {
        (file.startsWith('cpuset.') ? writeCpuset : write)(path, wanted);
        const then = read(path);
        if (then !== wanted) throw new Error(`the kernel makes it ${then}`);
      } catch (error) {
        failed.push(`${file} is ${now}, was ${wanted}: ${(error as Error).message}`);
      }
    }
  }
  return failed;
}

/** criu, the runtime and its threads are in the container's cgroup while it is restored. */
const RUNTIME_TASKS = 64;

interface Resources {
  readonly memory?: { readonly limit?: number; readonly swap?: number };
  readonly pids?: { readonly limit?: number };
}

/** A config.json whose limits a restore does not hit before the true ones are put back. */
export function roomForRestore(spec: OciSpec, limits: Limits | undefined): OciSpec {
  const resources = spec.linux?.['resources'] as Resources | undefined;
  if (limits === undefined || resources === undefined) return spec;
  const bytes = Number(limits['memory.limit_in_bytes'] ?? limits['memory.max']?.replace('max', 'Infinity'));
  const { limit = Infinity } = resources.memory ?? {};
  const memory = bytes > limit && limit > 0 ? { ...resources.memory, limit: atMost(bytes), ...(resources.memory?.swap === undefined ? {} : { swap: -1 }) } : resources.memory;
  const most = Number(limits['pids.max']?.replace('max', 'Infinity'));
  const pids = Number.isNaN(most) || resources.pids === undefined ? resources.pids : { ...resources.pids, limit: Number.isFinite(most) ? most + RUNTIME_TASKS : -1 };
  return { ...spec, linux: { ...spec.linux, resources: { ...resources, ...(memory === undefined ? {} : { memory }), ...(pids === undefined ? {} : { pids }) } } };
}

/** The kernel of version 1 writes 2^63 less a page for "no limit". */
function atMost(bytes: number): number {
  return bytes > Number.MAX_SAFE_INTEGER ? -1 : bytes;
}
