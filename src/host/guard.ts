/**
 * The dead man's switch around every freeze (promise 1): a process of its own, deploy/libexec/stasis-guard, that thaws the
 * container when the agent dies or the freeze budget ends. Whoever makes the symbolic link `decision` first decides:
 * the agent (released, commit) or the guard (thaw). An agent that was paused and wakes up too late finds the link there.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import {
  closeSync, constants, existsSync, mkdirSync, openSync, renameSync, symlinkSync, watch, writeFileSync, writeSync,
} from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LONGEST_TIMER_MS, longTimer } from '../core/clock.ts';
import { StasisError, errnoCode } from '../core/errors.ts';
import { AT_FDCWD, mknodat } from './libc.ts';
import { readDecision, type Decision } from './decision.ts';
import { run } from './process.ts';
import { childEnvironment } from './environment.ts';
import { listDirectory, makePrivateDirectory, removeTree } from './files.ts';
import { leaveCgroups, removeEmptyCgroups } from './own-cgroup.ts';
import { placesToText, type Places } from './places.ts';

export interface GuardTarget {
  /** Directory of this guard, created here; on a tmpfs, because it must not outlive a reboot. */
  readonly directory: string;
  readonly init: { readonly pid: number; readonly start: number };
  /** The directory of its freezer cgroup, or undefined when the container was paused before and shall stay so. */
  readonly freezer: string | undefined;
  /** Whether criu's post-dump hook will wait for the decision. */
  readonly hook: boolean;
  readonly budgetMs: number;
  /** Of the dump, absolute; names the table of criu's packet filter. Undefined where criu has none. */
  readonly criuLog?: string | undefined;
}

/** Below the root of every hierarchy: guards outlive the Pod or the unit of their agent. */
const GUARD_CGROUP = 'stasis-guards';
const GONE = '.gone';
const endProgram = fileURLToPath(new URL('end-criu-program.js', import.meta.url));
const ARM_TIMEOUT_MS = 5000;
/** Beyond the budget and what the guard waits for after its last kill. It goes on by itself then. */
const SETTLE_MS = 30_000;

export class Guard implements AsyncDisposable {
  readonly directory: string;
  /** Hierarchies in which the guard had to stay in the agent's own cgroup, and can be killed or frozen with it. */
  exposed: readonly string[] = [];
  readonly #child: ChildProcess;
  readonly #budgetMs: number;
  #answer: number | undefined;
  #fired = false;
  #startedAt: number | undefined;

  private constructor(directory: string, child: ChildProcess, answer: number | undefined, budgetMs: number) {
    this.directory = directory;
    this.#budgetMs = budgetMs;
    this.#child = child;
    this.#answer = answer;
    child.once('exit', () => {
      this.#fired = true;
    });
  }

  /** Resolves when the guard waits for start(). */
  static async arm(script: string, target: GuardTarget): Promise<Guard> {
    makePrivateDirectory(join(target.directory, '..'));
    removeTree(target.directory);
    mkdirSync(target.directory, { mode: 0o700 });
    if (target.freezer !== undefined) symlinkSync(target.freezer, join(target.directory, 'freezer'));
    if (target.criuLog !== undefined) symlinkSync(target.criuLog, join(target.directory, 'criu-log'));
    symlinkSync(process.execPath, join(target.directory, 'node'));
    symlinkSync(endProgram, join(target.directory, 'end-criu'));
    writeFileSync(join(target.directory, 'init-pid'), `${target.init.pid}\n`);
    writeFileSync(join(target.directory, 'init-start'), `${target.init.start}\n`);
    let answer: number | undefined;
    if (target.hook) {
      const fifo = join(target.directory, 'answer');
      mknodat(AT_FDCWD, fifo, constants.S_IFIFO | 0o600, 0n);
      // Both ways: opening does not wait for the hook, and the hook sees the end when this process dies.
      answer = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
    }
    const child = spawn(script, ['watch', target.directory, String(budget(target.budgetMs))], { detached: true, env: childEnvironment(), stdio: ['pipe', 'pipe', 'ignore'] });
    const guard = new Guard(target.directory, child, answer, target.budgetMs);
    child.unref();
    try {
      const timeout = AbortSignal.timeout(ARM_TIMEOUT_MS);
      await Promise.race([once(child.stdout, 'data', { signal: timeout }), once(child, 'exit', { signal: timeout }).then(() => Promise.reject(new Error('it ended at once')))]);
    } catch (error) {
      await guard[Symbol.asyncDispose]();
      throw new StasisError('INTERNAL', 'the guard of the freeze could not be started, so nothing was frozen', { cause: error, hint: `try ${script} by hand` });
    }
    child.stdout.destroy();
    const { pid } = child;
    guard.exposed = pid === undefined ? [] : leaveCgroups(pid, GUARD_CGROUP);
    // A guard that was killed shows as gone, not as an error of its pipe.
    child.stdin.on('error', () => undefined);
    return guard;
  }

  /** The budget begins. Nothing may be frozen before this resolves: what was written reaches the guard even if this process dies then. */
  async start(): Promise<void> {
    const { stdin } = this.#child;
    if (this.#fired || stdin === null) throw new StasisError('INTERNAL', 'the guard of the freeze has died, so nothing was frozen', { hint: 'try again' });
    await new Promise<void>((resolve, reject) => {
      stdin.write('freeze\n', (error) => (error ? reject(error) : resolve()));
    });
    this.#startedAt = performance.now();
  }

  /** Of the budget that began with start(), in ms. Then the guard acts, and nobody else may. */
  get remainingMs(): number {
    return this.#budgetMs - (this.#startedAt === undefined ? 0 : performance.now() - this.#startedAt);
  }

  /**
   * Where the tasks stand, before criu comes: the guard tells by it when criu can be ended without harm. All of it or
   * nothing: a thread that is missing there would not be looked at.
   */
  notePlaces(places: Places): void {
    const file = join(this.directory, 'places');
    writeFileSync(`${file}.part`, placesToText(places));
    renameSync(`${file}.part`, file);
  }

  /** Where the runtime's session is written down. */
  get sessionFile(): string {
    return join(this.directory, 'session');
  }

  /** True once the guard process is gone before its time: from then on only the agent can thaw. */
  get gone(): boolean {
    return this.#fired;
  }

  /**
   * Makes the decision, or throws FREEZE_BUDGET_EXCEEDED because the guard was first and the container goes on.
   * Deciding twice the same is fine.
   */
  decide(decision: 'released' | 'commit'): void {
    try {
      symlinkSync(decision, join(this.directory, 'decision'));
    } catch (error) {
      if (errnoCode(error) !== 'EEXIST') throw error;
      if (readDecision(this.directory) === decision) return;
      throw budgetExceeded();
    }
  }

  /** Whether anybody has decided. */
  get decided(): boolean {
    return readDecision(this.directory) !== undefined;
  }

  /** Whether the guard has let the container go on. */
  get fired(): boolean {
    return readDecision(this.directory) === 'thaw';
  }

  /** Wakes the post-dump hook, which then looks at the decision. */
  answerHook(): void {
    if (this.#answer === undefined) return;
    try {
      writeSync(this.#answer, '\n');
    } catch (error) {
      // Full means that it was told before.
      if (errnoCode(error) !== 'EAGAIN') throw error;
    }
  }

  /** Resolves when criu has written everything and waits in its post-dump hook. */
  async dumped({ signal }: { signal: AbortSignal }): Promise<void> {
    const marker = join(this.directory, 'dumped');
    const watcher = watch(this.directory);
    try {
      while (!existsSync(marker)) await once(watcher, 'change', { signal });
    } finally {
      watcher.close();
    }
  }

  /** Whether criu has written everything and waits in its hook, or has gone on since. */
  get isDumped(): boolean {
    return existsSync(join(this.directory, 'dumped'));
  }

  /** After a commit: the container is seen dead, the guard has nothing left to do. */
  markDone(): void {
    writeFileSync(join(this.directory, 'done'), '');
  }

  /**
   * Ends the guard's watch. It acts on its own unless a decision was made, so undecided means thaw. A guard that cannot
   * carry it out goes on trying, and its directory stays for it and for the next start of the agent.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#answer !== undefined) closeSync(this.#answer);
    this.#answer = undefined;
    if (this.#child.exitCode === null && this.#child.signalCode === null && this.#child.pid !== undefined) {
      const ended = once(this.#child, 'exit');
      this.#child.stdin?.destroy();
      const stuck = longTimer(() => this.#child.emit('stuck'), this.#budgetMs + SETTLE_MS);
      await Promise.race([ended, once(this.#child, 'stuck')]);
      stuck.clear();
      if (this.#child.exitCode === null && this.#child.signalCode === null) return;
    }
    removeGuard(this.directory);
    removeEmptyCgroups(GUARD_CGROUP);
  }
}

/** Whole milliseconds, at least one: nobody may take 0 for no limit. */
function budget(ms: number): number {
  if (!(ms > 0) || ms > LONGEST_TIMER_MS) throw new StasisError('USAGE', `a freeze budget of ${ms} ms cannot be kept`, { hint: 'give it between 1ms and 24 days' });
  return Math.ceil(ms);
}

/** At once: a directory of which half is gone, its decision first, would be taken for one that is undecided. */
export function removeGuard(directory: string): void {
  const gone = `${directory}${GONE}`;
  try {
    renameSync(directory, gone);
  } catch (error) {
    if (errnoCode(error) !== 'ENOENT') throw error;
  }
  removeTree(gone);
}

/** The guards below a directory, and what was left of those that have ended. */
export function listGuards(guards: string): string[] {
  const names = listDirectory(guards);
  for (const name of names) if (name.endsWith(GONE)) removeTree(join(guards, name));
  return names.filter((name) => !name.endsWith(GONE));
}

export function budgetExceeded(): StasisError {
  return new StasisError('FREEZE_BUDGET_EXCEEDED', 'the freeze budget ended and the guard let the container go on', {
    hint: 'raise the freeze budget, or checkpoint when the node and the store are less busy',
  });
}

/**
 * For a guard directory whose agent is dead: does, or waits for, what its guard does; once that is done, nothing.
 * Returns the decision that stands.
 */
export async function recoverGuard(script: string, directory: string): Promise<Decision | undefined> {
  await run(script, ['recover', directory], { signal: undefined, timeoutMs: 60_000 });
  return readDecision(directory);
}

/** Whether the guard found the container's own freezer open, and a cgroup above it frozen by somebody else. */
export function heldFromAbove(directory: string): boolean {
  return existsSync(join(directory, 'held'));
}
