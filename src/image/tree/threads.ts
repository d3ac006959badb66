/** Threads for trees: one waits ready, because starting one takes 30 ms, a large part of a small checkpoint. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

export class TreeThreads {
  #spare: Worker | undefined;
  #closed = false;

  /** Starts the spare thread. Without it, take() starts one when it is needed. */
  prepare(): void {
    if (!this.#closed) this.#spare ??= startThread();
  }

  /** When it has ended, another spare is started if there was one before. */
  take(): Worker {
    const spare = this.#spare;
    this.#spare = undefined;
    if (spare === undefined) return startThread();
    spare.once('exit', () => this.prepare());
    return spare;
  }

  /** The spare ends by itself: one that is terminated while it loads its libraries can take the process with it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    const spare = this.#spare;
    if (spare === undefined) return;
    const ended = once(spare, 'exit');
    spare.postMessage({ role: 'none' });
    await ended;
  }
}

function startThread(): Worker {
  const thread = new Worker(new URL('worker.js', import.meta.url), {
    name: 'stasis-tree',
    // Descriptors are shared with the other threads on purpose, and closed by whoever opened them.
    trackUnmanagedFds: false,
    // Most of what a walk makes is garbage at once: a larger nursery only takes memory (50 MiB measured).
    resourceLimits: { maxYoungGenerationSizeMb: 8 },
  });
  thread.unref();
  return thread;
}
