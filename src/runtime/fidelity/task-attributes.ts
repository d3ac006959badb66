/** The rows of the table that are read of each task (proc(5)), from files that the kernel answers without the task's help. */
import { readlinkSync } from 'node:fs';
import { readProc, readStatus } from '../../host/proc.ts';
import { ioPriority } from '../../host/task-calls.ts';
import type { Attribute } from './types.ts';

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
  readonly read: (task: TaskFiles) => string | undefined;
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

const thread = (name: string, meaning: string, read: TaskAttribute['read'], keeper: Attribute['keeper'] = 'kept'): TaskAttribute => ({ name, meaning, keeper, perThread: true, read });
const process = (name: string, meaning: string, read: TaskAttribute['read'], keeper: Attribute['keeper'] = 'kept'): TaskAttribute => ({ name, meaning, keeper, perThread: false, read });

/** Positions in /proc/PID/stat, counted from the state, which is field 3. */
const stat = (position: number): TaskAttribute['read'] => (task) => task.stat[position - 3];

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
  thread('nice', 'nice value', stat(19)),
  thread('scheduling-policy', 'scheduling policy', stat(41)),
  thread('realtime-priority', 'priority of a real-time policy', stat(40)),
  // The last instruction before a task runs sets it: some stand before that one when they are read.
  { ...thread('signals-blocked', 'blocked signals', field('SigBlk')), noted: true },
  { ...thread('affinity', 'processors that it may run on', field('Cpus_allowed_list'), 'put-back'), noted: true },
  { ...thread('io-priority', 'priority of its input and output', inputPriority, 'put-back'), noted: true },
  { ...process('timer-slack', 'how late its timers may fire, nanoseconds', file('timerslack_ns'), 'put-back'), noted: true },
  process('signals-ignored', 'ignored signals', field('SigIgn')),
  process('signals-caught', 'signals with a handler', field('SigCgt')),
  process('name', 'name of the program as the kernel keeps it', ({ tid }) => readProc(tid, 'comm')?.replace(/\n$/, '')),
  process('program', 'path of the program', link('exe')),
  process('working-directory', 'current directory', link('cwd')),
  process('root-directory', 'root directory', link('root')),
  process('umask', 'mode bits that new files do not get', field('Umask')),
  process('resource-limits', 'soft and hard limits', limits),
  process('oom-score-adj', 'how early the kernel kills it for want of memory', file('oom_score_adj')),
  process('personality', 'execution domain', file('personality')),
  process('coredump-filter', 'what a core dump holds', file('coredump_filter')),
  process('huge-pages', 'may have transparent huge pages', field('THP_enabled')),
  process('session', 'session', ({ status }) => status.get('NSsid')?.split(/\s+/).at(-1)),
  process('process-group', 'process group', ({ status }) => status.get('NSpgid')?.split(/\s+/).at(-1)),
];

/** Of a process (`/proc/PID`) or one of its threads; undefined when it is gone or a zombie. */
export function readTaskFiles(tid: number): TaskFiles | undefined {
  const status = readStatus(tid);
  const text = readProc(tid, 'stat');
  if (status === undefined || text === undefined) return undefined;
  const fields = text.slice(text.lastIndexOf(')') + 2).trim().split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : { tid, status, stat: fields };
}
