/**
 * The pack buffers: a fixed number, reused, lent to workers (to fill) and to reads (to fetch into).
 * They are nearly all of the memory that the repository takes, and this is where it is bounded. Shared memory: V8 counts what
 * is handed from thread to thread as garbage, and would look for garbage all the time. Who was lent one is its only user.
 */
export class BufferPool {
  readonly bufferBytes: number;
  readonly #most: number;
  /** Called when somebody waits and every buffer lies, partly filled, in a worker. */
  readonly #onStarved: () => void;
  readonly #free: SharedArrayBuffer[] = [];
  readonly #waiting: { give: (buffer: SharedArrayBuffer) => void }[] = [];
  #made = 0;
  #inWorkers = 0;

  constructor(bufferBytes: number, most: number, onStarved: () => void) {
    this.bufferBytes = bufferBytes;
    this.#most = most;
    this.#onStarved = onStarved;
  }

  /** Bytes allocated, free or lent. */
  get bytes(): number {
    return this.#made * this.bufferBytes;
  }

  acquire({ signal }: { signal: AbortSignal | undefined }): Promise<SharedArrayBuffer> {
    signal?.throwIfAborted();
    const free = this.#free.pop();
    if (free !== undefined) return Promise.resolve(free);
    if (this.#made < this.#most) {
      this.#made += 1;
      return Promise.resolve(new SharedArrayBuffer(this.bufferBytes));
    }
    const turn = new Promise<SharedArrayBuffer>((resolve, reject) => {
      const entry = {
        give: (buffer: SharedArrayBuffer) => {
          signal?.removeEventListener('abort', onAbort);
          resolve(buffer);
        },
      };
      const onAbort = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(entry), 1);
        reject(signal?.reason as Error);
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiting.push(entry);
    });
    this.#checkStarved();
    return turn;
  }

  release(buffer: SharedArrayBuffer): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free.push(buffer);
    else next.give(buffer);
  }

  /** A lent buffer went to a worker that fills it in its own time. */
  toWorker(): void {
    this.#inWorkers += 1;
    this.#checkStarved();
  }

  fromWorker(): void {
    this.#inWorkers -= 1;
  }

  /** A worker died with this many of ours. */
  lose(count: number): void {
    this.#made -= count;
    for (let i = 0; i < count && this.#waiting.length > 0; i += 1) {
      this.#made += 1;
      this.release(new SharedArrayBuffer(this.bufferBytes));
    }
  }

  #checkStarved(): void {
    if (this.#waiting.length > 0 && this.#inWorkers === this.#most) this.#onStarved();
  }
}
