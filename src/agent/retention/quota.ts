/** The quota of the repository: what a checkpoint may need is reserved before its container is frozen. */
import type { Clock } from '../../core/clock.ts';
import { StasisError } from '../../core/errors.ts';
import { formatBytes } from '../../core/units.ts';
import type { Repository } from '../../repository/types.ts';

/** Counting every object takes a while in a large store: the figure is used again for so long, plus what was written here since. */
const FRESH_MS = 60_000;

export class Quota {
  readonly #repository: Repository;
  readonly #clock: Clock;
  readonly #bytes: number;
  readonly #reserved = new Set<{ readonly bytes: number }>();
  #counted: { bytes: number; readonly atMs: number } | undefined;

  /** `bytes`: 0 for none. */
  constructor(repository: Repository, clock: Clock, bytes: number) {
    this.#repository = repository;
    this.#clock = clock;
    this.#bytes = bytes;
  }

  /** Throws NO_SPACE. Disposing of it gives back what was not used. */
  async reserve(bytes: number, { signal }: { signal: AbortSignal }): Promise<Disposable> {
    if (this.#bytes === 0) return { [Symbol.dispose]: () => undefined };
    const mine = { bytes };
    this.#reserved.add(mine);
    const release = (): void => void this.#reserved.delete(mine);
    try {
      let used = await this.#used(false, signal);
      const others = (): number => [...this.#reserved].reduce((sum, one) => sum + (one === mine ? 0 : one.bytes), 0);
      // An old figure may only let pass, not refuse.
      if (used + others() + bytes > this.#bytes) used = await this.#used(true, signal);
      if (used + others() + bytes > this.#bytes) throw this.#full(used, others(), bytes);
      return { [Symbol.dispose]: release };
    } catch (error) {
      release();
      throw error;
    }
  }

  /** Counts with what was just written, until everything is counted again. */
  wrote(bytes: number): void {
    if (this.#counted !== undefined) this.#counted.bytes += bytes;
  }

  #full(used: number, reserved: number, needed: number): StasisError {
    return new StasisError('NO_SPACE', `the repository holds ${formatBytes(used)} of its quota of ${formatBytes(this.#bytes)}, others reserve ${formatBytes(reserved)}, and this checkpoint may need ${formatBytes(needed)}`, {
      hint: 'delete checkpoints (stasis rm, stasis repo prune) or raise repository.quota',
      details: { used, reserved, needed, quota: this.#bytes },
    });
  }

  async #used(anew: boolean, signal: AbortSignal): Promise<number> {
    const now = this.#clock.monotonic();
    if (anew || this.#counted === undefined || now - this.#counted.atMs > FRESH_MS) {
      this.#counted = { bytes: await this.#repository.maintenance.usedBytes({ signal }), atMs: now };
    }
    return this.#counted.bytes;
  }
}
