/** The agent's client: promises and async iterables in the types of api.ts; every failure is a StasisError. */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { checkServerIdentity } from 'node:tls';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import type { CallOptions as GrpcOptions, ChannelCredentials, ClientDuplexStream, ServiceError } from '@grpc/grpc-js';
import { systemClock } from '../core/clock.ts';
import { asStasisError, StasisError } from '../core/errors.ts';
import type { AgentClient, CallOptions } from './api.ts';
import { loadDefinitions } from './definitions.ts';
import type { TlsFiles } from './tls-listener.ts';
import { errorOf } from './status.ts';
import { agentWire } from './wire.ts';
import type { Wire, WireMethod } from './wire.ts';

export type ConnectOptions =
  | { readonly socket: string }
  | { readonly address: string; readonly tls: TlsFiles; /** The name in the agent's certificate, when it is not that of the address. */ readonly serverName?: string | undefined };

/** A page of 500 checkpoints or the manifest of a large one fits. */
const MAX_RESPONSE_BYTES = 16 * 1024 * 1024;

const channelOptions = {
  'grpc.max_receive_message_length': MAX_RESPONSE_BYTES,
  // The agent is called directly: no proxy of the environment, no service configuration out of the DNS.
  'grpc.enable_http_proxy': 0,
  'grpc.service_config_disable_resolution': 1,
  // One client, one connection: processes share nothing anyway, and tests must not share by accident.
  'grpc.use_local_subchannel_pool': 1,
};

/**
 * Without it a stream to a node that lost its power would wait for ever. A loaded node answers late. A socket of this
 * node needs none: the kernel tells when its other end dies.
 */
const keepalive = { 'grpc.keepalive_time_ms': 20_000, 'grpc.keepalive_timeout_ms': 60_000 };

/** Connects with the first call. Throws USAGE when a certificate file cannot be read. */
export async function connectAgent(options: ConnectOptions): Promise<AgentClient> {
  const wire = agentWire(loadDefinitions());
  const peer = 'socket' in options ? options.socket : options.address;
  const client = 'socket' in options
    ? new Client(`unix:${options.socket}`, credentials.createInsecure(), channelOptions)
    : await tlsClient(options.address, options.tls, options.serverName);
  const calls = wire.methods.map((method) => [
    method.name,
    (request: object, call: CallOptions) => (method.definition.responseStream ? streamCall(client, wire, peer, method, request, call) : unaryCall(client, wire, peer, method, request, call)),
  ]);
  return { ...Object.fromEntries(calls), close: () => client.close() } as AgentClient;
}

/**
 * The name in the certificate must be that of the address, or `serverName`. An IP address is checked, too, but may not be
 * sent as the TLS server name (RFC 6066), so a name that means nothing goes in its place.
 */
async function tlsClient(address: string, tls: TlsFiles, serverName: string | undefined): Promise<Client> {
  const name = serverName ?? address.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
  const secured = await secure(tls, (_sent, certificate) => checkServerIdentity(name, certificate));
  return new Client(address, secured, {
    ...channelOptions, ...keepalive, 'grpc.ssl_target_name_override': isIP(name) === 0 ? name : 'stasis-agent',
  });
}

async function secure(tls: TlsFiles, checkName: typeof checkServerIdentity): Promise<ChannelCredentials> {
  const [ca, key, cert] = await Promise.all([tls.ca, tls.key, tls.cert].map(async (path) => {
    try {
      return await readFile(path);
    } catch (error) {
      throw new StasisError('USAGE', `${path} cannot be read: ${(error as Error).message}`, { cause: error, hint: 'check --tls-ca, --tls-key and --tls-cert' });
    }
  }));
  try {
    return credentials.createSsl(ca ?? null, key, cert, { checkServerIdentity: checkName });
  } catch (error) {
    throw new StasisError('USAGE', `the certificate ${tls.cert}, its key and the CA ${tls.ca} cannot be used: ${(error as Error).message}`, { cause: error, hint: 'all three are PEM files; the key must fit the certificate' });
  }
}

function unaryCall(client: Client, wire: Wire, peer: string, method: WireMethod, request: object, { signal, timeoutMs }: CallOptions): Promise<object> {
  return new Promise((resolve, reject) => {
    if (isAborted(signal)) {
      reject(cancelled(signal));
      return;
    }
    const { definition } = method;
    const call = client.makeUnaryRequest(definition.path, definition.requestSerialize, definition.responseDeserialize, method.encodeRequest(request), new Metadata(), deadline(timeoutMs), (failure, response) => {
      signal?.removeEventListener('abort', cancel);
      if (failure !== null) reject(isAborted(signal) ? cancelled(signal) : errorOf(failure, peer, wire.errors));
      else resolve(method.decodeResponse(response ?? {}));
    });
    const cancel = (): void => call.cancel();
    signal?.addEventListener('abort', cancel, { once: true });
  });
}

/** Leaving the loop cancels the call. */
async function* streamCall(client: Client, wire: Wire, peer: string, method: WireMethod, request: object, { signal, timeoutMs }: CallOptions): AsyncGenerator<object> {
  if (isAborted(signal)) throw cancelled(signal);
  const { definition } = method;
  const call = definition.requestStream
    ? client.makeBidiStreamRequest(definition.path, definition.requestSerialize, definition.responseDeserialize, new Metadata(), deadline(timeoutMs))
    : client.makeServerStreamRequest(definition.path, definition.requestSerialize, definition.responseDeserialize, method.encodeRequest(request), new Metadata(), deadline(timeoutMs));
  const sending = definition.requestStream ? send(call as ClientDuplexStream<object, object>, method, request as AsyncIterable<object>) : undefined;
  const cancel = (): void => call.cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    for await (const message of call) yield method.decodeResponse(message as object);
    await sending?.ended;
  } catch (failure) {
    // What kept the requests from being sent is the cause; the call only ended for it.
    if (sending?.failure !== undefined) throw sending.failure.error;
    if (isAborted(signal)) throw cancelled(signal);
    throw typeof (failure as ServiceError).code === 'number' ? errorOf(failure as ServiceError, peer, wire.errors) : failure;
  } finally {
    signal?.removeEventListener('abort', cancel);
    // An error event may still come after the loop was left: nobody waits for it.
    call.on('error', () => undefined);
    call.cancel();
  }
}

interface Sending {
  readonly ended: Promise<void>;
  failure: { readonly error: unknown } | undefined;
}

/** Requests go out as fast as the agent takes them. A failing source ends the call. */
function send(call: ClientDuplexStream<object, object>, method: WireMethod, requests: AsyncIterable<object>): Sending {
  const sending = { ended: Promise.resolve(), failure: undefined as Sending['failure'] };
  const closed = new AbortController();
  for (const event of ['error', 'close', 'end']) call.on(event, () => closed.abort());
  const run = async (): Promise<void> => {
    try {
      for await (const request of requests) {
        if (closed.signal.aborted) return;
        // The agent may end the call in the middle, and then nothing drains any more.
        if (!call.write(method.encodeRequest(request))) await once(call, 'drain', { signal: closed.signal }).catch(() => undefined);
      }
      call.end();
    } catch (error) {
      sending.failure = { error };
      call.cancel();
    }
  };
  sending.ended = run();
  return sending;
}

/** A function, because it changes behind the compiler's back. */
function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

function cancelled(signal: AbortSignal | undefined): StasisError {
  return signal?.reason instanceof StasisError ? signal.reason : asStasisError(new DOMException('cancelled by the caller', 'AbortError'), 'the call');
}

function deadline(timeoutMs: number | undefined): GrpcOptions {
  return timeoutMs === undefined ? {} : { deadline: systemClock.now() + timeoutMs };
}
