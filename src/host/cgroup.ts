/** Freezing and thawing a cgroup: the v1 freezer controller and the cgroup v2 freezer. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { StasisError, asStasisError } from '../core/errors.ts';
import { cgroupProcesses, cgroupThreads } from './cgroup-walk.ts';
import { readPlaces, type Places } from './places.ts';

export interface FreezerLocation {
  readonly version: 1 | 2;
  readonly directory: string;
}

/** A vfork ends within microseconds, when the child execs; one that lasts for so many tries is somebody's design. */
const VFORK_TRIES = 50;
/** Looking at every thread of a huge container would cost more of the freeze than the rare vfork. */
const MAX_TASKS_EXAMINED = 2000;

/** A v1 freezer that meets a task in the middle of something says FREEZING: look again this often. */
const POLL_MS = 1;
const THAW_TRIES = 100;

export class Freezer {
  readonly #at: FreezerLocation;

  constructor(at: FreezerLocation) {
    this.#at = at;
  }

  get directory(): string {
    return this.#at.directory;
  }

  /** Throws CONTAINER_EXITED when the cgroup is gone. */
  frozen(): boolean {
    try {
      if (this.#at.version === 1) return readFileSync(join(this.#at.directory, 'freezer.state'), 'utf8').startsWith('FROZEN');
      return /^frozen 1$/m.test(readFileSync(join(this.#at.directory, 'cgroup.events'), 'utf8'));
    } catch (error) {
      throw this.#gone(error);
    }
  }

  /** Resolves when every task stands still. On failure the cgroup is thawed again. */
  async freeze({ signal, timeoutMs }: { signal: AbortSignal | undefined; timeoutMs: number }): Promise<void> {
    const until = performance.now() + timeoutMs;
    try {
      this.#write(true);
      while (!this.frozen()) {
        signal?.throwIfAborted();
        if (performance.now() > until) {
          throw new StasisError('DEADLINE_EXCEEDED', `the processes below ${this.#at.directory} did not freeze within ${timeoutMs} ms`, {
            hint: 'a process in uninterruptible sleep (state D) cannot be frozen: look for stuck NFS or disk I/O',
          });
        }
        await delay(POLL_MS);
        // A v1 freezer in FREEZING tries again only when told.
        if (this.#at.version === 1) this.#write(true);
      }
    } catch (error) {
      try {
        this.thaw();
      } catch {
        // Gone: nothing is left to thaw, and the first error says so.
      }
      throw error;
    }
  }

  /**
   * freeze(), and no task waits in vfork(2) for its child: such a parent does not stop for a tracer, the child stops and
   * never execs, and criu waits for both until its timeout. The wait shows as kernel_clone in /proc/TID/stack.
   * Throws NOT_CHECKPOINTABLE, thawed again, when one goes on waiting.
   */
  async freezeSettled(options: { signal: AbortSignal | undefined; timeoutMs: number }): Promise<void> {
    for (let tries = 1; ; tries++) {
      await this.freeze(options);
      const parent = this.vforkParent();
      if (parent === undefined) return;
      this.thaw();
      if (tries === VFORK_TRIES) throw vforkError(parent, 'the child must start its program, or end, first');
      await delay(POLL_MS);
    }
  }

  /** Of a frozen cgroup: a thread that waits in vfork(2). */
  vforkParent(): number | undefined {
    return this.tasks().find(waitsInVfork);
  }

  /**
   * Synchronous, so that nothing can come between the decision and the thaw. Read back, and tried again until it holds.
   * Throws INTERNAL when it does not.
   */
  thaw(): void {
    for (let tries = 1; ; tries++) {
      this.#write(false);
      if (!this.closed()) return;
      if (tries === THAW_TRIES) throw new StasisError('INTERNAL', `the freezer of ${this.#at.directory} does not open`, { hint: 'is somebody else freezing it again and again?' });
    }
  }

  /** Whether the cgroup itself is told to be frozen, whatever those above it are. Throws CONTAINER_EXITED when it is gone. */
  closed(): boolean {
    try {
      const file = this.#at.version === 1 ? 'freezer.self_freezing' : 'cgroup.freeze';
      return readFileSync(join(this.#at.directory, file), 'utf8').trim() !== '0';
    } catch (error) {
      throw this.#gone(error);
    }
  }

  /** Whether it stands still although it is not told to: a cgroup above it is frozen. Throws CONTAINER_EXITED. */
  frozenFromAbove(): boolean {
    if (this.closed()) return false;
    if (this.#at.version === 1) return this.frozen();
    // Version 2 tells "frozen 1" for a moment after its own thaw, too.
    for (let above = dirname(this.#at.directory); existsSync(join(above, 'cgroup.freeze')); above = dirname(above)) {
      if (readFileSync(join(above, 'cgroup.freeze'), 'utf8').trim() === '1') return true;
    }
    return false;
  }

  /** Host pids of the processes in this cgroup and below it. */
  pids(): number[] {
    return cgroupProcesses(this.#at.directory);
  }

  /** Where every thread of a frozen cgroup stands; undefined when there are too many, or the kernel does not tell. */
  places(): Places | undefined {
    const tasks = this.tasks();
    return tasks.length < MAX_TASKS_EXAMINED ? readPlaces(tasks) : undefined;
  }

  /** Thread ids, at most so many as are ever looked at one by one. */
  tasks(): number[] {
    return cgroupThreads(this.#at.directory, MAX_TASKS_EXAMINED);
  }

  #write(freeze: boolean): void {
    try {
      if (this.#at.version === 1) writeFileSync(join(this.#at.directory, 'freezer.state'), freeze ? 'FROZEN' : 'THAWED', { flag: 'r+' });
      else writeFileSync(join(this.#at.directory, 'cgroup.freeze'), freeze ? '1' : '0', { flag: 'r+' });
    } catch (error) {
      throw this.#gone(error);
    }
  }

  #gone(error: unknown): StasisError {
    const code = (error as { code?: string }).code;
    if (code === 'ENOENT' || code === 'ENODEV') {
      return new StasisError('CONTAINER_EXITED', `the cgroup ${this.#at.directory} is gone: the container has ended`, { cause: error });
    }
    return asStasisError(error, `cannot use the freezer of ${this.#at.directory}`);
  }
}

/** False where the kernel does not tell (CONFIG_STACKTRACE is off). */
export function vforkError(tid: number, hint: string): StasisError {
  return new StasisError('NOT_CHECKPOINTABLE', `thread ${tid} waits in vfork for its child to start a program, and criu cannot stop it there`, { hint, details: { kind: 'vfork' } });
}

export function waitsInVfork(tid: number): boolean {
  try {
    return readFileSync(`/proc/${tid}/stack`, 'utf8').includes('kernel_clone+');
  } catch {
    return false;
  }
}
