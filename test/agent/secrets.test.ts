/**
 * A container keeps a canary wherever config.json can hold a secret. Every call is made as every role, and the canary is
 * looked for in all answers, errors, log lines and metrics. Only who may restore gets the whole description.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { connectAgent } from '../../src/rpc/client.ts';
import type { AgentClient } from '../../src/rpc/api.ts';
import type { ImportMessage } from '../../src/rpc/archives.ts';
import { allowedRoles, roles } from '../../src/rpc/roles.ts';
import type { MethodName, Role } from '../../src/rpc/roles.ts';
import { secretsOf, withoutSecrets } from '../../src/agent/secrets.ts';
import { StasisError } from '../../src/core/errors.ts';
import { newCheckpointId } from '../../src/core/ids.ts';
import { authority, identity, writeTls } from '../rpc/certificates.ts';
import { checkpoint, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startContainer, type Spec, type TestContainer } from '../support/containers.ts';

const CANARY = 'canary-93c1';
const METRICS = '127.0.0.1:9466';
const none = { signal: undefined };

/** In environment, arguments, annotations, mount options and hooks. The hooks fail only where the file is. */
function withCanaries(spec: Spec): void {
  spec['process'].env.push(`DATABASE_PASSWORD=${CANARY}-env`);
  spec['process'].args.push(`${CANARY}-argument`, `--token=${CANARY}-option`);
  spec['annotations'] = { 'example.org/token': `${CANARY}-annotation`, [`example.org/label`]: `${CANARY}-label` };
  spec['mounts'].push({ destination: '/tmp', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'size=1M', 'mode=1777'] });
  const hook = { path: '/bin/sh', args: ['sh', '-c', '[ ! -e /srv/canary-hook ] || { cat; env; echo "$1" ; exit 1; } >&2', `${CANARY}-hook`, `${CANARY}-hookarg`], env: [`HOOK_SECRET=${CANARY}-hookenv`] };
  spec['hooks'] = { createRuntime: [hook] };
}

let home: AgentHome;
let agent: TestAgent;
let container: TestContainer;
let saved: string;
const clients = new Map<Role, AgentClient>();

before(async () => {
  home = makeHome();
  const ca = authority('clients and servers');
  const tls = writeTls(home.state, identity(ca, 'node-1', []), ca);
  agent = await startAgent(home, { STASIS_LISTEN_ADDRESS: '127.0.0.1:0', STASIS_LISTEN_TLS_CERT: tls.cert, STASIS_LISTEN_TLS_KEY: tls.key, STASIS_LISTEN_TLS_CA: tls.ca, STASIS_LOG_LEVEL: 'debug', STASIS_METRICS_LISTEN: METRICS });
  container = await startContainer({ runtime: 'runc', id: `secrets-${process.pid}`, args: ['/bin/sh', '-c', 'while :; do sleep 0.2; done'], edit: withCanaries });
  saved = (await checkpoint(agent, container.id, { leaveRunning: true })).checkpoint;
  const address = String(agent.log.filter(({ event }) => event === 'rpc.listening').at(-1)?.['address']);
  for (const role of roles) clients.set(role, await connectAgent({ address: address.startsWith('unix:') ? String(agent.log.find((line) => String(line['address']).startsWith('127.'))?.['address']) : address, tls: writeTls(home.state, identity(ca, role, [role]), ca) }));
});

after(async () => {
  rmSync('/srv/canary-hook', { force: true });
  for (const client of clients.values()) client.close();
  await container?.stop();
  await removeHome(home);
});

/** All that a call answers: messages or the error with all that it carries. Streams without end are left after a moment. */
async function told(answer: Promise<unknown> | AsyncIterable<unknown>): Promise<string> {
  const parts: unknown[] = [];
  try {
    if (Symbol.asyncIterator in answer) for await (const message of answer) parts.push(message);
    else parts.push(await answer);
  } catch (error) {
    const { code, message, hint, details } = error as Record<string, unknown>;
    parts.push({ code, message, hint, details });
  }
  return JSON.stringify(parts, (_key, value: unknown) => (value instanceof Uint8Array ? '' : value));
}

async function* nothing(): AsyncGenerator<ImportMessage> {
  yield { type: 'start', start: { source: 'x.tar', reason: '' } };
}

const restoreFlags = { reason: '', clone: true, tcpEstablished: false, tcpClose: false, fileLocks: false, extUnixSk: false, shellJob: false, ignoreCompatibility: false, keep: false };

/** Each method once, where it can with the checkpoint or the container that has the canaries. */
const calls: Readonly<Record<MethodName, (client: AgentClient) => Promise<unknown> | AsyncIterable<unknown>>> = {
  checkpoint: (client) => client.checkpoint({ container: container.id, reason: '', leaveRunning: true, tcpEstablished: false, fileLocks: false, extUnixSk: false, shellJob: false, newLineage: false, keep: false }, none),
  restore: (client) => client.restore({ ...restoreFlags, checkpoint: saved }, none),
  listContainers: (client) => client.listContainers({ all: true }, none),
  listCheckpoints: (client) => client.listCheckpoints({ pageSize: 0, pageToken: '' }, none),
  inspectCheckpoint: (client) => client.inspectCheckpoint({ checkpoint: saved }, none),
  verifyCheckpoint: (client) => client.verifyCheckpoint({ checkpoint: saved }, none),
  deleteCheckpoint: (client) => client.deleteCheckpoint({ checkpoint: newCheckpointId(Date.now()), reason: '' }, none),
  watchOperations: (client) => client.watchOperations({}, { signal: AbortSignal.timeout(1000) }),
  cancelOperation: (client) => client.cancelOperation({ operationId: 'nothing' }, none),
  getNode: (client) => client.getNode({}, none),
  exportCheckpoint: (client) => client.exportCheckpoint({ checkpoint: saved, reason: '', acceptPlaintext: true }, none),
  importCheckpoint: (client) => client.importCheckpoint(nothing(), none),
  pinCheckpoint: (client) => client.pinCheckpoint({ checkpoint: saved, pinned: false, reason: '' }, none),
  repositoryStats: (client) => client.repositoryStats({}, none),
  checkRepository: (client) => client.checkRepository({ readData: true }, none),
  pruneRepository: (client) => client.pruneRepository({ dryRun: true, reason: '' }, none),
  probeStore: (client) => client.probeStore({}, none),
  getKeys: (client) => client.getKeys({}, none),
  listLineageKeys: (client) => client.listLineageKeys({}, none),
  changeRecipients: (client) => client.changeRecipients({ lineages: [], add: [], remove: [], rotate: true, exact: false, endLineages: false, dryRun: true, reason: '' }, none),
  shredLineages: (client) => client.shredLineages({ lineages: ['ab'.repeat(16)], force: false, dryRun: true, reason: '' }, none),
};

void describe('secrets of a container', () => {
  for (const role of roles) {
    for (const method of Object.keys(allowedRoles) as MethodName[]) {
      if (role === 'restorer' && method === 'inspectCheckpoint') continue;
      it(`${method} does not tell them to a ${role}`, async () => {
        const answer = await told(calls[method](clients.get(role)!));
        assert.ok(!answer.includes(CANARY), answer.slice(Math.max(0, answer.indexOf(CANARY) - 200), answer.indexOf(CANARY) + 100));
        const allowed = allowedRoles[method].includes(role);
        assert.equal(answer.includes('"PERMISSION_DENIED"'), !allowed, answer.slice(0, 300));
      });
    }
  }

  it('a viewer learns the names of variables, the program and the mounts all the same', async () => {
    const { descriptionJson } = await clients.get('viewer')!.inspectCheckpoint({ checkpoint: saved }, none);
    const { containers: [shown] } = JSON.parse(descriptionJson) as { containers: { spec: Spec }[] };
    assert.deepEqual(shown?.spec['process'].env, ['PATH', 'DATABASE_PASSWORD']);
    assert.deepEqual([shown?.spec['process'].args, shown?.spec['process'].argumentCount], [['/bin/sh'], 5]);
    assert.deepEqual(shown?.spec['mounts'].find((mount: Spec) => mount['destination'] === '/tmp').options, ['nosuid']);
    assert.equal(shown?.spec['annotations'], undefined);
  });

  it('who may restore gets the description as it is stored', async () => {
    const { descriptionJson } = await clients.get('restorer')!.inspectCheckpoint({ checkpoint: saved }, none);
    for (const place of ['env', 'argument', 'option', 'annotation', 'label', 'hook', 'hookarg', 'hookenv']) assert.ok(descriptionJson.includes(`${CANARY}-${place}`), place);
  });

  it('a hook that fails and prints all it knows tells nobody', async () => {
    const [directory, id] = ['/srv/canary', `secrets-copy-${process.pid}`];
    const spec = JSON.parse(readFileSync(join(container.bundle, 'config.json'), 'utf8')) as Spec;
    spec['linux'].cgroupsPath = `/${id}`;
    for (const name of ['bundle/rootfs', 'upper', 'work']) mkdirSync(join(directory, name), { recursive: true });
    writeFileSync(join(directory, 'bundle/config.json'), JSON.stringify(spec));
    execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', `lowerdir=/,upperdir=${directory}/upper,workdir=${directory}/work`, join(directory, 'bundle/rootfs')]);
    writeFileSync('/srv/canary-hook', '');
    try {
      const error = await restore(agent, saved, { clone: true, container: id, bundle: join(directory, 'bundle') }).then(() => undefined, (thrown: unknown) => thrown as Error);
      assert.match(String(error?.message), /hook|action scripts failed/);
      const answers = await Promise.all([told(Promise.reject(error as Error)), ...roles.map((role) => told(calls.watchOperations(clients.get(role)!)))]);
      for (const answer of answers) assert.ok(!answer.includes(CANARY), answer.slice(Math.max(0, answer.indexOf(CANARY) - 300), answer.indexOf(CANARY) + 100));
    } finally {
      rmSync('/srv/canary-hook', { force: true });
      execFileSync('umount', ['-l', join(directory, 'bundle/rootfs')]);
      rmSync(directory, { recursive: true, force: true });
    }
  });

  it('an error that quotes them is told without', () => {
    const spec = { process: { args: ['sh', '--token=abc123'], env: ['PASSWORD=hunter2-x', 'HOME=/root'] }, annotations: { a: 'note-of-mine' }, mounts: [{ destination: '/x', options: ['password=s3cret!'] }], hooks: { poststop: [{ path: '/h', args: ['h', 'hook-word'], env: ['H=hook-env'] }] } };
    const text = 'abc123 hunter2-x note-of-mine s3cret! hook-word hook-env /root';
    const told = withoutSecrets(new StasisError('RESTORE_FAILED', text, { hint: text, details: { runtime: text, status: 1 }, cause: new Error(text) }), secretsOf(spec));
    const clean = '[hidden] [hidden] [hidden] [hidden] [hidden] [hidden] /root';
    assert.deepEqual([told.code, told.message, told.hint, told.details, told.cause], ['RESTORE_FAILED', clean, clean, { runtime: clean, status: 1 }, undefined]);
    const other = new StasisError('RESTORE_FAILED', 'nothing in it', { cause: new Error('x') });
    assert.equal(withoutSecrets(other, secretsOf(spec)), other);
  });

  it('neither log nor metrics have them', async () => {
    const metrics = await (await fetch(`http://${METRICS}/metrics`)).text();
    assert.match(metrics, /stasis_rpc_calls_total/);
    assert.ok(!metrics.includes(CANARY));
    const leaks = agent.log.filter((line) => JSON.stringify(line).includes(CANARY));
    assert.deepEqual(leaks, []);
    assert.ok(agent.log.some(({ event }) => event === 'restore.failed'));
  });
});
