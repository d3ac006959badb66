/** The agent's service: every call gets its caller, role check, signal, error mapping, log line and metrics here. */
import type { sendUnaryData, ServerDuplexStream, ServerUnaryCall, ServerWritableStream, ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js';
import type { Clock } from '../core/clock.ts';
import { asStasisError, isStasisError, StasisError } from '../core/errors.ts';
import { answerStream, answerUnary, lifetime } from './adapt.ts';
import type { AgentHandlers, CallContext, Caller } from './api.ts';
import type { ServerLog, ServerMetrics } from './ports.ts';
import { authorize } from './roles.ts';
import { statusOf } from './status.ts';
import type { Wire, WireMethod } from './wire.ts';

type Streaming = ServerWritableStream<object, object> | ServerDuplexStream<object, object>;
type Call = ServerUnaryCall<object, object> | Streaming;

/** Throws UNAUTHENTICATED. */
export type CallerOf = (call: Call) => Caller;

export interface ServiceParts {
  readonly handlers: AgentHandlers;
  readonly wire: Wire;
  readonly callerOf: CallerOf;
  /** Aborted when the server stops. */
  readonly stop: AbortSignal;
  readonly logger: ServerLog;
  readonly clock: Clock;
  readonly stallMs: number;
  readonly observe: CallObserver;
}

export interface CallObserver {
  started(): void;
  finished(method: string, code: string, seconds: number): void;
}

/** Seconds: from a look at a table to a checkpoint of many gigabytes. */
const buckets = [0.001, 0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900];

export function observeCalls(metrics: ServerMetrics): CallObserver {
  const seconds = metrics.histogram('stasis_rpc_duration_seconds', 'Duration of calls to the API by method.', buckets);
  const calls = metrics.counter('stasis_rpc_calls_total', 'Calls to the API by method and error code (OK for none).');
  const open = { count: 0 };
  metrics.sampled('stasis_rpc_open_calls', 'Calls to the API that are open now.', () => open.count);
  return {
    started: () => { open.count += 1; },
    finished: (method, code, duration) => {
      open.count -= 1;
      seconds.observe(duration, { method });
      calls.add(1, { method, code });
    },
  };
}

export function implementAgent(parts: ServiceParts): { definition: ServiceDefinition; implementation: UntypedServiceImplementation } {
  const definition: Record<string, WireMethod['definition']> = {};
  const implementation: UntypedServiceImplementation = {};
  for (const method of parts.wire.methods) {
    definition[method.name] = method.definition;
    implementation[method.name] = method.definition.responseStream
      ? (call: Streaming) => void stream(parts, method, call)
      : (call: ServerUnaryCall<object, object>, callback: sendUnaryData<object>) => void unary(parts, method, call, callback);
  }
  return { definition, implementation };
}

type Handler<T> = (request: object, context: CallContext) => T;

async function unary(parts: ServiceParts, method: WireMethod, call: ServerUnaryCall<object, object>, callback: sendUnaryData<object>): Promise<void> {
  const run = begin(parts, method, call);
  const handler = parts.handlers[method.name].bind(parts.handlers) as unknown as Handler<Promise<object>>;
  await answerUnary(callback, run.signal, async () => method.encodeResponse(await handler(...run.admit())), run.fail);
  run.end();
}

async function stream(parts: ServiceParts, method: WireMethod, call: Streaming): Promise<void> {
  const run = begin(parts, method, call);
  const handler = parts.handlers[method.name].bind(parts.handlers) as unknown as Handler<AsyncIterable<object>>;
  await answerStream(call, run.signal, () => handler(...run.admit()), method.encodeResponse, run.fail, parts.stallMs);
  run.end();
}

/** The messages of the caller, read as they are wanted: who does not read does not let the caller send. */
async function* requests(call: ServerDuplexStream<object, object>, method: WireMethod): AsyncGenerator<object> {
  // Who stops reading must not destroy the call: its status would never be sent.
  for await (const message of call.iterator({ destroyOnReturn: false })) yield method.decodeRequest(message as object);
}

function begin(parts: ServiceParts, method: WireMethod, call: Call) {
  const { clock, logger, observe, wire, stop } = parts;
  const started = clock.monotonic();
  const life = lifetime(call, stop, () => clock.now());
  let caller: Caller | undefined;
  let code = 'OK';
  observe.started();
  return {
    signal: life.signal,
    /** Who calls, whether it may, and what it wants. */
    admit: (): [object, CallContext] => {
      life.signal.throwIfAborted();
      caller = parts.callerOf(call);
      authorize(caller, method.name);
      const request = 'request' in call ? method.decodeRequest(call.request) : requests(call, method);
      return [request, { signal: life.signal, caller }];
    },
    fail: (thrown: unknown): Error => {
      const error = present(thrown, method.name, caller);
      code = error.code;
      const fields = { method: method.name, caller: caller?.principal, peer: call.getPeer(), code };
      if (code === 'PERMISSION_DENIED' || code === 'UNAUTHENTICATED') logger.event('rpc.denied', { ...fields, err: error });
      else if (code === 'INTERNAL') logger.event('rpc.failed', { ...fields, err: thrown });
      return statusOf(error, wire.errors);
    },
    end: (): void => {
      life.end();
      const seconds = (clock.monotonic() - started) / 1000;
      observe.finished(method.name, code, seconds);
      logger.event('rpc.finished', { method: method.name, caller: caller?.principal, code, duration_ms: Math.round(seconds * 1000) });
    },
  };
}

/** What nobody foresaw is told in full to root on this node only: its message may name anything. */
function present(thrown: unknown, method: string, caller: Caller | undefined): StasisError {
  const error = asStasisError(thrown, method);
  if (error.code !== 'INTERNAL' || isStasisError(thrown) || caller?.transport === 'unix') return error;
  return new StasisError('INTERNAL', `${method} failed inside the agent`, { hint: "the agent's log has the reason (event rpc.failed)", cause: thrown });
}
