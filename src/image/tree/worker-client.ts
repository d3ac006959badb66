/** The main thread's end of a tree's worker: one request after the other, cancelled through shared memory. */
import type { Worker } from 'node:worker_threads';
import { StasisError, isErrorCode } from '../../core/errors.ts';
import { TreeThreads } from './threads.ts';
import type { Answer, Calls, LoadSetup, PortableError, Reply, SaveSetup } from './port.ts';

interface Waiting {
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
}

export class TreeWorker implements AsyncDisposable {
  readonly #cancel = new Int32Array(new SharedArrayBuffer(4));
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  readonly #ended: Promise<void>;
  #next = 0;
  #failure: Error | undefined;
  #ending = false;

  constructor(setup: SaveSetup | LoadSetup, threads = new TreeThreads({ spares: 0 })) {
    const worker = threads.take();
    this.#worker = worker;
    const ended = Promise.withResolvers<void>();
    this.#ended = ended.promise;
    const onMessage = (reply: Reply): void => {
      if (!('ended' in reply)) this.#settle(reply);
      else if (threads.give(worker)) {
        worker.off('message', onMessage).off('error', onError).off('exit', onExit);
        onExit();
      }
    };
    const onError = (error: Error): void => this.#fail(error);
    const onExit = (): void => {
      this.#fail(new Error('the worker of the tree has ended'));
      ended.resolve();
    };
    worker.on('message', onMessage).on('error', onError).once('exit', onExit);
    worker.postMessage({ ...setup, cancel: this.#cancel });
    worker.unref();
  }

  /** Rejects with the signal's reason when cancelled; the worker stops at its next directory. */
  async call<K extends keyof Calls>(name: K, args: Calls[K]['args'], { signal }: { signal: AbortSignal | undefined }): Promise<Calls[K]['result']> {
    signal?.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure;
    const onAbort = (): void => {
      Atomics.store(this.#cancel, 0, 1);
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      this.#worker.ref();
      return await new Promise<Calls[K]['result']>((resolve, reject) => {
        this.#waiting.set(this.#next, { resolve, reject });
        this.#worker.postMessage({ id: this.#next++, name, args });
      });
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    } finally {
      signal?.removeEventListener('abort', onAbort);
      if (this.#waiting.size === 0) this.#worker.unref();
    }
  }

  /** Tells the worker something that has no answer; a failure of it shows at the next call. */
  tell(args: Calls['read']['args']): void {
    this.#worker.postMessage({ id: -1, name: 'read', args }, [args.slices.buffer as ArrayBuffer]);
  }

  #settle(reply: Answer): void {
    if ('error' in reply && reply.id < 0) {
      this.#failure ??= revived(reply.error);
      return;
    }
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if ('error' in reply) waiting?.reject(revived(reply.error));
    else waiting?.resolve(reply.value as never);
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const waiting of this.#waiting.values()) waiting.reject(error);
    this.#waiting.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Not terminate(): the worker closes its descriptors first. Once: then it may be at work for somebody else.
    Atomics.store(this.#cancel, 0, 1);
    if (!this.#ending) this.#worker.postMessage({ id: -1, name: 'end', args: undefined });
    this.#ending = true;
    await this.#ended;
  }
}

function revived(error: PortableError): Error {
  if (isErrorCode(error.code)) return new StasisError(error.code, error.message, { hint: error.hint, details: error.details });
  return new Error(error.message);
}
