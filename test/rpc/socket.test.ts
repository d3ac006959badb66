import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { lstat, readdir, unlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { claimSocket } from '../../src/rpc/socket.ts';
import { harness, temporaryDirectory } from './harness.ts';

const none = { signal: undefined };

void test('the socket is there with mode 0600, and gone afterwards with nothing else left', async () => {
  const h = await harness();
  const stat = await lstat(h.socket);
  assert.ok(stat.isSocket());
  assert.equal(stat.mode & 0o777, 0o600);
  h.client.close();
  await h.server.close({ graceMs: 100 });
  assert.deepEqual(await readdir(h.directory), ['agent.sock.lock']);
  await h[Symbol.asyncDispose]();
});

void test('until it is published, the socket lies in a private directory beside its name', async () => {
  await using directory = await temporaryDirectory();
  await using claimed = await claimSocket(join(directory.path, 'agent.sock'));
  const [room] = (await readdir(directory.path)).filter((name) => name !== 'agent.sock.lock');
  assert.equal(dirname(claimed.bindPath), join(directory.path, room ?? ''));
  assert.equal((await lstat(dirname(claimed.bindPath))).mode & 0o777, 0o700);
});

void test('a second agent is refused and does not disturb the first', async () => {
  await using h = await harness();
  await assert.rejects(harness({ socket: h.socket }), { code: 'AGENT_ALREADY_RUNNING', message: new RegExp(h.socket) });
  await h.client.getNode({}, none);
});

void test('also when the lock file was deleted', async () => {
  await using h = await harness();
  await unlink(`${h.socket}.lock`);
  await assert.rejects(harness({ socket: h.socket }), { code: 'AGENT_ALREADY_RUNNING' });
  await h.client.getNode({}, none);
});

void test('of ten agents that start at once one lives', async () => {
  await using directory = await temporaryDirectory();
  const socket = join(directory.path, 'agent.sock');
  const started = await Promise.allSettled(Array.from({ length: 10 }, () => harness({ socket })));
  const alive = started.filter((result) => result.status === 'fulfilled');
  assert.equal(alive.length, 1);
  for (const result of started) if (result.status === 'rejected') assert.equal((result.reason as { code: string }).code, 'AGENT_ALREADY_RUNNING');
  await alive[0]?.value[Symbol.asyncDispose]();
});

void test('the socket of an agent that was killed is replaced', async () => {
  await using directory = await temporaryDirectory();
  const socket = join(directory.path, 'agent.sock');
  const child = spawn(process.execPath, ['-e', `require('net').createServer().listen(${JSON.stringify(socket)}, () => console.log('up'))`], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.ok((await lstat(socket)).isSocket());
  await using h = await harness({ socket });
  assert.equal((await lstat(socket)).mode & 0o777, 0o600);
  const { connectAgent } = await import('../../src/rpc/client.ts');
  const client = await connectAgent({ socket });
  assert.equal((await client.getNode({}, none)).name, 'node-1');
  client.close();
  void h;
});

void test('what is not a socket, and a path that is too long, are refused', async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, 'agent.sock');
  await writeFile(path, 'a file');
  await assert.rejects(claimSocket(path), { code: 'CONFIG_INVALID', message: /is not a socket/ });
  await assert.rejects(claimSocket(`/${'x'.repeat(120)}`), { code: 'CONFIG_INVALID', message: /121 bytes/ });
});

void test('a socket that somebody else put there in the meantime is not removed', async () => {
  await using h = await harness();
  await unlink(h.socket);
  const other = createServer().listen(h.socket);
  await once(other, 'listening');
  await h.server.close({ graceMs: 100 });
  assert.ok((await lstat(h.socket)).isSocket());
  await new Promise((resolve) => other.close(resolve));
});
