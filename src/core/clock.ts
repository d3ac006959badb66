/** Time as an argument, so that tests can own it. The only place that asks the system for the time. */
import { setTimeout as delay } from 'node:timers/promises';

export interface Clock {
  /** Milliseconds since 1970, may jump. */
  now(): number;
  /** Milliseconds of a clock that never goes back; for durations and deadlines. */
  monotonic(): number;
  /** Rejects with the signal's reason when aborted. */
  sleep(ms: number, options: { signal: AbortSignal | undefined }): Promise<void>;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: async (ms, { signal }) => {
    await delay(ms, undefined, signal === undefined ? {} : { signal });
  },
};
