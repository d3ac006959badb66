/** Several at once, answers in the order of the questions: for work that waits for a store more than it computes. */
export async function* ordered<T, R>(source: Iterable<T> | AsyncIterable<T>, parallel: number, work: (item: T) => Promise<R>): AsyncGenerator<R> {
  const running: Promise<R>[] = [];
  try {
    for await (const item of source) {
      const one = work(item);
      // Looked at in its turn; until then it is nobody's unhandled rejection.
      one.catch(() => undefined);
      running.push(one);
      if (running.length >= parallel) yield await (running.shift() as Promise<R>);
    }
    while (running.length > 0) yield await (running.shift() as Promise<R>);
  } finally {
    await Promise.allSettled(running);
  }
}
