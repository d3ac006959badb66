/** Health and reflection, asked by a client that knows nothing but gRPC and the published messages. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import type { MethodDefinition } from '@grpc/grpc-js';
import { loadDefinitions, serverFiles } from '../../src/rpc/definitions.ts';
import { eventually, harness } from './harness.ts';

type Method = MethodDefinition<object, object>;
const definitions = loadDefinitions(serverFiles);

function method(service: string, name: string): Method {
  const found = definitions.service(service)[name];
  assert.ok(found);
  return found;
}

async function raw<T>(socket: string, use: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client(`unix:${socket}`, credentials.createInsecure());
  try {
    return await use(client);
  } finally {
    client.close();
  }
}

function check(client: Client, service: string): Promise<object> {
  const { path, requestSerialize, responseDeserialize } = method('grpc.health.v1.Health', 'Check');
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, { service }, new Metadata(), (error, value) => (error === null ? resolve(value ?? {}) : reject(error)));
  });
}

void test('health: Check', async () => {
  await using h = await harness();
  await raw(h.socket, async (client) => {
    assert.deepEqual(await check(client, ''), { status: 'SERVING' });
    h.server.setServing(false);
    assert.deepEqual(await check(client, 'stasis.agent.v1.Agent'), { status: 'NOT_SERVING' });
    await assert.rejects(check(client, 'nonsense'), { code: 5 });
  });
});

void test('health: Watch tells every change', async () => {
  await using h = await harness();
  await raw(h.socket, async (client) => {
    const { path, requestSerialize, responseDeserialize } = method('grpc.health.v1.Health', 'Watch');
    const seen: string[] = [];
    const call = client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, { service: '' });
    call.on('data', (answer: { status: string }) => seen.push(answer.status));
    call.on('error', () => undefined);
    await eventually('the first answer', () => seen.length === 1);
    h.server.setServing(false);
    h.server.setServing(true);
    await eventually('both changes', () => seen.length === 3);
    assert.deepEqual(seen, ['SERVING', 'NOT_SERVING', 'SERVING']);
    call.cancel();
  });
});

for (const version of ['v1', 'v1alpha']) {
  void test(`reflection ${version}: services, files and symbols`, async () => {
    await using h = await harness();
    await raw(h.socket, async (client) => {
      const { path, requestSerialize, responseDeserialize } = method(`grpc.reflection.${version}.ServerReflection`, 'ServerReflectionInfo');
      const call = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize);
      const answers = call[Symbol.asyncIterator]() as AsyncIterator<Record<string, unknown>>;
      const ask = async (question: object): Promise<Record<string, unknown>> => {
        call.write(question);
        return (await answers.next()).value as Record<string, unknown>;
      };
      const listed = await ask({ listServices: '' });
      const names = (listed['listServicesResponse'] as { service: { name: string }[] }).service.map(({ name }) => name);
      assert.deepEqual(names, ['grpc.health.v1.Health', 'grpc.reflection.v1.ServerReflection', 'grpc.reflection.v1alpha.ServerReflection', 'stasis.agent.v1.Agent']);

      for (const symbol of ['stasis.agent.v1.Agent', 'stasis.agent.v1.CheckpointRequest', 'stasis.agent.v1.Agent.WatchOperations']) {
        const found = await ask({ fileContainingSymbol: symbol });
        const [bytes] = (found['fileDescriptorResponse'] as { fileDescriptorProto: Buffer[] }).fileDescriptorProto;
        assert.ok(bytes, symbol);
        // What a tool does with it: build the service from the descriptor alone.
        const rebuilt = protoLoader.loadFileDescriptorSetFromBuffer(Buffer.concat([Buffer.of(0x0a), varint(bytes.length), bytes]), { keepCase: true });
        const agent = rebuilt['stasis.agent.v1.Agent'] as Record<string, Method>;
        assert.equal(agent['Checkpoint']?.path, '/stasis.agent.v1.Agent/Checkpoint');
        assert.equal(agent['Checkpoint'].responseStream, true);
        const request = rebuilt['stasis.agent.v1.CheckpointRequest'] as unknown as { serialize: (value: object) => Buffer };
        assert.ok(request.serialize({ leave_running: true }).length > 0, 'fields have the names of the file');
      }
      const unknown = await ask({ fileContainingSymbol: 'no.such.Thing' });
      assert.equal((unknown['errorResponse'] as { errorCode: number }).errorCode, 5);
      call.end();
    });
  });
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (; value > 127; value >>>= 7) bytes.push((value & 127) | 128);
  return Buffer.from([...bytes, value]);
}

void test('a method that does not exist, and bytes that are no message', async () => {
  await using h = await harness();
  await raw(h.socket, async (client) => {
    const id = (bytes: Buffer): Buffer => bytes;
    const send = (path: string, bytes: Buffer): Promise<unknown> => new Promise((resolve, reject) => {
      client.makeUnaryRequest(path, id, id, bytes, new Metadata(), (error, value) => (error === null ? resolve(value) : reject(error)));
    });
    await assert.rejects(send('/stasis.agent.v1.Agent/Explode', Buffer.alloc(0)), { code: 12 });
    await assert.rejects(send('/stasis.agent.v1.Agent/GetNode', Buffer.from('ffffffffff', 'hex')), { code: 13 });
    await send('/stasis.agent.v1.Agent/GetNode', Buffer.alloc(0));
  });
});
