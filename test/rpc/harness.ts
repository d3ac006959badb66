/** A real server with scripted handlers for the tests of this room and of the command line. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/core/clock.ts';
import type { AgentClient } from '../../src/rpc/api.ts';
import { connectAgent } from '../../src/rpc/client.ts';
import { serveAgent } from '../../src/rpc/server.ts';
import type { AgentServer, ServeOptions } from '../../src/rpc/server.ts';
import type { EventName } from '../../src/telemetry/events.ts';
import type { Fields, Logger } from '../../src/telemetry/logger.ts';
import { createMetrics } from '../../src/telemetry/metrics.ts';
import type { Metrics } from '../../src/telemetry/metrics.ts';
import { scriptedAgent } from './scripted-agent.ts';
import type { Script } from './scripted-agent.ts';

export interface Harness extends AsyncDisposable {
  readonly directory: string;
  readonly socket: string;
  readonly server: AgentServer;
  readonly client: AgentClient;
  readonly script: Script;
  readonly metrics: Metrics;
  readonly events: readonly { name: EventName; fields: Fields }[];
}

export async function temporaryDirectory(): Promise<{ readonly path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), 'rpc-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

export async function harness(more: Partial<ServeOptions> = {}): Promise<Harness> {
  const directory = await temporaryDirectory();
  const socket = join(directory.path, 'agent.sock');
  const events: { name: EventName; fields: Fields }[] = [];
  const logger: Logger = { event: (name, fields = {}) => void events.push({ name, fields }), child: () => logger };
  const script = scriptedAgent();
  const metrics = createMetrics();
  const server = await serveAgent({ handlers: script.handlers, socket, listen: undefined, logger, metrics, clock: systemClock, stallMs: 60_000, ...more });
  const client = await connectAgent({ socket });
  return {
    directory: directory.path, socket, server, client, script, metrics, events,
    [Symbol.asyncDispose]: async () => {
      client.close();
      await server.close({ graceMs: 500 });
      await directory[Symbol.asyncDispose]();
    },
  };
}

/** Waits until something becomes true; fails after two seconds. */
export async function eventually(what: string, check: () => boolean): Promise<void> {
  for (let i = 0; i < 200; i++) {
    if (check()) return;
    await systemClock.sleep(10, { signal: undefined });
  }
  throw new Error(`not within 2 s: ${what}`);
}

export async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  return Array.fromAsync(stream);
}
