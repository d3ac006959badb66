/**
 * Handlers as async functions and async generators with a signal, on the callbacks and events of grpc-js.
 * - A failing call emits 'error': destroy() would leave the client waiting for ever.
 * - A full send buffer stops the generator until it has drained.
 * - When the caller cancels or goes away, its deadline passes or the server stops, the signal is aborted; a generator is then
 *   closed even if it does not look at its signal.
 */
import type { sendUnaryData, ServerDuplexStream, ServerWritableStream } from '@grpc/grpc-js';
import { longTimer } from '../core/clock.ts';
import { StasisError } from '../core/errors.ts';

export interface Lifetime {
  readonly signal: AbortSignal;
  end(): void;
}

interface AnyCall {
  readonly cancelled: boolean;
  on(event: 'cancelled', listener: () => void): unknown;
  getDeadline(): Date | number;
}

/** The signal of one call: the first reason wins. */
export function lifetime(call: AnyCall, server: AbortSignal, nowMs: () => number): Lifetime {
  const controller = new AbortController();
  const stop = (): void => controller.abort(server.reason);
  server.addEventListener('abort', stop, { once: true });
  if (server.aborted) stop();
  const leftMs = Number(call.getDeadline()) - nowMs();
  const late = (): void => controller.abort(new StasisError('DEADLINE_EXCEEDED', 'the deadline of the call has passed', { hint: 'give it more time' }));
  const timer = longTimer(late, leftMs);
  // grpc-js cancels the call at its deadline, too, a moment before the timer or after it.
  call.on('cancelled', () => (Number(call.getDeadline()) <= nowMs() + 5 ? late() : controller.abort(new StasisError('CANCELLED', 'the caller cancelled or went away'))));
  return {
    signal: controller.signal,
    end: () => {
      timer.clear();
      server.removeEventListener('abort', stop);
    },
  };
}

type ToStatus = (error: unknown) => Error;

export async function answerUnary(callback: sendUnaryData<object>, signal: AbortSignal, handle: () => Promise<object>, toStatus: ToStatus): Promise<void> {
  try {
    callback(null, await orAborted(handle(), signal));
  } catch (error) {
    callback(toStatus(error), null);
  }
}

/** A handler that looks at nothing does not keep the caller waiting, nor the server from stopping. */
function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', abort, { once: true });
    void work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

export async function answerStream<T>(call: ServerWritableStream<object, object> | ServerDuplexStream<object, object>, signal: AbortSignal, handle: () => AsyncIterable<T>, encode: (message: T) => object, toStatus: ToStatus, stallMs: number): Promise<void> {
  try {
    for await (const message of abortable(handle(), signal)) {
      if (!call.write(encode(message))) await drained(call, signal, stallMs);
    }
    call.end();
  } catch (error) {
    // A wait that was ended wraps the reason of the signal; the reason itself says more.
    call.emit('error', toStatus(signal.aborted ? signal.reason : error));
  }
}

/** A caller who does not read holds on to what the answer needs: slots, messages, packs that are kept for it. */
async function drained(call: ServerWritableStream<object, object> | ServerDuplexStream<object, object>, signal: AbortSignal, stallMs: number): Promise<void> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const abort = (): void => reject(signal.reason as Error);
  const timer = longTimer(() => reject(new StasisError('DEADLINE_EXCEEDED', `the caller has not read for ${stallMs} ms`, { hint: 'read the answer as it comes; operations.stall says how long the agent waits' })), stallMs);
  call.once('drain', resolve);
  signal.addEventListener('abort', abort, { once: true });
  try {
    await promise;
  } finally {
    timer.clear();
    call.off('drain', resolve);
    signal.removeEventListener('abort', abort);
  }
}

/** Ends with the signal's reason at once, and closes the source behind the back of whoever still waits in it. */
async function* abortable<T>(source: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T> {
  const iterator = source[Symbol.asyncIterator]();
  let wake: ((reason: Error) => void) | undefined;
  const abort = (): void => wake?.(signal.reason as Error);
  signal.addEventListener('abort', abort, { once: true });
  let open = true;
  try {
    while (true) {
      signal.throwIfAborted();
      // Not Promise.race with one lasting promise: that would hold on to every message of a long stream.
      const next = await new Promise<IteratorResult<T>>((resolve, reject) => {
        wake = reject;
        iterator.next().then(resolve, (error: unknown) => {
          open = false;
          reject(error);
        });
      });
      open = next.done !== true;
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    signal.removeEventListener('abort', abort);
    if (open) iterator.return?.().catch(() => undefined);
  }
}
