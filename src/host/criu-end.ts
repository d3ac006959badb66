/**
 * Ending a criu that dumps a container at a moment when its tasks do not die of it. criu is stopped, its tasks are looked at,
 * and only when every one of them stands where it stood before criu came, or waits in the parasite, is criu killed; else it goes on
 * for a moment. Most moments are good ones: bad ones are the calls that criu runs inside a task.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { readProc, readStat, readStatus } from './proc.ts';
import { killSession, sessionMembers } from './session.ts';

/** The signal takes effect at once, but for a criu that waits for a disk. */
const STOP_MS = 50;
/** Not a divisor of anything that criu does in rounds. */
const MOMENT_MS = 3;

/**
 * `isHarmless` is asked while criu stands still: areAtHome(places), or areUntraced(pids) where nobody knows how the
 * tasks stood.
 * `glance`: it is asked before, too, so that criu is not held up while the answer is no.
 * True when all of the session is gone; false when no good moment came in time, and then it runs on.
 */
export async function endWhileHarmless(sessionFile: string, isHarmless: () => boolean, {
  patienceMs, glance = false,
}: { patienceMs: number; glance?: boolean }): Promise<boolean> {
  const until = performance.now() + patienceMs;
  do {
    const members = sessionMembers(sessionFile);
    if (members.length === 0) return true;
    const criu = criuPids(sessionFile);
    const hopeful = !glance || isHarmless();
    for (const pid of hopeful ? criu : []) send(pid, 'SIGSTOP');
    if (hopeful && (await areHeld(criu)) && isHarmless()) {
      // First: a runtime that dies before it could make criu do something.
      for (const pid of criu) send(pid, 'SIGKILL');
      await killSession(sessionFile);
      return true;
    }
    for (const pid of criu) send(pid, 'SIGCONT');
    await delay(MOMENT_MS);
  } while (performance.now() < until);
  return false;
}

/**
 * Whether criu has not come to these processes yet, or has left them; it comes to threads after, and leaves them when
 * all is put back.
 */
export function areUntraced(pids: readonly number[]): boolean {
  return pids.every((pid) => (readStatus(pid)?.get('TracerPid') ?? '0') === '0');
}

export function criuPids(sessionFile: string): number[] {
  return sessionMembers(sessionFile).filter((pid) => readStat(pid)?.comm === 'criu');
}

async function areHeld(pids: readonly number[]): Promise<boolean> {
  for (let waited = 0; waited < STOP_MS; waited++) {
    if (pids.every(isHeld)) return true;
    await delay(1);
  }
  return false;
}

/** Stopped, ended, or waiting for a task of a frozen cgroup to be attached to: from there it does nothing without being woken. */
function isHeld(pid: number): boolean {
  const state = readStat(pid)?.state;
  return state === undefined || 'TtZX'.includes(state) || (state === 'D' && waitsToAttach(pid));
}

/** Whether it attaches to a task that was stopped by a signal, and waits for the freezer to let that take note of it. */
export function waitsToAttach(pid: number): boolean {
  return /\bptrace_attach\b/.test(readProc(pid, 'stack') ?? '');
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}
