/** The words of preflight: what a check sees and how it says what it found. */
import type { Mount } from '../../host/mountinfo.ts';
import { readProc, type Descriptor, type Namespaces, type ProcStat } from '../../host/proc.ts';
import type { CheckpointFlags, Container, Finding, Toolchain } from '../types.ts';
import { printable } from '../text.ts';

export interface ProcessView extends ProcStat {
  /** Its pid inside the container. */
  readonly innerPid: number;
  /** Host pid of the process that traces it, 0 for none. */
  readonly tracer: number;
  /** The lines of /proc/PID/status. */
  readonly status: ReadonlyMap<string, string>;
  /** Bytes: anonymous memory, shared memory, swapped out. */
  readonly anonymous: number;
  readonly shared: number;
  readonly swapped: number;
  /** Working directory, as a path of its own mounts. */
  readonly directory: string | undefined;
  readonly descriptors: readonly Descriptor[];
  /** What was read of /proc/PID/fdinfo so far, so that each file is read once. */
  readonly infos: Map<number, string | undefined>;
  readonly namespaces: Namespaces;
  readonly mappings: readonly Mapping[];
}

/** A mapping with a name; plain anonymous memory is left out. */
export interface Mapping {
  readonly start: bigint;
  readonly length: number;
  readonly sharedMapping: boolean;
  readonly inode: number;
  /** Path, "[uprobes]", "anon_inode:[io_uring]". */
  readonly name: string;
}

export interface ProcessTree {
  /** The container's first process and its descendants; each is looked at in full up to a limit. */
  readonly processes: readonly ProcessView[];
  /** In the container's cgroup but not below its first process: exec sessions. */
  readonly strangers: readonly ProcStat[];
  /** Descendants beyond the limit, which were only counted. */
  readonly unexamined: number;
}

/** What every check looks at; nothing in it changes. */
export interface Scene {
  readonly container: Container;
  readonly toolchain: Toolchain;
  readonly flags: CheckpointFlags;
  readonly tree: ProcessTree;
  /** The container's own mounts. */
  readonly mounts: readonly Mount[];
  /** Namespaces of the agent. */
  readonly own: Namespaces;
  readonly ghostLimitBytes: number;
}

export type Check = (scene: Scene) => Finding[];

/** "pid 4711 (redis-server, 7 inside)". */
export function who(process: Pick<ProcStat, 'pid' | 'comm'> & { readonly innerPid?: number }): string {
  const inside = process.innerPid === undefined || process.innerPid === process.pid ? '' : `, ${process.innerPid} inside`;
  return `pid ${process.pid} (${printable(process.comm)}${inside})`;
}

export function fatal(kind: string, message: string, hint: string, process?: { readonly pid: number }): Finding {
  return { severity: 'fatal', kind, message, hint, ...(process === undefined ? {} : { pid: process.pid }) };
}

export function warning(kind: string, message: string, hint: string, process?: { readonly pid: number }): Finding {
  return { severity: 'warning', kind, message, hint, ...(process === undefined ? {} : { pid: process.pid }) };
}

/** Something that the container has now and will not have after a restore, without an error. */
export function lost(what: string, hint: string, process?: { readonly pid: number }): Finding {
  return warning('lost', `${what} is lost by a restore`, hint, process);
}

/** "flags:\t02" of fdinfo, the open flags; 0 when it is closed meanwhile. */
export function descriptorFlags(process: ProcessView, fd: number): number {
  return Number.parseInt(/^flags:\s*(\d+)$/m.exec(descriptorInfo(process, fd) ?? '')?.[1] ?? '0', 8);
}

/** The id of the mount that an open file lies on, as in mountinfo. */
export function descriptorMount(process: ProcessView, fd: number): number | undefined {
  const id = /^mnt_id:\s*(\d+)$/m.exec(descriptorInfo(process, fd) ?? '')?.[1];
  return id === undefined ? undefined : Number(id);
}

/** /proc/PID/fdinfo/FD: position, flags, locks, watches. Undefined when it is closed meanwhile. */
export function descriptorInfo(process: ProcessView, fd: number): string | undefined {
  if (!process.infos.has(fd)) process.infos.set(fd, readProc(process.pid, `fdinfo/${fd}`));
  return process.infos.get(fd);
}

/** Descriptors of all processes whose target passes, each with its process. */
export function* descriptorsOf(scene: Scene, wanted: (target: string) => boolean): Generator<{ process: ProcessView; fd: number; target: string }> {
  for (const process of scene.tree.processes) {
    for (const { fd, target } of process.descriptors) {
      if (wanted(target)) yield { process, fd, target };
    }
  }
}
