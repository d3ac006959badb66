/**
 * A container between freeze and thaw (or death), under guard. Whatever goes wrong, disposing of it without a decision
 * leaves the rest to the guard: criu may end by itself, then the container is thawed and goes on.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { invariant } from '../../core/assert.ts';
import type { Clock } from '../../core/clock.ts';
import { StasisError, isStasisError } from '../../core/errors.ts';
import { Freezer, vforkError } from '../../host/cgroup.ts';
import { Guard, budgetExceeded, heldFromAbove, recoverGuard } from '../../host/guard.ts';
import { areUntraced, criuPids, endWhileHarmless, waitsToAttach } from '../../host/criu-end.ts';
import { areAtHome, type Places } from '../../host/places.ts';
import { processAlive, processRuns, readStatus } from '../../host/proc.ts';
import { killSession, runsCriu } from '../../host/session.ts';
import { makeStopsKnown } from '../../host/stop-signals.ts';
import { SetAside, isStopped, stoppedOf } from '../../host/stopped-tasks.ts';
import type { Container } from '../../runtime/types.ts';
import type { Logger } from '../../telemetry/logger.ts';

export interface FrozenOptions {
  readonly container: Container;
  readonly guardScript: string;
  readonly guardDirectory: string;
  readonly criuLog: string | undefined;
  /** How the container dies after the commit: criu waits in its hook until then, or the agent does it; undefined: it goes on. */
  readonly stop: 'hook' | 'kill' | undefined;
  readonly budgetMs: number;
  readonly clock: Clock;
  readonly log: Logger;
}

/** The freezer itself must act within this long; a container with a stuck task is left alone. */
const FREEZE_TIMEOUT_MS = 5000;
/** A process that is stopped or goes on at the very moment of the freeze is rare. */
const STOPPED_TRIES = 20;
const ATTACH_POLL_MS = 2;
/** After a commit criu has this long to kill and collect the tasks before the guard would. */
const DEATH_TIMEOUT_MS = 20_000;
/** After a cancel: a good moment for criu to die is looked for so long. */
const END_PATIENCE_MS = 5000;
const ROUND_POLL_MS = 10;
/**
 * The agent leaves criu alone so long before the guard takes it up: two who stop it and let it go on would mislead each
 * other.
 */
const HAND_OVER_MS = 100;

export class FrozenContainer implements AsyncDisposable {
  readonly #options: FrozenOptions;
  readonly #freezer: Freezer;
  readonly #guard: Guard;
  readonly #wasPaused: boolean;
  #frozenAt: number | undefined;
  #frozenMs = 0;
  #places: Places | undefined;
  readonly #freezerVersion: 1 | 2;
  readonly #aside: SetAside;
  #disposed = false;

  private constructor(options: FrozenOptions, freezer: Freezer, guard: Guard, wasPaused: boolean) {
    this.#options = options;
    this.#freezer = freezer;
    this.#guard = guard;
    this.#wasPaused = wasPaused;
    this.#freezerVersion = options.container.freezer?.version ?? 1;
    this.#aside = new SetAside(freezer.directory);
  }

  /** Starts the guard. Nothing is frozen, and the budget has not begun. */
  static async arm(options: FrozenOptions): Promise<FrozenContainer> {
    const { container } = options;
    if (container.freezer === undefined) {
      throw new StasisError('NOT_CHECKPOINTABLE', `no freezer cgroup of container ${container.id} was found`, { hint: 'give the container a cgroup of its own (linux.cgroupsPath)' });
    }
    const freezer = new Freezer(container.freezer);
    const wasPaused = freezer.frozen();
    const guard = await Guard.arm(options.guardScript, {
      directory: options.guardDirectory, hook: options.stop === 'hook', budgetMs: options.budgetMs, criuLog: options.criuLog,
      init: { pid: container.pid, start: container.pidStart },
      freezer: wasPaused ? undefined : freezer.directory,
    });
    if (guard.exposed.length > 0) options.log.event('guard.exposed', { container_id: container.id, hierarchies: guard.exposed });
    return new FrozenContainer(options, freezer, guard, wasPaused);
  }

  /** Host pids of the container's processes. */
  pids(): number[] {
    return this.#freezer.pids();
  }

  /**
   * Around something that freezes the container by itself for a moment, and lets it go on. Instead of freeze(). At an
   * abort that is ended as soon as no task is in its hands, and the signal's reason is thrown.
   */
  async guarded<T>(body: () => Promise<T>, { signal }: { readonly signal: AbortSignal }): Promise<T> {
    signal.throwIfAborted();
    await this.#guard.start();
    const over = new AbortController();
    let ending: Promise<void> | undefined;
    const end = (): void => {
      ending = this.#endRound(over.signal);
    };
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
    try {
      return await body();
    } catch (error) {
      // Whoever died may have left it frozen.
      if (!this.#wasPaused && processAlive(this.#options.container.pid, this.#options.container.pidStart)) this.#freezer.thaw();
      throw signal.aborted ? signal.reason : error;
    } finally {
      signal.removeEventListener('abort', end);
      over.abort();
      await ending;
      if (!this.#guard.fired) this.#guard.decide('released');
    }
  }

  /** Again and again: the session may not have begun yet. */
  async #endRound(over: AbortSignal): Promise<void> {
    for (let waited = 0; waited < END_PATIENCE_MS && !over.aborted && this.#patienceMs() > 0; waited += ROUND_POLL_MS) {
      await endWhileHarmless(
        this.#guard.sessionFile, () => areUntraced(this.#freezer.pids()),
        { patienceMs: this.#patienceMs(), glance: true },
      );
      await delay(ROUND_POLL_MS);
    }
  }

  async freeze(signal: AbortSignal): Promise<void> {
    if (!this.#wasPaused) await makeStopsKnown(stoppedOf(this.#freezer.pids()), signal);
    await this.#guard.start();
    this.#frozenAt = this.#options.clock.monotonic();
    if (!this.#wasPaused) {
      await this.#freezeAside({ signal, timeoutMs: Math.min(FREEZE_TIMEOUT_MS, this.#options.budgetMs) });
      this.#notePlaces();
      return;
    }
    this.#notePlaces();
    if (this.#freezerVersion === 1 && this.#freezer.tasks().some(isStopped)) throw stoppedWhilePaused();
    const parent = this.#freezer.vforkParent();
    if (parent !== undefined) throw vforkError(parent, 'the container was paused at that instant: let it go on for a moment and pause it again');
  }

  #notePlaces(): void {
    this.#places = this.#freezer.places();
    if (this.#places !== undefined) this.#guard.notePlaces(this.#places);
  }

  /** Frozen, and on version 1 every stopped process set aside: one may be stopped, or go on, while the freezer closes. */
  async #freezeAside(options: { signal: AbortSignal; timeoutMs: number }): Promise<void> {
    if (this.#freezerVersion === 2) {
      await this.#freezer.freezeSettled(options);
      return;
    }
    for (let tries = 1; ; tries++) {
      this.#aside.take(stoppedOf(this.#freezer.pids()));
      await this.#freezer.freezeSettled(options);
      if (this.#aside.isRight(this.#freezer.tasks())) return;
      this.#freezer.thaw();
      this.#aside.putBack();
      if (tries === STOPPED_TRIES) throw new StasisError('NOT_CHECKPOINTABLE', 'processes of the container are stopped and go on again all the time', { hint: 'try again when nobody sends them SIGSTOP and SIGCONT' });
    }
  }

  /** Lets criu, and with it a stopped process, over the point at which they wait for each other (host/stopped-tasks.ts). */
  #helpAttach(): Disposable {
    if (this.#aside.isEmpty) return { [Symbol.dispose]: () => undefined };
    const timer = setInterval(() => {
      if (!criuPids(this.#guard.sessionFile).some(waitsToAttach) || !this.#aside.othersTraced(this.#freezer.pids())) return;
      clearInterval(timer);
      this.#freezer.thaw();
    }, ATTACH_POLL_MS);
    return { [Symbol.dispose]: () => clearInterval(timer) };
  }

  /**
   * Stop mode: resolves when all images are written and criu waits in its hook, with `dump` still running.
   * Otherwise: resolves when the dump has ended.
   */
  async imagesWritten(dump: Promise<unknown>, signal: AbortSignal): Promise<void> {
    using _help = this.#helpAttach();
    if (this.#options.stop !== 'hook') {
      await orAborted(dump, signal);
      return;
    }
    const ended = dump.then(() => {
      throw new StasisError('DUMP_FAILED', 'the runtime ended without waiting for the commit', { hint: 'is /opt readable for criu? its post-dump hook was not run' });
    });
    await Promise.race([this.#guard.dumped({ signal }), ended]);
  }

  /** Ends runtime and criu. Only for a container that is dead: a living one might die of it. */
  endRuntime(): Promise<void> {
    return killSession(this.#guard.sessionFile);
  }

  /** Whether the guard has let it go. */
  get overdue(): boolean {
    return this.#guard.fired;
  }

  /** Why the container is not held any more although nobody let it go. */
  lost(): StasisError {
    if (this.overdue) return budgetExceeded();
    const { id } = this.#options.container;
    return new StasisError('DUMP_FAILED', `criu or the runtime ended before the commit, and container ${id} goes on`, { hint: 'was it killed by somebody, or for want of memory? try again' });
  }

  /** The container goes on. Throws FREEZE_BUDGET_EXCEEDED when the guard let it go before, so that the dump is not of one instant. */
  thaw(): void {
    invariant(this.#frozenAt !== undefined, 'thaw before freeze');
    if (!this.#wasPaused) this.#freezer.thaw();
    this.#aside.putBack();
    this.#frozenMs = this.#options.clock.monotonic() - this.#frozenAt;
    this.#guard.decide('released');
  }

  /**
   * Stop mode, after the manifest is durable: the container shall die. Throws FREEZE_BUDGET_EXCEEDED, or DUMP_FAILED
   * when nobody holds the container any more, so that it has gone on beyond its images.
   */
  decide(): void {
    invariant(this.#frozenAt !== undefined && this.#options.stop !== undefined, 'commit without freeze');
    if (this.#options.stop === 'hook') this.#requireHeld();
    this.#guard.decide('commit');
  }

  /** After decide(): criu kills the tasks, and the runtime removes the container. If they stumble, it is done for them. */
  async kill(dump: Promise<unknown>): Promise<void> {
    invariant(this.#frozenAt !== undefined, 'kill before freeze');
    if (this.#options.stop === 'hook') this.#guard.answerHook();
    else this.#killAll();
    this.#frozenMs = this.#options.clock.monotonic() - this.#frozenAt;
    await Promise.race([dump.catch(() => undefined), this.#options.clock.sleep(DEATH_TIMEOUT_MS, { signal: undefined })]);
    const { pid, pidStart } = this.#options.container;
    if (processAlive(pid, pidStart)) this.#killAll();
    for (let waited = 0; processAlive(pid, pidStart) && waited < DEATH_TIMEOUT_MS; waited += 20) {
      await this.#options.clock.sleep(20, { signal: undefined });
    }
    if (!processAlive(pid, pidStart)) this.#guard.markDone();
  }

  /**
   * criu traces every task from before its images to their end; a criu that was killed has let them go. A container
   * that was killed under its hands has not run since: its checkpoint is all that is left of it.
   */
  #requireHeld(): void {
    const { pid, pidStart } = this.#options.container;
    const traced = readStatus(pid)?.get('TracerPid') !== '0';
    if (!runsCriu(this.#guard.sessionFile) || (processRuns(pid, pidStart) && !traced)) throw this.lost();
  }

  /** A frozen task takes even SIGKILL only when it is thawed, and then before anything else. */
  #killAll(): void {
    for (const pid of this.#freezer.pids()) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It ended with the one before it: the first process takes its pid namespace along.
      }
    }
    this.#freezer.thaw();
  }

  /** From the freeze to the thaw or the commit; until now while it lasts. */
  get frozenMs(): number {
    if (this.#frozenMs > 0 || this.#frozenAt === undefined) return this.#frozenMs;
    return this.#options.clock.monotonic() - this.#frozenAt;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.#endDump();
    if (!this.#guard.decided) this.#aside.putBack();
    // A guard that somebody killed cannot act any more.
    if (this.#guard.gone) await recoverGuard(this.#options.guardScript, this.#guard.directory);
    const held = heldFromAbove(this.#guard.directory);
    await this.#guard[Symbol.asyncDispose]();
    if (!this.#wasPaused && this.#frozenAt !== undefined) this.#requireThawed(held);
  }

  /**
   * The container goes on at once, whatever criu is doing: that is ended, as soon as its tasks are safe from it. A criu that waits in
   * its hook ends by itself when the guard wakes it. Where nothing can be proved the guard waits for criu, as long as the budget lasts.
   */
  async #endDump(): Promise<void> {
    const places = this.#places;
    const patienceMs = this.#patienceMs();
    if (this.#guard.decided || places === undefined || this.#guard.isDumped || patienceMs <= 0) return;
    await endWhileHarmless(this.#guard.sessionFile, () => areAtHome(places), { patienceMs });
  }

  #patienceMs(): number {
    return Math.min(END_PATIENCE_MS, this.#guard.remainingMs - HAND_OVER_MS);
  }

  /** Whoever thawed it: the kernel is asked, and has the last word. */
  #requireThawed(held: boolean): void {
    const { container, log } = this.#options;
    const { pid, pidStart, id } = container;
    try {
      if (this.#freezer.closed() && processAlive(pid, pidStart)) this.#freezer.thaw();
      if (held || this.#freezer.frozenFromAbove()) log.event('container.held', { container_id: id, cgroup: this.#freezer.directory });
    } catch (error) {
      if (!isStasisError(error, 'CONTAINER_EXITED')) log.event('container.frozen', { container_id: id, cgroup: this.#freezer.directory, err: error });
    }
  }
}

/** The work goes on when the signal comes first. */
function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = (): void => reject(signal.reason as Error);
  if (signal.aborted) abort();
  signal.addEventListener('abort', abort, { once: true });
  return Promise.race([work, promise]).finally(() => signal.removeEventListener('abort', abort));
}

function stoppedWhilePaused(): StasisError {
  return new StasisError('NOT_CHECKPOINTABLE', 'the container is paused and a signal has stopped a process in it, so criu could not attach to that', {
    hint: 'resume the container; a stopped process is no obstacle then', details: { kind: 'stopped' },
  });
}
