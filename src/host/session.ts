/**
 * The processes of one run of a runtime: a session of its own, whose number it wrote to a file before it began
 * (RunOptions.sessionFile). criu stays in it, also when the runtime is dead. An environment variable would not do:
 * criu writes its title over its environment.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { listPids, readStat, readStatus } from './proc.ts';
import { treeHoldsSocket } from './tcp-peer.ts';

/** Longer than the kernel takes to collect a killed process, short enough not to hold up a start. */
const WAIT_MS = 5000;

function members(session: number): number[] {
  return listPids().filter((pid) => {
    const stat = readStat(pid);
    return stat !== undefined && stat.session === session && stat.state !== 'Z' && stat.state !== 'X';
  });
}

/** Those that live; none when nothing was started. */
export function sessionMembers(sessionFile: string): number[] {
  const session = readSession(sessionFile);
  return session === undefined ? [] : members(session);
}

/** Whether the runtime, which leads its session, and criu both live. */
export function runsCriu(sessionFile: string): boolean {
  const session = readSession(sessionFile);
  if (session === undefined) return false;
  const pids = members(session);
  return pids.includes(session) && pids.some((pid) => readStat(pid)?.comm === 'criu');
}

/** Whether criu has ended and the runtime has not noticed: its first process is the criu that was run, the others it made. */
export function criuUnnoticed(sessionFile: string): boolean {
  const session = readSession(sessionFile);
  if (session === undefined) return false;
  const found = listPids().flatMap((pid) => readStat(pid) ?? []).filter((stat) => stat.session === session && stat.comm === 'criu');
  const [first] = found.sort((a, b) => a.startTime - b.startTime || a.pid - b.pid);
  return first?.state === 'Z';
}

/** Whether the runtime of this session, criu, or what these have started has the socket. */
export function sessionHoldsSocket(sessionFile: string, inode: number): boolean {
  const session = readSession(sessionFile);
  return session !== undefined && treeHoldsSocket(session, inode);
}

function readSession(sessionFile: string): number | undefined {
  try {
    const session = Number(readFileSync(sessionFile, 'utf8'));
    return Number.isSafeInteger(session) && session > 1 ? session : undefined;
  } catch {
    return undefined;
  }
}

function tracedBy(tracers: readonly number[]): number[] {
  return listPids().filter((pid) => tracers.includes(Number(readStatus(pid)?.get('TracerPid') ?? 0)));
}

/**
 * Ends them all and waits until they are gone. Without the file nothing was started. With `traced`, what they hold by ptrace
 * goes first: the tasks of a restore that criu was about to let go would run as soon as their tracer is dead.
 */
export async function killSession(sessionFile: string, { traced = false }: { traced?: boolean } = {}): Promise<void> {
  const session = readSession(sessionFile);
  if (session === undefined) return;
  for (let waited = 0; waited < WAIT_MS; waited += 20) {
    const pids = members(session);
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
