/**
 * /metrics, /livez and /readyz over plain HTTP, on a loopback address only: it asks nobody who they are.
 * A Pod that must be scraped from outside puts a proxy with authentication in front of it.
 */
import { createServer } from 'node:http';
import type { Server, ServerResponse } from 'node:http';
import { once } from 'node:events';
import { isIPv4 } from 'node:net';
import { errnoCode, StasisError } from '../core/errors.ts';
import type { Logger } from './logger.ts';
import { contentType } from './metrics.ts';
import type { Metrics } from './metrics.ts';

export interface TelemetryServer extends AsyncDisposable {
  /** "127.0.0.1:9465", with the port that was really taken when 0 was asked for. */
  readonly address: string;
}

export interface TelemetryOptions {
  /** host:port; the host is a loopback address or "localhost". */
  readonly listen: string;
  readonly metrics: Metrics;
  readonly logger: Logger;
  /** Whether new operations would be taken; the text says why not. */
  readonly ready: () => { readonly ready: boolean; readonly reason: string };
}

/** A scrape is one short request; whoever keeps more open is not a scraper. */
const MAX_CONNECTIONS = 32;

/** Throws CONFIG_INVALID when the address is not loopback, or taken. */
export async function serveTelemetry(options: TelemetryOptions): Promise<TelemetryServer> {
  const { host, port } = parseAddress(options.listen);
  const server = createServer({ requestTimeout: 10_000, headersTimeout: 5_000 }, (request, response) => {
    if (request.method !== 'GET' && request.method !== 'HEAD') return answer(response, 405, 'only GET\n');
    switch (request.url?.split('?')[0]) {
      case '/metrics':
        return answer(response, 200, options.metrics.render(), contentType);
      case '/livez':
        return answer(response, 200, 'ok\n');
      case '/readyz': {
        const { ready, reason } = options.ready();
        return answer(response, ready ? 200 : 503, `${ready ? 'ok' : reason}\n`);
      }
      default:
        return answer(response, 404, 'there are /metrics, /livez and /readyz\n');
    }
  });
  server.maxConnections = MAX_CONNECTIONS;
  await listen(server, host, port, options.listen);
  const bound = server.address();
  const address = `${host.includes(':') ? `[${host}]` : host}:${typeof bound === 'object' && bound !== null ? bound.port : port}`;
  options.logger.event('http.listening', { address });
  return {
    address,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      if (server.listening) await new Promise((resolve) => server.close(resolve));
    },
  };
}

function answer(response: ServerResponse, status: number, body: string, type = 'text/plain; charset=utf-8'): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body), 'cache-control': 'no-store' });
  response.end(body);
}

function parseAddress(text: string): { host: string; port: number } {
  const at = text.lastIndexOf(':');
  const host = text.slice(0, at).replace(/^\[(.*)\]$/, '$1');
  if (host !== 'localhost' && host !== '::1' && !(isIPv4(host) && host.startsWith('127.'))) {
    throw new StasisError('CONFIG_INVALID', `metrics.listen cannot be ${JSON.stringify(text)}: it is not a loopback address`, { hint: 'use 127.0.0.1:9465 and put a proxy in front of it' });
  }
  return { host, port: Number(text.slice(at + 1)) };
}

async function listen(server: Server, host: string, port: number, shown: string): Promise<void> {
  try {
    server.listen(port, host);
    await once(server, 'listening');
  } catch (error) {
    throw new StasisError('CONFIG_INVALID', `metrics.listen cannot be ${shown}: ${errnoCode(error) ?? String(error)}`, { cause: error, hint: 'another program uses that port; choose another, or none' });
  }
}
