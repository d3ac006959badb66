/**
 * A program: stop-signals-program.js PID… Gives processes that SIGTTIN or SIGTTOU has stopped SIGSTOP as the reason
 * of their stop, which is one that criu knows. Each thread is attached to and let on until it takes the SIGSTOP: it is
 * then stopped again before it comes back to its own code. A program of its own, because attaching waits for a freezer
 * that somebody closes meanwhile; at its death the kernel detaches, and the thread is stopped as before.
 */
import { readdirSync } from 'node:fs';
import { constants } from 'node:os';
import { check, libc } from './libc.ts';
import { stoppedOf } from './stopped-tasks.ts';

const raw = {
  ptrace: libc.func('long ptrace(long request, int tid, intptr_t address, intptr_t data)'),
  ptraceInto: libc.func('long ptrace(long request, int tid, intptr_t address, void* data)'),
  waitpid: libc.func('int waitpid(int tid, void* status, int options)'),
  tgkill: libc.func('int tgkill(int pid, int tid, int signal)'),
};
const PTRACE = { cont: 7, detach: 17, getSigInfo: 0x4202, seize: 0x4206 } as const;
const WALL = 0x40000000;
const { SIGSTOP, SIGTTIN, SIGTTOU } = constants.signals;
/** What a traced thread tells of the signals that stop it on the way: those before ours, and ours twice. */
const MAX_STOPS = 8;
const PTRACE_EVENT_STOP = 128;

/** The signal that stopped a thread that is attached to. */
function stopSignal(tid: number): number {
  const information = Buffer.alloc(128);
  check(raw.ptraceInto(PTRACE.getSigInfo, tid, 0, information) as number, 'ptrace');
  return information.readInt32LE(0);
}

/** Its wait status: the low byte 0x7f for a stop, then the signal, then the event. */
function nextStop(tid: number): { readonly signal: number; readonly event: number } | undefined {
  const status = Buffer.alloc(4);
  check(raw.waitpid(tid, status, WALL) as number, 'waitpid');
  const word = status.readUInt32LE(0);
  return (word & 0xff) === 0x7f ? { signal: (word >> 8) & 0xff, event: word >> 16 } : undefined;
}

function stopAnew(pid: number, tid: number): void {
  check(raw.ptrace(PTRACE.seize, tid, 0, 0) as number, 'ptrace');
  // The stop that it was in, as its tracer hears of it.
  if (nextStop(tid) === undefined) return;
  if (![SIGTTIN, SIGTTOU].includes(stopSignal(tid))) {
    raw.ptrace(PTRACE.detach, tid, 0, 0);
    return;
  }
  check(raw.tgkill(pid, tid, SIGSTOP) as number, 'tgkill');
  let inject = 0;
  for (let stops = 0; stops < MAX_STOPS; stops++) {
    check(raw.ptrace(PTRACE.cont, tid, 0, inject) as number, 'ptrace');
    const stop = nextStop(tid);
    if (stop === undefined) return;
    if (stop.event === PTRACE_EVENT_STOP && stop.signal === SIGSTOP) break;
    inject = stop.event === 0 ? stop.signal : 0;
  }
  raw.ptrace(PTRACE.detach, tid, 0, 0);
}

for (const pid of process.argv.slice(2).map(Number)) {
  if (stoppedOf([pid]).length === 0) continue;
  for (const tid of readdirSync(`/proc/${pid}/task`).map(Number)) stopAnew(pid, tid);
}
