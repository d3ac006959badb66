/** Tries again what a store could not do for now: full jitter, inside a time budget and the caller's signal. */
import type { Clock } from '../../core/clock.ts';
import { isStasisError, StasisError } from '../../core/errors.ts';
import { formatDuration } from '../../core/units.ts';

export interface RetryPolicy {
  readonly clock: Clock;
  /** How long to go on after the first failure, milliseconds. */
  readonly budgetMs: number;
  /** Most that is waited after the first failure; doubles with each. */
  readonly firstMs: number;
  readonly mostMs: number;
}

/**
 * Runs `attempt` until it succeeds, or fails with anything but STORE_UNAVAILABLE, or the budget is used up.
 * Waits a random time between 0 and the bound: many nodes that failed together must not come back together.
 */
export async function withRetries<T>(policy: RetryPolicy, signal: AbortSignal | undefined, attempt: (count: number) => Promise<T>): Promise<T> {
  const { clock, budgetMs, firstMs, mostMs } = policy;
  let firstFailure: number | undefined;
  for (let count = 0; ; count += 1) {
    signal?.throwIfAborted();
    try {
      return await attempt(count);
    } catch (error) {
      signal?.throwIfAborted();
      if (!isStasisError(error, 'STORE_UNAVAILABLE')) throw error;
      firstFailure ??= clock.monotonic();
      const spentMs = clock.monotonic() - firstFailure;
      const pauseMs = Math.random() * Math.min(mostMs, firstMs * 2 ** Math.min(count, 20));
      if (spentMs + pauseMs > budgetMs) throw exhausted(error, count + 1, spentMs);
      await pause(clock, pauseMs, signal);
    }
  }
}

async function pause(clock: Clock, ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await clock.sleep(ms, { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

function exhausted(last: StasisError, attempts: number, spentMs: number): StasisError {
  return new StasisError('STORE_UNAVAILABLE', `${last.message} (${attempts} attempts in ${formatDuration(spentMs)})`, { cause: last, hint: last.hint, details: { ...last.details, attempts } });
}
