/**
 * A lazy restore from the images to the last page: criu lazy-pages, its guard, and the server that feeds it. Disposing of one
 * that is not complete ends the container.
 */
import { join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import { MiB } from '../../core/units.ts';
import type { RestoreGate } from '../../host/restore-gate.ts';
import { LazyGuard, daemonHoldsSocket, readFillStatus, type FillOutcome } from '../../host/lazy-guard.ts';
import { PageSource, loadLazyImages, startLazyServer, type LazyServer, type WorkingSet } from '../../image/lazy/index.ts';
import { freezerOf } from '../../runtime/index.ts';
import type { AgentContext } from '../context.ts';
import type { RestorePlan } from './restore.ts';

export interface FillingOptions {
  readonly agent: AgentContext;
  readonly plan: RestorePlan;
  /** Images, criu's working directory (shared with the restore), and the guard's own. */
  readonly directories: { readonly images: string; readonly work: string; readonly guard: string };
  /** Faults are added to it. */
  readonly workingSet: WorkingSet;
  /** Where the restore waits until its memory is under guard. */
  readonly gate: RestoreGate;
}

/** Of one container that fills. Two thirds of it are read ahead, so it also bounds what a store of long ways is asked for at once. */
export const CACHE_BYTES = 48 * MiB;

export class Filling implements AsyncDisposable {
  readonly #options: FillingOptions;
  readonly #source: PageSource;
  readonly #server: LazyServer;
  readonly #guard: LazyGuard;
  readonly #stop: AbortController;
  /** Why the source of pages ended, when that was first. */
  #reason: unknown;
  #filled = 0;
  #faults = 0;
  #stalled = false;
  #onBytes: (count: number) => void = () => {};

  private constructor(options: FillingOptions, parts: { source: PageSource; server: LazyServer; guard: LazyGuard; stop: AbortController }) {
    this.#options = options;
    this.#source = parts.source;
    this.#server = parts.server;
    this.#guard = parts.guard;
    this.#stop = parts.stop;
  }

  /** Brings back what must be there first, then starts criu lazy-pages. Undefined when no page can come later. */
  static async open(options: FillingOptions, { signal, onBytes }: { signal: AbortSignal; onBytes: (count: number) => void }): Promise<Filling | undefined> {
    const { agent, plan, directories } = options;
    const { tasks } = await loadLazyImages(plan.reader, plan.saved.images.prefix, directories.images, options.workingSet, { signal, onBytes });
    if (tasks.length === 0) return undefined;
    const stop = new AbortController();
    let filling: Filling | undefined;
    const source = new PageSource({
      reader: plan.reader, tasks, cacheBytes: CACHE_BYTES, slots: agent.blockSlots, signal: stop.signal,
      sleep: (ms, how) => agent.clock.sleep(ms, how),
      onStall: (error) => filling?.stalled(error),
    });
    const criu = agent.toolchain.criu.version;
    const server = await startLazyServer({
      source, criu, signal: stop.signal,
      mayConnect: (inode) => daemonHoldsSocket(directories.guard, inode),
      onFault: (pid, address) => filling?.touched(pid, address),
      onBytes: (count) => filling?.served(count),
      beforeAnswer: () => agent.failpoints.hit('fill.answer', { signal: stop.signal }),
      // Nobody in the container may run when criu sees the connection end.
      beforeClose: async (error) => filling?.end(error),
    });
    try {
      const guard = await LazyGuard.start({
        script: agent.settings.scripts.lazyGuard, directory: directories.guard, signal, refuse: () => options.gate.refuse(),
        command: [
          agent.settings.criu, 'lazy-pages', '--page-server', '--address', '127.0.0.1', '--port', String(server.port), '-D', directories.images, '-W', directories.work,
          '--status-fd', '3', '-v2', '-o', join(directories.work, 'lazy-pages.log'),
        ],
      });
      filling = new Filling(options, { source, server, guard, stop });
    } catch (error) {
      stop.abort(error);
      await server[Symbol.asyncDispose]();
      throw error;
    }
    source.start();
    return filling;
  }

  get totalBytes(): number {
    return this.#source.totalBytes;
  }

  get filledBytes(): number {
    return this.#filled;
  }

  /** Pages that the program had to wait for. */
  get faults(): number {
    return this.#faults;
  }

  /** Why pages cannot be had, when that is what went wrong. */
  get reason(): StasisError | undefined {
    return this.#reason instanceof StasisError && this.#reason.code !== 'RESTORE_FAILED' ? this.#reason : undefined;
  }

  /** When all tasks are made, and before one runs, their memory is put under guard. `pid` is the container's first process. */
  async admit(pid: number): Promise<void> {
    try {
      // criu connects when it has the descriptors of all tasks.
      await this.#server.connected;
      const cgroup = freezerOf(pid);
      if (cgroup === undefined) throw new StasisError('RESTORE_FAILED', `the restored process ${pid} is in no cgroup that can be frozen`, { hint: 'restore without --lazy' });
      await this.#guard.admit(cgroup);
    } catch (error) {
      this.#guard.abort();
      throw error;
    }
  }

  /** Waits until all pages have arrived. Throws why they did not; the container is dead then. Aborting the signal ends it. */
  async complete({ signal, onBytes }: { signal: AbortSignal; onBytes: (count: number) => void }): Promise<void> {
    onBytes(this.#filled);
    this.#onBytes = onBytes;
    const onAbort = (): void => this.#guard.abort();
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      await this.#outcome(await this.#guard.ended, signal);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  async #outcome(outcome: FillOutcome, signal: AbortSignal): Promise<void> {
    if (outcome === 'complete') return;
    signal.throwIfAborted();
    const { plan, directories } = this.#options;
    const { reason } = this;
    if (reason !== undefined) throw new StasisError(reason.code, `container ${plan.id} was ended, because its memory cannot arrive: ${reason.message}`, { cause: reason, hint: reason.hint, details: reason.details });
    const status = readFillStatus(this.#guard.directory);
    throw new StasisError('RESTORE_FAILED', `container ${plan.id} was ended, because criu lazy-pages ${status === undefined ? 'or its guard was killed' : `ended with status ${status}`} before all of its memory had arrived`, {
      cause: this.#reason, hint: `restore it again; the log is ${join(directories.work, 'lazy-pages.log')}`, details: { missing: Math.max(0, this.totalBytes - this.#filled) },
    });
  }

  touched(pid: number, address: number): void {
    this.#faults += 1;
    this.#options.workingSet.touched(pid, address);
  }

  served(count: number): void {
    this.#filled += count;
    this.#stalled = false;
    this.#onBytes(count);
  }

  /** Told once, and again only after something has arrived. */
  stalled(error: StasisError): void {
    if (this.#stalled) return;
    this.#stalled = true;
    this.#options.agent.log.event('fill.stalled', { container_id: this.#options.plan.id, err: error });
  }

  async end(reason: unknown): Promise<void> {
    this.#reason ??= reason;
    this.#guard.abort();
    await this.#guard.ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#guard[Symbol.asyncDispose]();
    this.#stop.abort(new StasisError('CANCELLED', 'the restore has ended'));
    await this.#server[Symbol.asyncDispose]();
    this.#source[Symbol.dispose]();
  }
}
