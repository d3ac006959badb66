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
  /** Bytes: anonymous memory, shared memory, swapped out. */
  readonly anonymous: number;
  readonly shared: number;
  readonly swapped: number;
  readonly descriptors: readonly Descriptor[];
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

/** /proc/PID/fdinfo/FD: position, flags, locks, watches. Undefined when it is closed meanwhile. */
export function descriptorInfo(process: ProcessView, fd: number): string | undefined {
  return readProc(process.pid, `fdinfo/${fd}`);
}

/** Descriptors of all processes whose target passes, each with its process. */
export function* descriptorsOf(scene: Scene, wanted: (target: string) => boolean): Generator<{ process: ProcessView; fd: number; target: string }> {
  for (const process of scene.tree.processes) {
    for (const { fd, target } of process.descriptors) {
      if (wanted(target)) yield { process, fd, target };
    }
  }
}
