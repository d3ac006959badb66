/**
 * Follows an operation to its end: shows progress, and on Ctrl-C cancels it at the agent and waits for it to be undone.
 * A second Ctrl-C leaves at once; the operation is then cancelled without anybody watching.
 */
import { asStasisError, isStasisError } from '../core/errors.ts';
import type { AgentClient, Progress } from '../rpc/api.ts';
import { QUICK_MS } from './agent.ts';
import { Interrupted } from './exit.ts';
import type { Io } from './io.ts';
import { progressView } from './render/progress.ts';

interface Followed {
  readonly agent: AgentClient;
  readonly operationId: string;
  /** What the operation works on, for the progress line. */
  readonly subject: string;
  readonly json: boolean;
}

type Event<T> = { readonly type: 'progress'; readonly progress: Progress } | T;

/** The last message of the stream. Throws Interrupted when the user ended it. */
export async function follow<T extends { readonly type: string }>(io: Io, how: Followed, call: (signal: AbortSignal) => AsyncIterable<Event<T>>): Promise<T> {
  const view = progressView(io, how.subject, how.json);
  const leave = new AbortController();
  let status: 130 | 143 | undefined;
  const stopListening = io.onInterrupt((signal) => {
    view.end();
    if (status !== undefined) {
      io.talk(`stasis: leaving; the agent goes on undoing operation ${how.operationId} (stasis watch ${how.operationId})`);
      leave.abort(new Interrupted(status));
      return;
    }
    status = signal === 'SIGINT' ? 130 : 143;
    io.talk(`stasis: cancelling operation ${how.operationId}; once more to leave without waiting for it`);
    void cancel(io, how, leave.signal);
  });
  try {
    let last: T | undefined;
    for await (const event of call(leave.signal)) {
      if (event.type === 'progress') view.update((event as { progress: Progress }).progress);
      else last = event as T;
    }
    if (last === undefined) throw new Error('the agent ended the stream without a result');
    if (status !== undefined) io.talk('stasis: too late to cancel: it is done');
    return last;
  } catch (error) {
    if (status === undefined) throw error;
    if (isStasisError(error, 'CANCELLED')) io.talk(`stasis: operation ${how.operationId} is cancelled and undone`);
    else if (!leave.signal.aborted) throw error;
    throw new Interrupted(status);
  } finally {
    view.end();
    stopListening();
  }
}

async function cancel(io: Io, { agent, operationId }: Followed, signal: AbortSignal): Promise<void> {
  try {
    await agent.cancelOperation({ operationId }, { signal, timeoutMs: QUICK_MS });
  } catch (error) {
    if (!signal.aborted) io.talk(`stasis: the operation could not be cancelled: ${asStasisError(error, 'cancel').message}`);
  }
}
