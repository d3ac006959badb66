/** Time as an argument, so that tests can own it. The only place that asks the system for the time. */
import { setTimeout as delay } from 'node:timers/promises';

export interface Clock {
  /** Milliseconds since 1970, may jump. */
  now(): number;
  /** Milliseconds of a clock that never goes back; for durations and deadlines. */
  monotonic(): number;
  /** Rejects with the signal's reason when aborted. At most LONGEST_TIMER_MS. */
  sleep(ms: number, options: { signal: AbortSignal | undefined }): Promise<void>;
}

/** Timers count in 32 bits of milliseconds: setTimeout takes anything longer for one millisecond. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

export interface LongTimer {
  clear(): void;
  /** The process may end before it. */
  unref(): LongTimer;
}

/** setTimeout for any number of milliseconds, Infinity included, which never comes. */
export function longTimer(act: () => void, ms: number): LongTimer {
  if (Number.isNaN(ms)) throw new RangeError('a timer of NaN milliseconds');
  let timer: NodeJS.Timeout;
  let referenced = true;
  const wait = (leftMs: number): void => {
    timer = setTimeout(() => (leftMs > LONGEST_TIMER_MS ? wait(leftMs - LONGEST_TIMER_MS) : act()), Math.max(0, Math.min(leftMs, LONGEST_TIMER_MS)));
    if (!referenced) timer.unref();
  };
  wait(ms);
  const handle: LongTimer = {
    clear: () => clearTimeout(timer),
    unref: () => {
      referenced = false;
      timer.unref();
      return handle;
    },
  };
  return handle;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: async (ms, { signal }) => {
    await delay(Math.min(ms, LONGEST_TIMER_MS), undefined, signal === undefined ? {} : { signal });
  },
};
