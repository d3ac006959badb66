/**
 * Threads for trees. Starting one takes 30 ms, a large part of a small checkpoint, so those of small trees are kept for
 * the next.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

/** The root file system and one volume. */
const DEFAULT_SPARES = 2;

export class TreeThreads {
  readonly #spares: Worker[] = [];
  #most: number;

  constructor({ spares = DEFAULT_SPARES }: { spares?: number } = {}) {
    this.#most = spares;
  }

  take(): Worker {
    return this.#spares.pop() ?? startThread();
  }

  /** A thread that waits for its next setup; true: it is kept, otherwise it ends. */
  give(thread: Worker): boolean {
    const kept = this.#spares.length < this.#most;
    if (kept) this.#spares.push(thread);
    else thread.postMessage({ role: 'none' });
    return kept;
  }

  /** Spares end by themselves: one that is terminated while it loads its libraries can take the process with it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#most = 0;
    const ended = this.#spares.map((thread) => once(thread, 'exit'));
    for (const thread of this.#spares.splice(0)) thread.postMessage({ role: 'none' });
    await Promise.all(ended);
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
