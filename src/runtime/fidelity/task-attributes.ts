/** The rows of the table that are read of each task (proc(5)), from files that the kernel answers without the task's help. */
import { readlinkSync } from 'node:fs';
import { readCgroups, readProc, readStatus } from '../../host/proc.ts';
import { ioPriority } from '../../host/task-calls.ts';
import { timers, type Descriptors } from './descriptors.ts';
import type { Surroundings } from './surroundings.ts';
import { FOR_A_CALL, type Attribute } from './types.ts';

/** What a record holds beside one task. */
export interface Reading {
  readonly descriptors: Descriptors;
  readonly surroundings: Surroundings | undefined;
}

/** One task or thread, its files read once. */
export interface TaskFiles {
  /** Thread id on the node. */
  readonly tid: number;
  readonly status: ReadonlyMap<string, string>;
  /** Fields of /proc/PID/stat behind the name; the first is the state. */
  readonly stat: readonly string[];
}

export interface TaskAttribute extends Attribute {
  /** Threads of a process can differ in it. */
  readonly perThread: boolean;
  readonly read: (task: TaskFiles, reading: Reading) => string | undefined;
}

function field(name: string): (task: TaskFiles) => string | undefined {
  return ({ status }) => status.get(name)?.replaceAll(/\s+/g, ' ').trim();
}

function file(name: string): (task: TaskFiles) => string | undefined {
  return ({ tid }) => readProc(tid, name)?.trim();
}

function link(name: string): (task: TaskFiles) => string | undefined {
  return ({ tid }) => {
    try {
      const target = readlinkSync(`/proc/${tid}/${name}`);
      // CRIU gives a deleted file another name while it is linked again.
      return target.endsWith(' (deleted)') ? '(deleted)' : target;
    } catch {
      return undefined;
    }
  };
}

/** Class and level. */
function inputPriority({ tid }: TaskFiles): string | undefined {
  try {
    const value = ioPriority(tid);
    return `${value >> 13}:${value & 7}`;
  } catch {
    return undefined;
  }
}

/** Soft and hard limit by name; the width of the columns is not the kernel's promise. */
function limits({ tid }: TaskFiles): string | undefined {
  const lines = readProc(tid, 'limits')?.split('\n').slice(1).filter(Boolean);
  return lines?.map((line) => line.replace(/\s{2,}/g, ' ').trim()).join('; ');
}

/**
 * By number of the call, the place of its argument for a mask: ppoll, pselect6, rt_sigsuspend, rt_sigtimedwait,
 * epoll_pwait, epoll_pwait2, io_pgetevents.
 */
const CALLS_WITH_A_MASK = new Map(process.arch === 'arm64'
  ? [[73, 3], [72, 5], [133, 0], [137, 0], [22, 4], [441, 4], [292, 5]]
  : [[271, 3], [270, 5], [130, 0], [128, 0], [281, 4], [441, 4], [333, 5]]);

/**
 * While a task waits in such a call its mask is another one, and the kernel shows that. The images of criu have the
 * true one.
 */
function blocked({ tid, status }: TaskFiles): string | undefined {
  const [call, ...values] = readProc(tid, 'syscall')?.split(' ') ?? [];
  const mask = CALLS_WITH_A_MASK.get(Number(call));
  return mask !== undefined && Number(values[mask]) !== 0 ? FOR_A_CALL : status.get('SigBlk');
}

/**
 * "docker-default (enforce)" of AppArmor, "system_u:system_r:container_t:s0:c1,c2" of SELinux. Whether a profile is
 * enforced is the node's matter; levels are given to each container anew.
 */
export function labelOf(text: string): string {
  const label = text.replace(/[\0\n]+$/, '').replace(/ \(\w+\)$/, '');
  return /^[^/:]+:[^/:]+:[^/:]+:./.test(label) ? label.split(':').slice(0, 3).join(':') : label;
}

/** Undefined where the kernel has no such module. */
function securityLabel({ tid }: TaskFiles): string | undefined {
  try {
    return labelOf(readProc(tid, 'attr/current') ?? '');
  } catch {
    return undefined;
  }
}

const CONTAINER_CGROUP = 'the container\'s';

/**
 * Where it has gone to below the container's cgroup, in each hierarchy: "pids:/inner". A cgroup outside of it is the
 * matter of whoever put it there.
 */
function cgroup({ tid }: TaskFiles, { surroundings }: Reading): string | undefined {
  if (surroundings === undefined) return undefined;
  const paths = new Map(readCgroups(tid).map(
    ({ hierarchy, controllers, path }) => [hierarchy === 0 ? 'unified' : controllers.join(','), path]
  ));
  const below = surroundings.cgroups.flatMap(({ name, path }) => {
    const own = paths.get(name);
    return own?.startsWith(`${path}/`) === true
      ? [`${name}:${own.slice(path.length).replaceAll(/[%;]/g, encodeURIComponent)}`] : [];
  });
  return below.length === 0 ? CONTAINER_CGROUP : below.join('; ');
}

/** The parts of a value of that row. */
export function belowOf(value: string | undefined): { readonly name: string; readonly below: string }[] {
  if (value === undefined || value === CONTAINER_CGROUP) return [];
  return value.split('; ').map(
    (part) => ({ name: part.replace(/:\/.*/s, ''), below: decodeURIComponent(part.slice(part.indexOf(':/') + 1)) })
  );
}

const thread = (name: string, meaning: string, read: TaskAttribute['read'], keeper: Attribute['keeper'] = 'kept'): TaskAttribute => ({ name, meaning, keeper, perThread: true, read });
const ofProcess = (
  name: string, meaning: string, read: TaskAttribute['read'], keeper: Attribute['keeper'] = 'kept',
): TaskAttribute => ({ name, meaning, keeper, perThread: false, read });

/** Positions in /proc/PID/stat, counted from the state, which is field 3. */
const stat = (position: number) => (task: TaskFiles): string | undefined => task.stat[position - 3];

export const TASK_ATTRIBUTES: readonly TaskAttribute[] = [
  thread('uid', 'real, effective, saved and file system user', field('Uid')),
  thread('gid', 'real, effective, saved and file system group', field('Gid')),
  thread('groups', 'supplementary groups', field('Groups')),
  thread('capabilities-inheritable', 'capabilities that exec may keep', field('CapInh')),
  thread('capabilities-permitted', 'capabilities that may be used', field('CapPrm')),
  thread('capabilities-effective', 'capabilities in use', field('CapEff')),
  thread('capabilities-bounding', 'capabilities that exec may give', field('CapBnd')),
  thread('capabilities-ambient', 'capabilities that exec passes on', field('CapAmb')),
  thread('no-new-privileges', 'exec gives no privileges', field('NoNewPrivs')),
  thread('seccomp', 'mode of system call filters', field('Seccomp')),
  thread('seccomp-filters', 'number of system call filters', field('Seccomp_filters')),
  thread('security-label', 'AppArmor profile, or SELinux label without its level', securityLabel),
  thread('nice', 'nice value', stat(19)),
  thread(
    'scheduling-policy', 'scheduling policy and its real-time priority',
    (task) => `${stat(41)(task)}:${stat(40)(task)}`,
  ),
  thread('signals-blocked', 'blocked signals', blocked),
  { ...thread('affinity', 'processors that it may run on', field('Cpus_allowed_list'), 'put-back'), noted: true },
  { ...thread('io-priority', 'priority of its input and output', inputPriority, 'put-back'), noted: true },
  { ...ofProcess(
    'timer-slack', 'how late its timers may fire, nanoseconds', file('timerslack_ns'), 'put-back',
  ), noted: true },
  ofProcess('signals-ignored', 'ignored signals', field('SigIgn')),
  ofProcess('signals-caught', 'signals with a handler', field('SigCgt')),
  ofProcess(
    'name', 'name of the program as the kernel keeps it', ({ tid }) => readProc(tid, 'comm')?.replace(/\n$/, ''),
  ),
  ofProcess('program', 'path of the program', link('exe')),
  ofProcess('working-directory', 'current directory', link('cwd')),
  ofProcess('root-directory', 'root directory', link('root')),
  ofProcess('umask', 'mode bits that new files do not get', field('Umask')),
  ofProcess('resource-limits', 'soft and hard limits', limits),
  ofProcess('oom-score-adj', 'how early the kernel kills it for want of memory', file('oom_score_adj')),
  { ...ofProcess('personality', 'execution domain', file('personality'), 'lost'), finding: 'lost' },
  ofProcess('coredump-filter', 'what a core dump holds', file('coredump_filter'), 'put-back'),
  ofProcess('huge-pages', 'may have transparent huge pages', field('THP_enabled')),
  ofProcess('session', 'session', ({ status }) => status.get('NSsid')?.split(/\s+/).at(-1)),
  ofProcess('process-group', 'process group', ({ status }) => status.get('NSpgid')?.split(/\s+/).at(-1)),
  ofProcess('timers', 'POSIX timers', ({ tid }) => timers(tid)),
  ofProcess(
    'descriptors', 'open descriptors: number, kind, file, flags and offset',
    ({ tid }, { descriptors }) => descriptors.of(tid),
  ),
  { ...ofProcess(
    'event-semaphores', 'event counters that go down by one at each reading (EFD_SEMAPHORE)',
    ({ tid }, { descriptors }) => descriptors.semaphoresOf(tid), 'lost',
  ), finding: 'lost' },
  ofProcess('cgroup', 'its cgroup, seen from that of the container', cgroup, 'put-back'),
];

/** Of a process (`/proc/PID`) or one of its threads; undefined when it is gone or a zombie. */
export function readTaskFiles(tid: number): TaskFiles | undefined {
  const status = readStatus(tid);
  const text = readProc(tid, 'stat');
  if (status === undefined || text === undefined) return undefined;
  const fields = text.slice(text.lastIndexOf(')') + 2).trim().split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : { tid, status, stat: fields };
}
