/** A counting semaphore: the bound on whatever runs or lies in memory at the same time. */
import { invariant } from './assert.ts';

export class Semaphore {
  #free: number;
  readonly #waiting: { count: number; grant: () => void }[] = [];
  readonly limit: number;

  constructor(limit: number) {
    invariant(limit > 0, 'a semaphore needs a positive limit');
    this.limit = limit;
    this.#free = limit;
  }

  /** How many wait. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Waits, first come first served, until `count` credits are free. A count above the limit waits for all. */
  async acquire(count: number, { signal }: { signal: AbortSignal | undefined }): Promise<Disposable> {
    const wanted = Math.min(count, this.limit);
    signal?.throwIfAborted();
    if (this.#waiting.length > 0 || this.#free < wanted) await this.#queue(wanted, signal);
    else this.#free -= wanted;
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        this.#free += wanted;
        this.#serve();
      },
    };
  }

  #queue(count: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const entry = {
        count,
        grant: () => {
          signal?.removeEventListener('abort', onAbort);
          resolve();
        },
      };
      const onAbort = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(entry), 1);
        reject(signal?.reason as Error);
        this.#serve();
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiting.push(entry);
    });
  }

  #serve(): void {
    for (let next = this.#waiting[0]; next !== undefined && next.count <= this.#free; next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#free -= next.count;
      next.grant();
    }
  }
}
