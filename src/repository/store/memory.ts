/** A store in memory, for tests and for trying things. Keeps the contract of the port to the letter. */
import { StasisError } from '../../core/errors.ts';
import { isObjectName } from '../format/names.ts';
import { missing, sliceExactly } from './errors.ts';
import type { ObjectInfo, Store } from './store.ts';

export class MemoryStore implements Store {
  readonly description = 'memory';
  readonly objects: Map<string, Buffer> = new Map<string, Buffer>();
  readonly #modified = new Map<string, number>();
  readonly #now: () => number;

  /** `now`: the store's own clock, which stamps the objects. */
  constructor(now: () => number = () => 0) {
    this.#now = now;
  }

  put(name: string, parts: readonly Uint8Array[], { signal }: { signal: AbortSignal | undefined }): Promise<void> {
    return this.#run(name, signal, () => {
      this.objects.set(name, Buffer.concat(parts));
      this.#modified.set(name, this.#now());
    });
  }

  get(name: string, range: { offset: number; length: number } | undefined, { signal, into }: { signal: AbortSignal | undefined; into?: Uint8Array }): Promise<Uint8Array> {
    return this.#run(name, signal, () => {
      const bytes = this.objects.get(name);
      if (bytes === undefined) throw missing(name);
      const part = sliceExactly(name, bytes, range);
      if (into === undefined) return Buffer.from(part);
      into.set(part);
      return into.subarray(0, part.length);
    });
  }

  head(name: string, { signal }: { signal: AbortSignal | undefined }): Promise<ObjectInfo | undefined> {
    return this.#run(name, signal, () => {
      const size = this.objects.get(name)?.length;
      return size === undefined ? undefined : { name, size, modifiedMs: this.#modified.get(name) ?? 0 };
    });
  }

  async *list(prefix: string, { signal }: { signal: AbortSignal | undefined }): AsyncIterable<ObjectInfo> {
    for (const name of [...this.objects.keys()].filter((key) => key.startsWith(prefix)).sort()) {
      const info = await this.head(name, { signal });
      if (info !== undefined) yield info;
    }
  }

  delete(name: string, { signal }: { signal: AbortSignal | undefined }): Promise<void> {
    return this.#run(name, signal, () => void this.objects.delete(name));
  }

  freeBytes(): Promise<number | undefined> {
    return Promise.resolve(undefined);
  }

  async #run<T>(name: string, signal: AbortSignal | undefined, work: () => T): Promise<T> {
    signal?.throwIfAborted();
    if (!isObjectName(name)) throw new StasisError('PATH_ESCAPES', `${JSON.stringify(name)} is not the name of an object`);
    await Promise.resolve();
    return work();
  }
}
