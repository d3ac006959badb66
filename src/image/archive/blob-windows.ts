/**
 * Reads blobs of a checkpoint from beginning to end in windows, a few of them ahead: sealed chunks are opened by the
 * workers meanwhile, and no more than a few windows are in memory. Nearby small ranges come out of the same window.
 */
import { MiB } from '../../core/units.ts';
import type { CheckpointReader } from '../../repository/types.ts';

const WINDOW_BYTES = 4 * MiB;
/** Windows that are fetched or kept: the one that is read, and those ahead of it. */
const WINDOWS = 5;
const AHEAD = 3;

export class BlobWindows {
  readonly #reader: CheckpointReader;
  readonly #blob: string;
  readonly #length: number;
  readonly #signal: AbortSignal | undefined;
  readonly #windows = new Map<number, Promise<Buffer>>();

  constructor(reader: CheckpointReader, blob: string, signal: AbortSignal | undefined) {
    this.#reader = reader;
    this.#blob = blob;
    this.#length = reader.blobs.get(blob) ?? 0;
    this.#signal = signal;
  }

  /** Views of the windows: used before the next is asked for, or copied. */
  async *read(offset: number, length: number): AsyncGenerator<Buffer> {
    for (let at = offset; at < offset + length; ) {
      const number = Math.floor(at / WINDOW_BYTES);
      const window = await this.#window(number);
      const from = at - number * WINDOW_BYTES;
      const part = window.subarray(from, Math.min(window.length, from + offset + length - at));
      at += part.length;
      yield part;
    }
  }

  #window(number: number): Promise<Buffer> {
    const last = Math.min(number + AHEAD, Math.floor((this.#length - 1) / WINDOW_BYTES));
    for (let i = number; i <= last; i++) if (!this.#windows.has(i)) this.#windows.set(i, this.#fetch(i));
    for (const old of this.#windows.keys()) {
      if (this.#windows.size <= WINDOWS) break;
      if (old !== number) this.#windows.delete(old);
    }
    return this.#windows.get(number) ?? this.#fetch(number);
  }

  #fetch(number: number): Promise<Buffer> {
    const offset = number * WINDOW_BYTES;
    const length = Math.min(WINDOW_BYTES, this.#length - offset);
    const buffer = new SharedArrayBuffer(length);
    const fetched = this.#reader
      .extract([{ blob: this.#blob, offset, length, sink: (segment) => ({ kind: 'memory', buffer, offset: segment.offset - offset }) }], { signal: this.#signal })
      .then(() => Buffer.from(buffer));
    // Who leaves early does not wait for what is ahead.
    fetched.catch(() => undefined);
    return fetched;
  }
}
