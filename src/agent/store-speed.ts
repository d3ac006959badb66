/** How fast the store gives, measured by what is read from it anyway. */
import type { Clock } from '../core/clock.ts';
import { KiB } from '../core/units.ts';
import type { ClosableStore } from '../repository/index.ts';

/** Shorter answers tell how late a store is, not how fast. */
const LEAST_BYTES = 64 * KiB;
/** After so much reading what was measured before counts half. */
const HALF_MS = 5000;
/** What was measured longer ago says nothing. */
const FORGET_MS = 600_000;

export class StoreSpeed {
  readonly #clock: Clock;
  /** Bytes that came, in how much time with at least one read under way. */
  #bytes = 0;
  #ms = 0;
  #reading = 0;
  #since = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Undefined when nothing was read for long. */
  get bytesPerSecond(): number | undefined {
    if (this.#clock.monotonic() - this.#since > FORGET_MS) [this.#bytes, this.#ms] = [0, 0];
    return this.#ms === 0 ? undefined : (this.#bytes * 1000) / this.#ms;
  }

  /** The store, whose reads are measured from now on. */
  watch(store: ClosableStore): ClosableStore {
    return {
      description: store.description,
      put: (name, parts, options) => store.put(name, parts, options),
      get: (name, range, options) => ((range?.length ?? 0) < LEAST_BYTES ? store.get(name, range, options) : this.#measure(() => store.get(name, range, options))),
      head: (name, options) => store.head(name, options),
      list: (prefix, options) => store.list(prefix, options),
      delete: (name, options) => store.delete(name, options),
      freeBytes: () => store.freeBytes(),
      close: () => store.close(),
    };
  }

  /** One that fails took its time, too. */
  async #measure(read: () => Promise<Uint8Array>): Promise<Uint8Array> {
    this.#pass();
    this.#reading += 1;
    try {
      const bytes = await read();
      this.#bytes += bytes.length;
      return bytes;
    } finally {
      this.#pass();
      this.#reading -= 1;
    }
  }

  #pass(): void {
    const now = this.#clock.monotonic();
    if (now - this.#since > FORGET_MS) [this.#bytes, this.#ms] = [0, 0];
    if (this.#reading > 0) this.#ms += now - this.#since;
    this.#since = now;
    if (this.#ms > 2 * HALF_MS) [this.#bytes, this.#ms] = [this.#bytes / 2, this.#ms / 2];
  }
}
