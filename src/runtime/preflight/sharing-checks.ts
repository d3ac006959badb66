/**
 * What tasks share by clone(2) and unshare(2). CRIU takes it that threads of a process share their descriptors, places
 * and namespaces, and that processes share no memory and tell their parents of their end by SIGCHLD: it asks nobody,
 * and brings back something else without a word.
 */
import { constants } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { waitsInVfork } from '../../host/cgroup.ts';
import { listThreads, readProc, readProcLink } from '../../host/proc.ts';
import { share } from '../../host/task-calls.ts';
import type { Finding } from '../types.ts';
import { fatal, lost, who, type ProcessView, type Scene } from './findings.ts';

/** Of all processes together; each costs some ten microseconds. */
const MAX_THREADS = 4096;
/** A mount namespace of a thread's own needs places of its own, and a user namespace a process of one thread. */
const NAMESPACES = ['net', 'ipc', 'uts', 'cgroup'] as const;
const PAUSE_MS = 5;
/** Index of the exit signal among the fields of /proc/PID/stat after the name. */
const EXIT_SIGNAL = 35;

/** What a thread has for itself, in words; undefined: nothing. */
function ownOf({ pid, namespaces }: ProcessView, tid: number): string | undefined {
  if (share('descriptors', pid, tid) === false) return 'a table of descriptors';
  if (share('places', pid, tid) === false) return 'a working directory';
  const name = NAMESPACES.find((kind) => {
    const link = readProcLink(tid, `ns/${kind}`);
    return link !== undefined && namespaces[kind] !== undefined && link !== namespaces[kind];
  });
  return name === undefined ? undefined : `a ${name} namespace`;
}

export function checkThreads({ tree }: Scene): Finding[] {
  let left = MAX_THREADS;
  for (const process of tree.processes.filter(({ threads, state }) => threads > 1 && state !== 'Z')) {
    const others = listThreads(process.pid).filter((tid) => tid !== process.pid);
    for (const tid of others.slice(0, left)) {
      left -= 1;
      const own = ownOf(process, tid);
      if (own === undefined) continue;
      return [fatal(
        'thread',
        `thread ${tid} of ${who(process)} has ${own} of its own (unshare), and CRIU would give it that of its process`,
        'let a process do in the program what this thread does, or end the thread before a checkpoint', process,
      )];
    }
  }
  return [];
}

/** What criu refuses in the dump when two processes share it; of descriptors it knows the way that is common. */
const SHARED = {
  memory: 'one memory (clone with CLONE_VM)', places: 'one working directory (clone with CLONE_FS)',
} as const;

interface Sharing {
  readonly parent: ProcessView;
  readonly child: ProcessView;
  readonly what: keyof typeof SHARED;
}

function findSharing(processes: readonly ProcessView[]): Sharing | undefined {
  const byPid = new Map(processes.map((process) => [process.pid, process]));
  for (const process of processes) {
    const parent = byPid.get(process.ppid);
    // Those without memory of their own, the dead, have none to share.
    if (parent === undefined || process.state === 'Z' || parent.state === 'Z') continue;
    const what = (['memory', 'places'] as const).find((thing) => share(thing, process.pid, parent.pid) === true);
    // Between vfork and exec they have one memory for a moment: the freeze waits for its end, or says there is none.
    if (what !== undefined && !listThreads(parent.pid).some(waitsInVfork)) return { parent, child: process, what };
  }
  return undefined;
}

export async function checkSharing({ tree: { processes } }: Scene): Promise<Finding[]> {
  const seen = findSharing(processes);
  if (seen === undefined) return [];
  // The child may have been made, or have begun its program, between the two looks.
  await delay(PAUSE_MS);
  const found = findSharing([seen.parent, seen.child]);
  if (found === undefined) return [];
  const { parent, child, what } = found;
  return [fatal(
    'thread', `${who(child)} and its parent, ${who(parent)}, have ${SHARED[what]}, which CRIU cannot save`,
    'the program must use threads, or memory that is mapped as shared and messages', child,
  )];
}

/** Another signal than SIGCHLD, or none: clone(2). */
export function checkExitSignals({ tree: { processes } }: Scene): Finding[] {
  const inside = new Set(processes.map(({ pid }) => pid));
  const [first, ...others] = processes.filter(({ pid, ppid, state }) => {
    if (!inside.has(ppid) || state === 'Z') return false;
    const signal = readProc(pid, 'stat')?.trim().replace(/.*\) /s, '').split(' ')[EXIT_SIGNAL];
    return signal !== undefined && Number(signal) !== constants.signals.SIGCHLD;
  });
  if (first === undefined) return [];
  const more = others.length === 0 ? '' : ` and of ${others.length} more`;
  return [lost(
    `the signal by which the end of ${who(first)}${more} is told to its parent (clone with another than SIGCHLD)`,
    'the parent gets SIGCHLD after a restore, and finds the child by wait without __WCLONE', first,
  )];
}
