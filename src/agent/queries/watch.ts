/** Following one operation, or all of them. */
import type * as api from '../../rpc/api.ts';
import { parseOperationId } from '../../core/ids.ts';
import type { AgentContext } from '../context.ts';
import type { Operation, OperationStatus } from '../operation.ts';
import { operationInfo, progressInfo } from '../results.ts';

/** A listener that is slower than the events gets the newest of each operation, so this holds one entry for each. */
class Latest {
  readonly #changed = new Map<string, OperationStatus>();
  #wake: (() => void) | undefined;

  put(status: OperationStatus): void {
    this.#changed.set(status.id, status);
    this.#wake?.();
  }

  /** Waits until there is something, then takes it all. */
  async take(signal: AbortSignal): Promise<OperationStatus[]> {
    while (this.#changed.size === 0) {
      signal.throwIfAborted();
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      signal.addEventListener('abort', () => resolve(), { once: true });
      await promise;
    }
    const taken = [...this.#changed.values()];
    this.#changed.clear();
    return taken;
  }
}

/** Progress of one operation until it has ended. The caller going away ends only this, not the operation. */
export async function* follow<Event>(agent: AgentContext, operation: Operation, signal: AbortSignal, event: (progress: api.Progress) => Event): AsyncIterable<Event> {
  const latest = new Latest();
  using _subscription = agent.operations.subscribe((status) => {
    if (status.id === operation.id) latest.put(status);
  });
  let status = operation.status();
  yield event(progressInfo(status, agent.clock.now()));
  while (status.state === 'running') {
    for (status of await latest.take(signal)) {
      if (status.state === 'running') yield event(progressInfo(status, agent.clock.now()));
    }
  }
}

export async function* watchOperations(agent: AgentContext, request: api.WatchOperationsRequest, { signal }: api.CallContext): AsyncIterable<api.OperationEvent> {
  const only = request.operationId === undefined || request.operationId === '' ? undefined : agent.operations.get(parseOperationId(request.operationId)).id;
  const wanted = (status: OperationStatus): boolean => only === undefined || status.id === only;
  const latest = new Latest();
  using _subscription = agent.operations.subscribe((status) => {
    if (wanted(status)) latest.put(status);
  });
  const now = agent.operations.list().filter(wanted);
  yield { type: 'snapshot', snapshot: { operations: now.map((status) => operationInfo(status, agent.clock.now())) } };
  if (only !== undefined && now.every((status) => status.state !== 'running')) return;
  for (;;) {
    for (const status of await latest.take(signal)) {
      yield { type: 'changed', changed: operationInfo(status, agent.clock.now()) };
      if (only !== undefined && status.state !== 'running') return;
    }
  }
}
