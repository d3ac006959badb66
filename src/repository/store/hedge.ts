/** Asks a second time when the first answer is late. The first that comes wins, the other is cut off. */
import type { Clock } from '../../core/clock.ts';

/** Second requests per request, at most, so that a store that is slow for all is not asked twice as much. */
const SHARE = 0.1;
const SAVED_UP = 8;

export class Hedge {
  readonly #clock: Clock;
  #credit = SAVED_UP / 2;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `attempt` is told whether it is the second one; it must leave no trace when its signal is aborted. */
  async run<T>(delayMs: number, signal: AbortSignal | undefined, attempt: (second: boolean, signal: AbortSignal) => Promise<T>): Promise<T> {
    this.#credit = Math.min(SAVED_UP, this.#credit + SHARE);
    const losers = [new AbortController(), new AbortController()] as const;
    const signalOf = (which: 0 | 1): AbortSignal => (signal === undefined ? losers[which].signal : AbortSignal.any([signal, losers[which].signal]));
    const first = attempt(false, signalOf(0));
    try {
      if (!(await this.#isLate(first, delayMs)) || signal?.aborted === true || this.#credit < 1) return await first;
      this.#credit -= 1;
      return await Promise.any([first, attempt(true, signalOf(1))]);
    } catch (error) {
      signal?.throwIfAborted();
      throw error instanceof AggregateError ? error.errors[0] : error;
    } finally {
      for (const loser of losers) loser.abort(new Error('the other request was faster'));
    }
  }

  async #isLate(first: Promise<unknown>, delayMs: number): Promise<boolean> {
    const answered = new AbortController();
    const settled = first.then(() => false, () => false);
    const late = this.#clock.sleep(delayMs, { signal: answered.signal }).then(() => true, () => false);
    try {
      return await Promise.race([settled, late]);
    } finally {
      answered.abort();
    }
  }
}
