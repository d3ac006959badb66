import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { ImportMessage } from '../../src/rpc/archives.ts';
import type { AgentClient } from '../../src/rpc/api.ts';
import { connectAgent } from '../../src/rpc/client.ts';
import { allowedRoles, roles } from '../../src/rpc/roles.ts';
import type { MethodName, Role } from '../../src/rpc/roles.ts';
import { authority, identity, writeTls } from './certificates.ts';
import { collect, harness, temporaryDirectory } from './harness.ts';
import type { Harness } from './harness.ts';
import { checkpointRequest } from './scripted-agent.ts';

const none = { signal: undefined };
const restoreRequest = { checkpoint: 'x', reason: '', clone: false, tcpEstablished: false, tcpClose: false, fileLocks: false, extUnixSk: false, shellJob: false, ignoreCompatibility: false, keep: false };

async function* archive(): AsyncGenerator<ImportMessage> {
  yield { type: 'start', start: { source: 'x.tar', reason: '' } };
  yield { type: 'data', data: { bytes: Buffer.from('bytes') } };
}

const call: Readonly<Record<MethodName, (client: AgentClient) => Promise<unknown>>> = {
  checkpoint: (client) => collect(client.checkpoint(checkpointRequest, none)),
  restore: (client) => collect(client.restore(restoreRequest, none)),
  listContainers: (client) => client.listContainers({ all: false }, none),
  listCheckpoints: (client) => client.listCheckpoints({ pageSize: 0, pageToken: '' }, none),
  inspectCheckpoint: (client) => client.inspectCheckpoint({ checkpoint: 'x' }, none),
  verifyCheckpoint: (client) => collect(client.verifyCheckpoint({ checkpoint: 'x' }, none)),
  deleteCheckpoint: (client) => client.deleteCheckpoint({ checkpoint: 'x', reason: '' }, none),
  watchOperations: (client) => collect(client.watchOperations({ operationId: 'op-1' }, none)),
  // Allowed callers get as far as the handler, which knows no such operation.
  cancelOperation: (client) => client.cancelOperation({ operationId: 'nothing' }, none).catch((error: unknown) => {
    if ((error as { code: string }).code !== 'OPERATION_NOT_FOUND') throw error;
  }),
  getNode: (client) => client.getNode({}, none),
  exportCheckpoint: (client) => collect(client.exportCheckpoint({ checkpoint: 'x', reason: '', acceptPlaintext: true }, none)),
  importCheckpoint: (client) => collect(client.importCheckpoint(archive(), none)),
  pinCheckpoint: (client) => client.pinCheckpoint({ checkpoint: 'x', pinned: true, reason: '' }, none),
  repositoryStats: (client) => client.repositoryStats({}, none),
  checkRepository: (client) => collect(client.checkRepository({ readData: false }, none)),
  getKeys: (client) => client.getKeys({}, none),
  listLineageKeys: (client) => client.listLineageKeys({}, none),
  changeRecipients: (client) => collect(client.changeRecipients({ lineages: [], add: [], remove: [], rotate: true, exact: false, endLineages: false, dryRun: false, reason: '' }, none)),
  shredLineages: (client) => client.shredLineages({ lineages: ['ab'.repeat(16)], force: false, dryRun: false, reason: '' }, none),
  pruneRepository: (client) => collect(client.pruneRepository({ dryRun: true, reason: '' }, none)),
  probeStore: (client) => client.probeStore({}, none),
};

void describe('mutual TLS', () => {
  const ca = authority('clients and servers');
  const otherCa = authority('somebody else');
  let h: Harness;
  let directory: Awaited<ReturnType<typeof temporaryDirectory>>;
  let address: string;

  before(async () => {
    directory = await temporaryDirectory();
    h = await harness({ listen: { address: '127.0.0.1:0', tls: writeTls(directory.path, identity(ca, 'node-1', []), ca) } });
    address = h.server.addresses[1] ?? '';
  });
  after(async () => {
    await h[Symbol.asyncDispose]();
    await directory[Symbol.asyncDispose]();
  });

  async function as<T>(tls: { cert: string; key: string; ca: string }, use: (client: AgentClient) => Promise<T>): Promise<T> {
    const client = await connectAgent({ address, tls });
    try {
      return await use(client);
    } finally {
      client.close();
    }
  }

  for (const role of [...roles, 'nobody'] as const) {
    void test(`${role} may do what the table says and nothing else`, async () => {
      await as(writeTls(directory.path, identity(ca, 'alice', [role]), ca), async (client) => {
        for (const [method, allowed] of Object.entries(allowedRoles) as [MethodName, readonly Role[]][]) {
          if ((allowed as readonly string[]).includes(role)) await call[method](client);
          else await assert.rejects(call[method](client), { code: 'PERMISSION_DENIED', message: new RegExp(`"alice" may not call ${method}: .* needs ${allowed.join(' or ')}`) }, method);
        }
      });
    });
  }

  void test('several units are several roles, unknown ones mean nothing', async () => {
    const node = await as(writeTls(directory.path, identity(ca, 'bob', ['ops team', 'restorer', 'viewer']), ca), (client) => client.getNode({}, none));
    assert.deepEqual([...node.callerRoles].sort(), ['restorer', 'viewer']);
    assert.equal(h.script.calls.at(-1)?.context.caller.principal, 'bob');
  });

  void test('a denial is logged with the name of the caller', async () => {
    await as(writeTls(directory.path, identity(ca, 'mallory', ['viewer']), ca), (client) => assert.rejects(call.restore(client)));
    assert.ok(h.events.some(({ name, fields }) => name === 'rpc.denied' && fields['caller'] === 'mallory'));
  });

  void test('an error nobody foresaw does not show its insides to the network', async () => {
    await as(writeTls(directory.path, identity(ca, 'alice', ['viewer']), ca), (client) =>
      assert.rejects(client.inspectCheckpoint({ checkpoint: 'boom' }, none), (error: Error) => !error.message.includes('secret') && /failed inside the agent/.test(error.message)));
  });

  void test('an expired certificate is refused', async () => {
    await as(writeTls(directory.path, identity(ca, 'alice', ['viewer'], Date.now() - 60_000), ca), (client) => assert.rejects(call.getNode(client), { name: 'StasisError' }));
  });

  void test('a certificate of an unknown authority is refused', async () => {
    await as(writeTls(directory.path, identity(otherCa, 'alice', ['operator']), ca), (client) => assert.rejects(call.getNode(client), { name: 'StasisError' }));
  });

  void test('a server of an unknown authority is refused by the client, which says so', async () => {
    await as(writeTls(directory.path, identity(ca, 'alice', ['viewer']), otherCa), (client) => assert.rejects(call.getNode(client), { code: 'UNAUTHENTICATED', hint: /signed by the other side's CA/ }));
  });

  void test('the name in the certificate of the server must fit', async () => {
    const tls = writeTls(directory.path, identity(ca, 'alice', ['viewer']), ca);
    for (const [serverName, fits] of [['localhost', true], ['127.0.0.1', true], ['elsewhere', false], ['127.0.0.2', false]] as const) {
      const client = await connectAgent({ address, tls, serverName });
      if (fits) await call.getNode(client);
      else await assert.rejects(call.getNode(client), { code: 'UNAUTHENTICATED' }, serverName);
      client.close();
    }
  });

  void test('plaintext is refused', async () => {
    const { Client, credentials, Metadata } = await import('@grpc/grpc-js');
    const client = new Client(address, credentials.createInsecure());
    const id = (bytes: Buffer): Buffer => bytes;
    await assert.rejects(new Promise((resolve, reject) => {
      client.makeUnaryRequest('/stasis.agent.v1.Agent/GetNode', id, id, Buffer.alloc(0), new Metadata(), { deadline: Date.now() + 2000 }, (error, value) => (error === null ? resolve(value) : reject(error)));
    }));
    client.close();
  });

  void test('the server does not start with files that are missing or do not fit', async () => {
    const tls = writeTls(directory.path, identity(ca, 'node-1', []), ca);
    const stranger = writeTls(directory.path, identity(ca, 'node-2', []), ca);
    await assert.rejects(harness({ listen: { address: '127.0.0.1:0', tls: { ...tls, key: '/missing.pem' } } }), { code: 'CONFIG_INVALID', message: /missing\.pem/ });
    await assert.rejects(harness({ listen: { address: '127.0.0.1:0', tls: { ...tls, key: stranger.key } } }), { code: 'CONFIG_INVALID' });
    await assert.rejects(harness({ listen: { address, tls } }), { code: 'CONFIG_INVALID', message: /EADDRINUSE|cannot listen/ });
  });

  void test('client files that cannot be read or used are the user\'s to mend', async () => {
    const tls = writeTls(directory.path, identity(ca, 'alice', []), ca);
    await assert.rejects(connectAgent({ address, tls: { ...tls, cert: '/missing.pem' } }), { code: 'USAGE', message: /missing\.pem/ });
    await assert.rejects(connectAgent({ address, tls: { ...tls, cert: tls.key } }), { code: 'USAGE' });
  });
});
