/** Something that is read again when it may have changed, and kept when it cannot be read. */
import type { Clock } from '../../core/clock.ts';
import { asStasisError } from '../../core/errors.ts';
import type { StasisError } from '../../core/errors.ts';

export interface RefreshOptions {
  readonly clock: Clock;
  /** How old what was read may be. */
  readonly everyMs: number;
  /** What was read before goes on; told once until it can be read again. */
  readonly onProblem: (error: StasisError) => void;
}

export class Refreshing<T> {
  readonly #read: () => Promise<T>;
  readonly #options: RefreshOptions;
  #value: T;
  #atMs: number;
  #reading: Promise<T> | undefined;
  #failing = false;

  private constructor(first: T, read: () => Promise<T>, options: RefreshOptions) {
    this.#value = first;
    this.#read = read;
    this.#options = options;
    this.#atMs = options.clock.monotonic();
  }

  /** The first reading must succeed. */
  static async start<T>(read: () => Promise<T>, options: RefreshOptions): Promise<Refreshing<T>> {
    return new Refreshing(await read(), read, options);
  }

  get(): Promise<T> {
    if (this.#options.clock.monotonic() - this.#atMs < this.#options.everyMs) return Promise.resolve(this.#value);
    this.#reading ??= this.#again().finally(() => { this.#reading = undefined; });
    return this.#reading;
  }

  async #again(): Promise<T> {
    try {
      this.#value = await this.#read();
      this.#failing = false;
    } catch (error) {
      if (!this.#failing) this.#options.onProblem(asStasisError(error, 'the keys cannot be read again'));
      this.#failing = true;
    }
    this.#atMs = this.#options.clock.monotonic();
    return this.#value;
  }
}
