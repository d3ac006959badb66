/** One run of a runtime with its criu: in a session of its own, with a deadline, and ended as a whole. */
import { join } from 'node:path';
import { LONGEST_TIMER_MS, longTimer } from '../../core/clock.ts';
import { StasisError } from '../../core/errors.ts';
import { run } from '../../host/process.ts';
import { RestoreGate } from '../../host/restore-gate.ts';
import { criuUnnoticed, killSession, ticksUsed } from '../../host/session.ts';
import type { RuntimeRoot, Toolchain } from '../types.ts';
import type { Version } from '../toolchain.ts';

export interface DriverOptions {
  readonly signal: AbortSignal | undefined;
  readonly timeoutMs: number;
  /** `timeoutMs` counts only while nothing of it uses a processor: a slow node is no dead one. */
  readonly whileStill?: boolean;
}

export function versionOf(at: RuntimeRoot, toolchain: Toolchain): Version {
  const found = toolchain.runtimes.find((candidate) => candidate.name === at.runtime);
  if (found === undefined) {
    throw new StasisError('HOST_UNSUPPORTED', `${at.runtime} is not installed on this node`, {
      hint: `install ${at.runtime}, or name it in the configuration (runtimes.${at.runtime}.binary)`,
    });
  }
  return found.versionNumbers;
}

export interface OperationRequest {
  readonly operationId: string;
  readonly criuConfig: string;
  readonly workDir: string;
  readonly guardDirectory?: string | undefined;
  readonly gateDirectory?: string | undefined;
  /** More of the environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Where the number of the session is written instead. */
  readonly sessionDirectory?: string | undefined;
  /** Ends what the session's processes have made outside it. */
  readonly sweep?: () => Promise<void>;
}

/**
 * Runs a runtime in a session of its own, so that the death of the agent does not end it. The number of that session is
 * in the file `session` of the guard's directory, or else of the working directory, for whoever must find all of it.
 * At an abort or the deadline all of it is killed at once: whoever holds its output keeps run() waiting.
 */
export async function runOperation(
  file: string, args: readonly string[], request: OperationRequest, options: DriverOptions,
): ReturnType<typeof run> {
  const sessionFile = join(request.sessionDirectory ?? request.guardDirectory ?? request.workDir, 'session');
  const env = {
    STASIS_OPERATION: request.operationId,
    CRIU_CONFIG_FILE: request.criuConfig,
    ...request.env,
    ...(request.guardDirectory === undefined ? {} : { STASIS_GUARD_DIR: request.guardDirectory }),
    ...(request.gateDirectory === undefined ? {} : RestoreGate.environment(request.gateDirectory)),
  };
  let killed: Promise<void> | undefined;
  const kill = (): void => {
    killed ??= killSession(sessionFile, { traced: request.gateDirectory !== undefined }).then(request.sweep);
  };
  options.signal?.addEventListener('abort', kill, { once: true });
  const { timeoutMs, whileStill = false } = options;
  const deadline = whileStill ? stillTimer(kill, sessionFile, timeoutMs) : longTimer(kill, timeoutMs);
  const watch = watchCriu(sessionFile, kill);
  try {
    const result = await run(file, args, {
      signal: options.signal, timeoutMs: whileStill ? LONGEST_TIMER_MS : timeoutMs, env, cwd: request.workDir,
      detached: true, sessionFile,
    });
    if (killed !== undefined && result.status !== 0 && !watch.fired) throw ended(file, options);
    // The end of a runtime that was killed is not the end of its criu. One that dumps must not be cut off: the guard
    // knows how.
    if (result.status !== 0 && request.sweep !== undefined) kill();
    return result;
  } catch (error) {
    kill();
    throw error;
  } finally {
    deadline.clear();
    clearInterval(watch.timer);
    options.signal?.removeEventListener('abort', kill);
    await killed;
  }
}

const WATCH_MS = 500;
/** A runtime that lives collects its criu at once. */
const UNNOTICED_MS = 3000;

/** crun waits for ever for a criu that was killed: what criu had made already holds the other end of their socket. */
function watchCriu(sessionFile: string, kill: () => void): { readonly timer: NodeJS.Timeout; readonly fired: boolean } {
  let unnoticed = 0;
  const watch = {
    fired: false,
    timer: setInterval(() => {
      unnoticed = criuUnnoticed(sessionFile) ? unnoticed + WATCH_MS : 0;
      if (unnoticed < UNNOTICED_MS) return;
      watch.fired = true;
      kill();
    }, WATCH_MS),
  };
  return watch;
}

const STILL_POLL_MS = 1000;

/** Fires when the session has used no processor time for so long. */
function stillTimer(fire: () => void, sessionFile: string, timeoutMs: number): { clear(): void } {
  let [ticks, since] = [-1, performance.now()];
  const timer = setInterval(() => {
    const now = ticksUsed(sessionFile);
    if (now !== ticks) [ticks, since] = [now, performance.now()];
    else if (performance.now() - since >= timeoutMs) fire();
  }, Math.min(STILL_POLL_MS, timeoutMs));
  return { clear: () => clearInterval(timer) };
}

function ended(file: string, { signal, timeoutMs, whileStill }: DriverOptions): unknown {
  if (signal?.aborted === true) return signal.reason;
  const what = whileStill === true ? 'stood still for' : 'did not finish within';
  return new StasisError('DEADLINE_EXCEEDED', `${file} ${what} ${timeoutMs} ms`, {
    hint: 'raise the budget of the operation, or look at what the node is busy with',
  });
}
