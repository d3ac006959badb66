/** From who makes to who takes, a few at a time: the maker waits while the taker has not come. */
interface Waiting {
  readonly resolve: () => void;
}

export class Handover<T> implements AsyncIterable<T> {
  readonly #room: number;
  readonly #queue: T[] = [];
  #ended = false;
  #taker: Waiting | undefined;
  #maker: Waiting | undefined;

  /** `room`: how many may wait. */
  constructor(room: number) {
    this.#room = room;
  }

  /** For one maker. */
  async put(value: T, { signal }: { signal: AbortSignal }): Promise<void> {
    while (this.#queue.length >= this.#room) {
      signal.throwIfAborted();
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#maker = { resolve };
      const wake = (): void => resolve();
      signal.addEventListener('abort', wake, { once: true });
      await promise;
      signal.removeEventListener('abort', wake);
    }
    this.#queue.push(value);
    this.#taker?.resolve();
  }

  /** The taker gets what is left, then its end. */
  end(): void {
    this.#ended = true;
    this.#taker?.resolve();
  }

  /** For one taker. */
  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      const value = this.#queue.shift();
      this.#maker?.resolve();
      if (value !== undefined) yield value;
      else if (this.#ended) return;
      else {
        const { promise, resolve } = Promise.withResolvers<void>();
        this.#taker = { resolve };
        await promise;
      }
    }
  }
}
