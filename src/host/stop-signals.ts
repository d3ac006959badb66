/**
 * Processes that a signal has stopped which criu does not know: it saves what SIGSTOP or SIGTSTP has stopped, and
 * nothing else.
 */
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import { run } from './process.ts';
import { readProc } from './proc.ts';

const program = fileURLToPath(new URL('stop-signals-program.js', import.meta.url));
const KNOWN: readonly number[] = [constants.signals.SIGSTOP, constants.signals.SIGTSTP];
const TIMEOUT_MS = 5000;
/**
 * Index of the exit code among the fields of /proc/PID/stat after the name: of a stopped process its signal, until its
 * parent has asked for it.
 */
const EXIT_CODE = 49;

function mayBeUnknown(pid: number): boolean {
  return !KNOWN.includes(Number(readProc(pid, 'stat')?.trim().replace(/.*\) /s, '').split(' ')[EXIT_CODE]));
}

/**
 * Makes SIGSTOP the signal that has stopped these processes, where it was another than SIGSTOP and SIGTSTP. They run
 * none of their code meanwhile. Not for processes of a frozen cgroup. One that goes on, ends or is traced is left as it
 * is: criu tells.
 */
export async function makeStopsKnown(stopped: readonly number[], signal: AbortSignal): Promise<void> {
  const unknown = stopped.filter(mayBeUnknown);
  if (unknown.length > 0) await run(
    process.execPath, [program, ...unknown.map(String)], { signal, timeoutMs: TIMEOUT_MS },
  );
}
