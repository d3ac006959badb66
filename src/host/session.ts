/**
 * The processes of one run of a runtime: a session of its own. Its number, and the start time of the process that leads it, are
 * in a file that it wrote before it began (RunOptions.sessionFile). criu stays in it, also when the runtime is dead. An
 * environment variable would not do: criu writes its title over its environment.
 *
 * The kernel gives the number to nobody else while the session has members. A file that outlives them may name a stranger's
 * session: its leader has another start time, or its members are older than the leader of the file (a restart of the machine).
 */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { listPids, readStat, readStatus, type ProcStat } from './proc.ts';

/** Longer than the kernel takes to collect a killed process, short enough not to hold up a start. */
const WAIT_MS = 5000;

interface Session {
  readonly id: number;
  /** Of its leader, in ticks since boot. Files of older agents lack it. */
  readonly startTime: number;
}

function readSession(sessionFile: string): Session | undefined {
  try {
    const [id = Number.NaN, startTime = 0] = readFileSync(sessionFile, 'utf8').trim().split(' ').map(Number);
    return Number.isSafeInteger(id) && id > 1 && Number.isSafeInteger(startTime) ? { id, startTime } : undefined;
  } catch {
    return undefined;
  }
}

/** Undefined also when a stranger leads a session of that number. */
function openSession(sessionFile: string): Session | undefined {
  const session = readSession(sessionFile);
  const leader = session === undefined ? undefined : readStat(session.id);
  return leader !== undefined && session?.startTime !== 0 && leader.startTime !== session?.startTime ? undefined : session;
}

/** Members that nobody has collected yet are among them. */
function stats(sessionFile: string): ProcStat[] {
  const session = openSession(sessionFile);
  if (session === undefined) return [];
  return listPids().flatMap((pid) => readStat(pid) ?? []).filter((stat) => stat.session === session.id && stat.startTime >= session.startTime);
}

/** Those that live; none when nothing was started. */
export function sessionMembers(sessionFile: string): number[] {
  return stats(sessionFile).filter(({ state }) => state !== 'Z' && state !== 'X').map(({ pid }) => pid);
}

/** Its first process, in which the runtime runs, whether it lives or not. Undefined when nothing was started. */
export function sessionLeader(sessionFile: string): number | undefined {
  return openSession(sessionFile)?.id;
}

/** Processor time in clock ticks of its members and of what these have started, in whatever session that is. */
export function ticksUsed(sessionFile: string): number {
  const session = openSession(sessionFile)?.id;
  const all = listPids().flatMap((pid) => readStat(pid) ?? []);
  const below = Map.groupBy(all, ({ ppid }) => ppid);
  const found = new Set(all.filter((stat) => stat.session === session));
  for (const { pid } of found) for (const child of below.get(pid) ?? []) found.add(child);
  return [...found].reduce((sum, { ticks }) => sum + ticks, 0);
}

/** Whether the runtime, which leads its session, and criu both live. */
export function runsCriu(sessionFile: string): boolean {
  const pids = sessionMembers(sessionFile);
  return pids.some((pid) => pid === sessionLeader(sessionFile)) && pids.some((pid) => readStat(pid)?.comm === 'criu');
}

/** Whether criu has ended and the runtime has not noticed: its first process is the criu that was run, the others it made. */
export function criuUnnoticed(sessionFile: string): boolean {
  const [first] = stats(sessionFile).filter(({ comm }) => comm === 'criu').sort((a, b) => a.startTime - b.startTime || a.pid - b.pid);
  return first?.state === 'Z';
}

function tracedBy(tracers: readonly number[]): number[] {
  return listPids().filter((pid) => tracers.includes(Number(readStatus(pid)?.get('TracerPid') ?? 0)));
}

/**
 * Ends them all and waits until they are gone. Without the file nothing was started. With `traced`, what they hold by ptrace
 * goes first: the tasks of a restore that criu was about to let go would run as soon as their tracer is dead.
 */
export async function killSession(sessionFile: string, { traced = false }: { traced?: boolean } = {}): Promise<void> {
  for (let waited = 0; waited < WAIT_MS; waited += 20) {
    const pids = sessionMembers(sessionFile);
    if (pids.length === 0) return;
    const first = traced ? tracedBy(pids) : [];
    for (const pid of [...first, ...pids]) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // Gone in the meantime.
      }
    }
    await delay(20);
  }
}
