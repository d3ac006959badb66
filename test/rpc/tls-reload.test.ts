/** Certificates that are replaced while the server runs, and connections that nobody authenticated. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { renameSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { connectAgent } from '../../src/rpc/client.ts';
import type { AgentClient } from '../../src/rpc/api.ts';
import type { TlsTuning } from '../../src/rpc/tls-listener.ts';
import { authority, identity, writeTls } from './certificates.ts';
import type { Authority, Identity } from './certificates.ts';
import { harness, temporaryDirectory } from './harness.ts';
import type { Harness } from './harness.ts';

const none = { signal: undefined };
const oldCa = authority('of yesterday');
const newCa = authority('of today');

interface World {
  readonly h: Harness;
  readonly address: string;
  readonly port: number;
  /** Replaces files of the server, as a mounted Secret or a tool for certificates does, and waits for the event. */
  replace(files: Partial<Record<'cert' | 'key' | 'ca', string>>, event: 'rpc.reloaded' | 'rpc.stale'): Promise<Readonly<Record<string, unknown>>>;
  client(own: Identity): Promise<AgentClient>;
}

async function world(tuning: Partial<TlsTuning>, use: (world: World) => Promise<void>): Promise<void> {
  await using directory = await temporaryDirectory();
  await using cleanup = new AsyncDisposableStack();
  const own = identity(oldCa, 'node-1', []);
  const tls = { cert: join(directory.path, 'tls.crt'), key: join(directory.path, 'tls.key'), ca: join(directory.path, 'ca.crt') };
  const write = (files: Partial<Record<'cert' | 'key' | 'ca', string>>): void => {
    for (const [name, text] of Object.entries(files) as [keyof typeof tls, string][]) {
      writeFileSync(`${tls[name]}.new`, text, { mode: 0o600 });
      renameSync(`${tls[name]}.new`, tls[name]);
    }
  };
  write({ ...own, ca: oldCa.pem });
  const h = cleanup.use(await harness({ listen: { address: '127.0.0.1:0', tls, tuning: { lookMs: 20, ...tuning } } }));
  const address = h.server.addresses[1] ?? '';
  await use({
    h, address, port: Number(address.split(':')[1]),
    replace: async (files, event) => {
      const before = h.events.length;
      write(files);
      await until(event, () => h.events.slice(before).some(({ name }) => name === event));
      return h.events.slice(before).findLast(({ name }) => name === event)!.fields;
    },
    client: async (identityOfClient) => {
      const client = await connectAgent({ address, tls: writeTls(directory.path, identityOfClient, oldCa) });
      cleanup.defer(() => client.close());
      return client;
    },
  });
}

async function until(what: string, check: () => boolean): Promise<void> {
  for (let i = 0; i < 3000; i += 1) {
    if (check()) return;
    await new Promise((resolve) => { setTimeout(resolve, 10); });
  }
  throw new Error(`not within 30 s: ${what}`);
}

/** The certificate that the server shows to somebody who comes now. */
async function shown(port: number, ca: Authority, own: Identity): Promise<string> {
  const socket = connectTls({ port, host: '127.0.0.1', ca: ca.pem, ...own, ALPNProtocols: ['h2'] });
  await once(socket, 'secureConnect');
  const { fingerprint256 } = socket.getPeerCertificate();
  socket.destroy();
  return fingerprint256;
}

const viewer = (ca: Authority, name = 'alice'): Identity => identity(ca, name, ['viewer']);

void test('a new certificate of the server is shown from the next connection on; open ones stay', () => world({}, async ({ port, client, replace }) => {
  const alice = await client(viewer(oldCa));
  await alice.getNode({}, none);
  const before = await shown(port, oldCa, viewer(oldCa));
  const next = identity(oldCa, 'node-1', []);
  // One after the other: between the two they do not fit.
  await replace({ key: next.key }, 'rpc.stale');
  assert.equal(await shown(port, oldCa, viewer(oldCa)), before, 'the former ones are used on');
  assert.deepEqual(await replace({ cert: next.cert }, 'rpc.reloaded'), { closed: 0 });
  assert.notEqual(await shown(port, oldCa, viewer(oldCa)), before);
  await alice.getNode({}, none);
  await replace({ cert: 'nonsense' }, 'rpc.stale');
  await (await client(viewer(oldCa, 'bob'))).getNode({}, none);
}));

void test('a CA that is removed closes the connections that it vouched for, and no others', () => world({}, async ({ client, replace }) => {
  const [alice, bob] = [await client(viewer(oldCa)), await client(viewer(newCa, 'bob'))];
  await alice.getNode({}, none);
  await assert.rejects(bob.getNode({}, none), { name: 'StasisError' });
  assert.deepEqual(await replace({ ca: `${oldCa.pem}${newCa.pem}` }, 'rpc.reloaded'), { closed: 0 });
  const carol = await client(viewer(newCa, 'carol'));
  const watching = alice.watchOperations({}, none)[Symbol.asyncIterator]();
  await watching.next();
  const staying = carol.watchOperations({}, none)[Symbol.asyncIterator]();
  await staying.next();
  const { closed } = await replace({ ca: newCa.pem }, 'rpc.reloaded');
  assert.ok(closed === 1 || closed === 2, `alice is out, and bob if he tried to come in again: ${String(closed)}`);
  await assert.rejects(async () => { while ((await watching.next()).done !== true); }, { name: 'StasisError' });
  await assert.rejects(alice.getNode({}, none), { name: 'StasisError' });
  await carol.getNode({}, none);
  await staying.return?.();
}));

void test('connections without a handshake make room for others, and end', () => world({ handshakes: 3, handshakeMs: 300 }, async ({ port, client }) => {
  const silent: Socket[] = [];
  const alice = await client(viewer(oldCa));
  await alice.getNode({}, none);
  for (let i = 0; i < 8; i += 1) {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    silent.push(socket.resume());
  }
  await (await client(viewer(oldCa, 'bob'))).getNode({}, none);
  await until('all have been closed', () => silent.every(({ destroyed, closed }) => destroyed || closed));
  await alice.getNode({}, none);
}));

void test('there is a most of connections', () => world({ connections: 2 }, async ({ client }) => {
  const [alice, bob, carol] = [await client(viewer(oldCa)), await client(viewer(oldCa, 'bob')), await client(viewer(oldCa, 'carol'))];
  await Promise.all([alice.getNode({}, none), bob.getNode({}, none)]);
  await assert.rejects(carol.getNode({}, none), { code: 'AGENT_UNREACHABLE' });
  await alice.getNode({}, none);
}));
