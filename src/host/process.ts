/** Running programs; the only place that imports execa. */
import { constants } from 'node:os';
import { delimiter } from 'node:path';
import { execa } from 'execa';
import { LONGEST_TIMER_MS } from '../core/clock.ts';
import { StasisError } from '../core/errors.ts';
import { childEnvironment } from './environment.ts';

/** The PATH of this process with a directory before all others. */
export function searchPathFrom(directory: string): string {
  // oxlint-disable-next-line node/no-process-env
  return [directory, process.env['PATH'] ?? ''].join(delimiter);
}

export interface RunOptions {
  readonly signal: AbortSignal | undefined;
  /** Beside PATH; nothing else of the environment of this process is passed on. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly input?: string;
  /** Kill the program after this long; required, because nothing may wait for ever. */
  readonly timeoutMs: number;
  /** Keep the program alive when the agent dies, in a session of its own (dumps, restores). */
  readonly detached?: boolean;
  /**
   * With detached: the file that gets the number of that session and the start time of its leader, "PID TICKS", before the
   * program runs, for whoever must find all of it (session.ts).
   */
  readonly sessionFile?: string;
}

export interface RunResult {
  /** Exit status; 128 + signal number when a signal ended it, as a shell counts. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The start time is the 22nd field of /proc/PID/stat; the second, the name in brackets, is that of a shell and holds no blank. */
const IN_SESSION = `read -r pid ${'_ '.repeat(20)}start _ < /proc/$$/stat && echo "$pid $start" > "$0" && exec "$@"`;

/** Output beyond this is cut: it is only ever used for messages and small JSON. */
const MAX_OUTPUT_BYTES = 4 * 1024 * 1024;

/**
 * Runs a program to its end; a non-zero status is a result, not an exception. Throws HOST_UNSUPPORTED when the
 * program is not installed, DEADLINE_EXCEEDED after timeoutMs, and the signal's reason when cancelled
 * (the program is then sent SIGTERM, and SIGKILL five seconds later).
 */
export async function run(file: string, args: readonly string[], options: RunOptions): Promise<RunResult> {
  options.signal?.throwIfAborted();
  const [program, argv] = options.sessionFile === undefined ? [file, args] : ['sh', ['-c', IN_SESSION, options.sessionFile, file, ...args]];
  const result = await execa(program, argv, {
    reject: false,
    stripFinalNewline: true,
    timeout: Math.min(options.timeoutMs, LONGEST_TIMER_MS),
    maxBuffer: MAX_OUTPUT_BYTES,
    forceKillAfterDelay: 5000,
    cleanup: options.detached !== true,
    detached: options.detached === true,
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    ...(options.input === undefined ? {} : { input: options.input }),
    extendEnv: false,
    env: childEnvironment(options.env),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
  });
  if (result.isCanceled) options.signal?.throwIfAborted();
  if (result.timedOut) {
    throw new StasisError('DEADLINE_EXCEEDED', `${file} ${args[0] ?? ''} did not finish within ${options.timeoutMs} ms`, { cause: result });
  }
  const code = (result as { code?: string }).code;
  // The shell of a session says 127 or 126 where execa would have an error code.
  if (code === 'ENOENT' || code === 'EACCES' || (options.sessionFile !== undefined && (result.exitCode === 127 || result.exitCode === 126))) {
    throw new StasisError('HOST_UNSUPPORTED', `${file} cannot be run: ${code ?? result.exitCode}`, { hint: `install ${file} on this node, or name its path in the configuration` });
  }
  const text = (value: unknown): string => (typeof value === 'string' ? value : '');
  const signalNumber = result.signal === undefined ? 0 : 128 + signalNumbers(result.signal);
  return { status: result.exitCode ?? signalNumber, stdout: text(result.stdout), stderr: text(result.stderr) };
}

function signalNumbers(name: string): number {
  return constants.signals[name as NodeJS.Signals] ?? 0;
}
