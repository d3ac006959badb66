/**
 * The agent's gRPC server: on a UNIX socket that only root may open, and on TCP only with mutual TLS.
 * Two servers share one implementation, so that who may do everything hangs on the socket and on nothing a client sends.
 */
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { asStasisError, StasisError } from '../core/errors.ts';
import type { Clock } from '../core/clock.ts';
import type { AgentHandlers } from './api.ts';
import { healthService, loadDefinitions, reflectionServices, serverFiles } from './definitions.ts';
import { createHealth } from './health.ts';
import { createReflection } from './reflection.ts';
import type { ServerLog, ServerMetrics } from './ports.ts';
import { implementAgent, observeCalls } from './service.ts';
import type { CallerOf } from './service.ts';
import { callerOfCertificate, localCaller } from './roles.ts';
import { claimSocket } from './socket.ts';
import { defaultTlsTuning, listenTls } from './tls-listener.ts';
import type { TlsFiles, TlsTuning } from './tls-listener.ts';
import { agentWire } from './wire.ts';

export interface ServeOptions {
  readonly handlers: AgentHandlers;
  /** Path of the UNIX socket. */
  readonly socket: string;
  /** host:port, and there is no TCP without TLS. */
  readonly listen: { readonly address: string; readonly tls: TlsFiles; readonly tuning?: Partial<TlsTuning> } | undefined;
  readonly logger: ServerLog;
  readonly metrics: ServerMetrics;
  readonly clock: Clock;
  /** How long an answer waits for a caller who does not read. */
  readonly stallMs: number;
}

export interface AgentServer extends AsyncDisposable {
  /** "unix:/run/stasis/agent.sock", "node1:7443" (with the port that was really taken when 0 was asked for). */
  readonly addresses: readonly string[];
  /** What health checks are told. */
  setServing(serving: boolean): void;
  /**
   * Takes no more calls, aborts the signals of the open ones (AGENT_STOPPING), and cuts those that are still open after
   * graceMs. Let operations end first: their streams end here.
   */
  close(options: { readonly graceMs: number }): Promise<void>;
}

/** Requests are names and options. */
const MAX_REQUEST_BYTES = 256 * 1024;
/** What a client takes (client.ts): an answer beyond fails here, with a status that says so, and is not sent in vain. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;
/** Of one connection: a command line needs two, a coordinator some dozens. */
const MAX_STREAMS = 128;
const CLOSE_GRACE_MS = 5_000;

const channelOptions = {
  'grpc.max_receive_message_length': MAX_REQUEST_BYTES,
  'grpc.max_send_message_length': MAX_ANSWER_BYTES,
  'grpc.max_concurrent_streams': MAX_STREAMS,
  // A peer that vanished is noticed within 90 s, so that its streams do not stay open for ever; a loaded one answers
  // late.
  'grpc.keepalive_time_ms': 30_000,
  'grpc.keepalive_timeout_ms': 60_000,
};

/** Throws AGENT_ALREADY_RUNNING, or CONFIG_INVALID when an address or a certificate cannot be used. */
export async function serveAgent(options: ServeOptions): Promise<AgentServer> {
  const definitions = loadDefinitions(serverFiles);
  const health = createHealth();
  const stop = new AbortController();
  const wire = agentWire(definitions);
  const observe = observeCalls(options.metrics);
  const services = (callerOf: CallerOf): Server => {
    const server = new Server(channelOptions);
    const agent = implementAgent({ ...options, wire, callerOf, observe, stop: stop.signal });
    server.addService(agent.definition, agent.implementation);
    server.addService(definitions.service(healthService), health.implementation);
    for (const name of reflectionServices) server.addService(definitions.service(name), createReflection());
    return server;
  };
  await using undo = new AsyncDisposableStack();
  const socket = undo.use(await claimSocket(options.socket));
  const servers: Server[] = [];
  undo.defer(() => servers.forEach((server) => server.forceShutdown()));
  const addresses = [`unix:${options.socket}`];
  let stopListening = (): Promise<void> => Promise.resolve();

  const local = services(() => localCaller);
  servers.push(local);
  if (options.listen !== undefined) {
    const remote = services((call) => callerOfCertificate(call.getAuthContext()?.sslPeerCertificate?.subject));
    servers.push(remote);
    // The connections come with TLS done; to the server they are plain ones with a certificate.
    const injector = remote.createConnectionInjector(ServerCredentials.createInsecure());
    const { address, tls, tuning } = options.listen;
    const listener = undo.use(await listenTls({ address, tls, logger: options.logger, tuning: { ...defaultTlsTuning, ...tuning }, accept: (connection) => injector.injectConnection(connection) }));
    addresses.push(listener.address);
    stopListening = () => listener[Symbol.asyncDispose]();
  }
  // The socket is last: whoever can reach it finds everything in place.
  await bind(local, `unix:${socket.bindPath}`, ServerCredentials.createInsecure());
  await socket.publish();
  for (const address of addresses) options.logger.event('rpc.listening', { address });
  const opened = undo.move();

  let closing: Promise<void> | undefined;
  const close = async ({ graceMs }: { graceMs: number }): Promise<void> => {
    health.set(false);
    health.close();
    stop.abort(new StasisError('AGENT_STOPPING', 'the agent is stopping', { hint: 'operations that run go on or are taken up by the next agent; ask again in a moment' }));
    await stopListening();
    await Promise.all(servers.map((server) => shutdown(server, graceMs, options.logger)));
    await opened.disposeAsync();
  };
  const closeOnce = (how: { graceMs: number }): Promise<void> => (closing ??= close(how));
  return { addresses, setServing: (serving) => health.set(serving), close: closeOnce, [Symbol.asyncDispose]: () => closeOnce({ graceMs: CLOSE_GRACE_MS }) };
}

function bind(server: Server, address: string, credentials: ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error, port) => (error === null ? resolve(port) : reject(asStasisError(error, `cannot listen on ${address}`))));
  });
}

/** tryShutdown() waits for open calls without limit, so a timer stands beside it. */
function shutdown(server: Server, graceMs: number, logger: ServerLog): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      logger.event('rpc.terminated', { grace_ms: graceMs });
      server.forceShutdown();
      resolve();
    }, graceMs);
    server.tryShutdown(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}

