/** A queue with one reader that waits. Unbounded by itself: what is queued here lies in staging memory, and that is bounded. */
export class Channel<T> implements AsyncIterable<T> {
  readonly #items: T[] = [];
  #end: { readonly error: Error | undefined } | undefined;
  #wake: (() => void) | undefined;

  push(item: T): void {
    this.#items.push(item);
    this.#wake?.();
  }

  /** The reader gets what is queued, then the end. */
  end(): void {
    this.#end ??= { error: undefined };
    this.#wake?.();
  }

  /** The reader gets the error at once. */
  fail(error: Error): void {
    this.#items.length = 0;
    this.#end = { error };
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      while (this.#items.length > 0) yield this.#items.shift() as T;
      if (this.#end?.error !== undefined) throw this.#end.error;
      if (this.#end !== undefined) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
  }
}
