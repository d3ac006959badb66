/** Of each thread what CRIU does not restore and what can be set from outside. */
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { ioPriority, setAffinity, setIoPriority } from '../../host/task-calls.ts';

export interface TaskState {
  /** Inside the container's pid namespace. */
  readonly tid: number;
  /** As in /proc/TID/status; absent where it is that of most. */
  readonly affinity?: string;
  /** As ioprio_get(2) tells it; absent when none was set. */
  readonly ioPriority?: number;
  /** Nanoseconds; absent for the kernel's 50 µs. */
  readonly timerSlack?: number;
  /** Of a process, as in /proc/PID/coredump_filter; absent for the kernel's own. */
  readonly coredumpFilter?: string;
}

const DEFAULT_SLACK_NS = 50_000;
const DEFAULT_COREDUMP_FILTER = '00000033';
/** A record of more threads would be more of the manifest than the rest of it. */
const MAX_THREADS = 20_000;

interface Thread {
  readonly pid: number;
  readonly tid: number;
  readonly inside: number;
  readonly affinity: string;
}

function thread(pid: number, tid: number): Thread | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/task/${tid}/status`, 'latin1');
    const inside = /^NSpid:.*?(\d+)$/m.exec(status)?.[1];
    const affinity = /^Cpus_allowed:\s*(\S+)$/m.exec(status)?.[1];
    return inside === undefined || affinity === undefined ? undefined : { pid, tid, inside: Number(inside), affinity };
  } catch {
    return undefined;
  }
}

function threads(pids: readonly number[]): Thread[] {
  const found: Thread[] = [];
  for (const pid of pids) {
    let tids: string[];
    try {
      tids = readdirSync(`/proc/${pid}/task`);
    } catch {
      continue;
    }
    for (const tid of tids) found.push(...([thread(pid, Number(tid))].filter((entry) => entry !== undefined)));
    if (found.length > MAX_THREADS) return found.slice(0, MAX_THREADS);
  }
  return found;
}

function slack({ pid, tid }: Thread): number {
  // Only for whole processes where the kernel does not show it for threads.
  for (const path of [`/proc/${pid}/task/${tid}/timerslack_ns`, `/proc/${tid}/timerslack_ns`]) {
    try {
      return Number(readFileSync(path, 'latin1'));
    } catch {
      // The next one.
    }
  }
  return DEFAULT_SLACK_NS;
}

/** Undefined for a thread that shares it with the first of its process, and where the kernel has no core dumps. */
function coredumpFilter({ pid, tid }: Thread): string | undefined {
  if (pid !== tid) return undefined;
  try {
    return readFileSync(`/proc/${pid}/coredump_filter`, 'latin1').trim() || undefined;
  } catch {
    return undefined;
  }
}

/** Threads that differ from what a new process would have. `usual`: the mask of a task that nobody has bound. */
export function readTasks(pids: readonly number[], usual: string): TaskState[] {
  return threads(pids).flatMap((entry) => {
    const priority = ioPriority(entry.tid);
    const timerSlack = slack(entry);
    const filter = coredumpFilter(entry);
    const state: TaskState = {
      tid: entry.inside,
      ...(entry.affinity === usual ? {} : { affinity: entry.affinity }),
      ...(priority === 0 ? {} : { ioPriority: priority }),
      // Real-time tasks have none.
      ...(timerSlack === DEFAULT_SLACK_NS || timerSlack === 0 ? {} : { timerSlack }),
      ...(filter === undefined || filter === DEFAULT_COREDUMP_FILTER ? {} : { coredumpFilter: filter }),
    };
    return Object.keys(state).length === 1 ? [] : [state];
  });
}

/** Returns what could not be set. The tasks stand still. */
export function putBackTasks(states: readonly TaskState[], pids: readonly number[]): string[] {
  const byNumber = new Map(threads(pids).map((entry) => [entry.inside, entry]));
  const failed: string[] = [];
  const set = (what: string, tid: number, act: () => void): void => {
    try {
      act();
    } catch (error) {
      failed.push(`${what} of task ${tid}: ${(error as Error).message}`);
    }
  };
  const filters = new Map(states.map(({ tid, coredumpFilter: filter }) => [tid, filter]));
  for (const entry of byNumber.values()) {
    const [now, wanted] = [coredumpFilter(entry), filters.get(entry.inside) ?? DEFAULT_COREDUMP_FILTER];
    // Written and read in hexadecimal, but only read without saying so.
    if (now !== undefined && now !== wanted) set(
      'core dump filter', entry.inside, () => writeFileSync(`/proc/${entry.pid}/coredump_filter`, `0x${wanted}`),
    );
  }
  for (const { tid, affinity, ioPriority: priority, timerSlack } of states) {
    const entry = byNumber.get(tid);
    if (entry === undefined) continue;
    if (affinity !== undefined && affinity !== entry.affinity) set('affinity', tid, () => setAffinity(entry.tid, affinity));
    if (priority !== undefined) set('I/O priority', tid, () => setIoPriority(entry.tid, priority));
    if (timerSlack !== undefined) set('timer slack', tid, () => writeFileSync(`/proc/${entry.tid}/timerslack_ns`, String(timerSlack)));
  }
  return failed;
}
