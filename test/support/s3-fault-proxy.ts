/**
 * A proxy in front of a real S3 server that breaks what it is told to break: bursts of 503, resets in the middle of bodies,
 * black holes, trickles, lies. Requests pass unchanged otherwise, so that their signatures stay good.
 */
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

export type Fault =
  | 'slow-down' | 'internal-error' | 'expired-token' | 'clock-skew' | 'access-denied'
  /** The connection is reset after a part of the request's, or the answer's, body. */
  | 'reset-up' | 'reset-down'
  /** The request goes nowhere and no answer comes. */
  | 'blackhole'
  /** The answer's body comes at 1 KB/s. */
  | 'trickle'
  /** Status 200 and the XML of an error. */
  | 'ok-with-error'
  /** The server did it, but its answer is lost. */
  | 'lost-reply'
  /** The bytes of another range, and headers that say so. */
  | 'wrong-range'
  /** The answer's body ends early, in good order. */
  | 'short-body';

export interface Seen {
  readonly method: string;
  readonly url: string;
  readonly fault: Fault | undefined;
}

export interface FaultProxy extends AsyncDisposable {
  readonly endpoint: string;
  readonly seen: readonly Seen[];
  /** Asked for each request, with its number from 0. */
  decide: (request: { readonly method: string; readonly url: string; readonly count: number }) => Fault | undefined;
}

const answers: Partial<Record<Fault, readonly [number, string, string]>> = {
  'slow-down': [503, 'SlowDown', 'Please reduce your request rate.'],
  'internal-error': [500, 'InternalError', 'We encountered an internal error. Please try again.'],
  'expired-token': [403, 'ExpiredToken', 'The provided token has expired.'],
  'clock-skew': [403, 'RequestTimeTooSkewed', 'The difference between the request time and the current time is too large.'],
  'access-denied': [403, 'AccessDenied', 'Access Denied'],
  'ok-with-error': [200, 'InternalError', 'We encountered an internal error. Please try again.'],
};

const HOUR_MS = 3_600_000;

export async function startFaultProxy(port: number): Promise<FaultProxy> {
  const seen: Seen[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((incoming, outgoing) => {
    const facts = { method: incoming.method ?? '', url: incoming.url ?? '', count: seen.length };
    const fault = proxy.decide(facts);
    seen.push({ method: facts.method, url: facts.url, fault });
    incoming.on('error', () => undefined);
    outgoing.on('error', () => undefined);
    const answer = fault === undefined ? undefined : answers[fault];
    if (answer !== undefined) sayError(incoming, outgoing, fault === 'clock-skew', answer);
    else if (fault !== 'blackhole') forward(port, incoming, outgoing, fault);
  });
  server.on('connection', (socket: Socket) => {
    sockets.add(socket.on('error', () => undefined).once('close', () => sockets.delete(socket)));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const proxy: FaultProxy = {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen,
    decide: () => undefined,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
  return proxy;
}

function sayError(incoming: IncomingMessage, outgoing: ServerResponse, skewed: boolean, [status, code, message]: readonly [number, string, string]): void {
  incoming.resume();
  const body = `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>${message}</Message><RequestId>fault</RequestId></Error>`;
  const date = new Date(Date.now() + (skewed ? HOUR_MS : 0)).toUTCString();
  const answer = (): void => void outgoing.writeHead(status, { 'content-type': 'application/xml', 'content-length': Buffer.byteLength(body), date }).end(incoming.method === 'HEAD' ? undefined : body);
  if (incoming.readableEnded) answer();
  else incoming.once('end', answer);
}

/** How much of a body gets through before it is cut. */
const PART_BYTES = 100_000;

function forward(port: number, incoming: IncomingMessage, outgoing: ServerResponse, fault: Fault | undefined): void {
  const headers = { ...incoming.headers };
  const upstream = request({ host: '127.0.0.1', port, method: incoming.method, path: incoming.url, headers, agent: false }, (answer) => {
    void respond(answer, outgoing, fault).catch(() => outgoing.destroy());
  });
  upstream.on('error', () => outgoing.destroy());
  outgoing.once('close', () => upstream.destroy());
  let passed = 0;
  incoming.on('data', (chunk: Buffer) => {
    passed += chunk.length;
    if (fault === 'reset-up' && passed > PART_BYTES) {
      incoming.socket.resetAndDestroy();
      upstream.destroy();
      return;
    }
    if (!upstream.write(chunk)) {
      incoming.pause();
      upstream.once('drain', () => incoming.resume());
    }
  });
  incoming.once('end', () => upstream.end());
  incoming.once('close', () => {
    if (!incoming.complete) upstream.destroy();
  });
}

async function respond(answer: IncomingMessage, outgoing: ServerResponse, fault: Fault | undefined): Promise<void> {
  const status = answer.statusCode ?? 502;
  const cut = Math.min(PART_BYTES, Math.floor(Number(answer.headers['content-length'] ?? 0) / 2));
  if (fault === 'lost-reply') {
    answer.resume();
    await once(answer, 'end');
    outgoing.socket?.resetAndDestroy();
    return;
  }
  const headers = { ...answer.headers };
  if (fault === 'wrong-range' && headers['content-range'] !== undefined) headers['content-range'] = headers['content-range'].replace(/bytes (\d+)-(\d+)/, (_, from: string, to: string) => `bytes ${Number(from) + 1}-${Number(to) + 1}`);
  outgoing.writeHead(status, headers);
  let passed = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    passed += chunk.length;
    if (fault === 'trickle') {
      await trickle(chunk, outgoing);
      continue;
    }
    if (passed > cut && (fault === 'reset-down' || fault === 'short-body')) {
      outgoing.write(chunk.subarray(0, Math.floor(chunk.length / 2)));
      await delay(20);
      if (fault === 'reset-down') outgoing.socket?.resetAndDestroy();
      else outgoing.socket?.end();
      answer.destroy();
      return;
    }
    if (!outgoing.write(chunk)) await once(outgoing, 'drain');
  }
  outgoing.end();
}

async function trickle(chunk: Buffer, outgoing: ServerResponse): Promise<void> {
  for (let at = 0; at < chunk.length && !outgoing.destroyed; at += 100) {
    outgoing.write(chunk.subarray(at, at + 100));
    await delay(100);
  }
}
