/** A limit on bytes per second, shared by whatever moves bytes in one direction. */
import type { Clock } from '../../core/clock.ts';

/** What may pass at once after a pause, as time: short enough that nobody sees a burst. */
const BURST_MS = 100;

export class Bandwidth {
  readonly #clock: Clock;
  readonly #bytesPerMs: number;
  /** When all that was let through so far has passed at the limit. */
  #freeAt = 0;

  constructor(bytesPerSecond: number, clock: Clock) {
    this.#clock = clock;
    this.#bytesPerMs = bytesPerSecond / 1000;
  }

  /** Waits until `bytes` more may pass, first come first served. */
  async take(bytes: number, { signal }: { signal: AbortSignal | undefined }): Promise<void> {
    const now = this.#clock.monotonic();
    const start = Math.max(this.#freeAt, now - BURST_MS);
    this.#freeAt = start + bytes / this.#bytesPerMs;
    if (this.#freeAt > now) await this.#clock.sleep(this.#freeAt - now, { signal });
  }
}
