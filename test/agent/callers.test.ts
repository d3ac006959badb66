/** Callers who are slow, asleep, greedy or not the one who asked: others do not wait for them, nor lose their work to them. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { newOperationId } from '../../src/core/ids.ts';
import { connectAgent } from '../../src/rpc/client.ts';
import type { AgentClient } from '../../src/rpc/api.ts';
import type { ImportMessage } from '../../src/rpc/archives.ts';
import { agentService, loadDefinitions } from '../../src/rpc/definitions.ts';
import { authority, identity, writeTls } from '../rpc/certificates.ts';
import { checkpoint, makeHome, removeHome, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startContainer, waitForOutput, type TestContainer } from '../support/containers.ts';
import { join } from 'node:path';

const none = { signal: undefined };
/** More memory than fits into the buffers between an export and who reads it: sixteen messages of 1 MiB on either side, and some. */
const HOLDER = 'import os,time\nb=os.urandom(96*1024*1024)\nprint("ready",flush=True)\nwhile True: time.sleep(1)';

let home: AgentHome;
let agent: TestAgent;
let container: TestContainer;
let saved: string;
const ca = authority('clients and servers');

before(async () => {
  home = makeHome();
  const tls = writeTls(home.state, identity(ca, 'node-1', []), ca);
  agent = await startAgent(home, { STASIS_LISTEN_ADDRESS: '127.0.0.1:0', STASIS_LISTEN_TLS_CERT: tls.cert, STASIS_LISTEN_TLS_KEY: tls.key, STASIS_LISTEN_TLS_CA: tls.ca, STASIS_OPERATIONS_STALL: '8s' });
  container = await startContainer({ runtime: 'runc', id: `callers-${process.pid}`, args: ['/usr/bin/python3', '-c', HOLDER] });
  await waitForOutput(container.outputFile, (text) => text.includes('ready'));
  saved = (await checkpoint(agent, container.id, { leaveRunning: true })).checkpoint;
});

after(async () => {
  await container?.stop();
  await removeHome(home);
});

function as(name: string, ...units: string[]): Promise<AgentClient> {
  const address = String(agent.log.find((line) => String(line['address']).startsWith('127.'))?.['address']);
  return connectAgent({ address, tls: writeTls(home.state, identity(ca, name, units), ca) });
}

/** An export of which one answer is read and no more: grpc-js takes all from the network until somebody has read once. */
function sleepingExport(): { /** With its status. */ ended: Promise<unknown>; wake(): void; close(): void } {
  const client = new Client(`unix:${join(home.run, 'agent.sock')}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  const { path, requestSerialize, responseDeserialize } = loadDefinitions().service(agentService)['ExportCheckpoint']!;
  const call = client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, { checkpoint: saved, reason: 'asleep', acceptPlaintext: true }, new Metadata());
  call.once('data', () => call.pause());
  // A success has no error, and shall not be waited for.
  const ended = new Promise((resolve) => { call.on('error', () => undefined).on('status', resolve); });
  return { ended, wake: () => void call.on('data', () => undefined).resume(), close: () => client.close() };
}

async function operations(kind: string): Promise<{ id: string; state: string; error?: { code: string } }[]> {
  for await (const event of agent.client.watchOperations({}, none)) {
    if (event.type === 'snapshot') return event.snapshot.operations.filter((operation) => operation.kind === kind);
  }
  return [];
}

function isActive({ state }: { state: string }): boolean {
  return state === 'queued' || state === 'running';
}

/** Exports that are active when they are first looked at, or come later. */
function watchedExports(): { running(): Promise<number>; anyOver(): boolean } {
  const seen = new Set<string>();
  let now: readonly { id: string; state: string }[] = [];
  return {
    async running() {
      now = (await operations('export')).filter(isActive);
      for (const { id } of now) seen.add(id);
      return now.filter(({ state }) => state === 'running').length;
    },
    anyOver: () => [...seen].some((one) => !now.some(({ id }) => id === one)),
  };
}

async function until(what: string, check: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < 2400; i += 1) {
    if (await check()) return;
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
  throw new Error(`not within two minutes: ${what}`);
}

void describe('callers', () => {
  it('exports that nobody reads hold up no checkpoint', async () => {
    // The machine may be slower than the stall limit: then the exports are over before the checkpoint begins, and it is tried again.
    const attempt = async (): Promise<boolean> => {
      let beside = false;
      await until('no export runs', async () => !(await operations('export')).some(isActive));
      // One caller has one export of a checkpoint at a time.
      const other = await as('rita', 'restorer');
      const sleeper = sleepingExport();
      const second = other.exportCheckpoint({ checkpoint: saved, reason: 'asleep', acceptPlaintext: true }, none)[Symbol.asyncIterator]();
      void second.next().catch(() => undefined);
      const exports = watchedExports();
      try {
        await until('both exports write, or one is over', async () => (await exports.running()) === 2 || exports.anyOver());
        const operationId = newOperationId();
        const saving = checkpoint(agent, container.id, { leaveRunning: true, operationId });
        let ended = false;
        void saving.then(() => { ended = true; }, () => { ended = true; });
        await until('the checkpoint runs, or an export is over', async () => {
          const runs = (await operations('checkpoint')).some(({ id, state }) => id === operationId && state === 'running');
          // Asked after it: what still runs then ran at the same time.
          beside ||= runs && (await exports.running()) === 2;
          return beside || exports.anyOver() || ended;
        });
        await saving;
      } finally {
        sleeper.close();
        other.close();
      }
      return beside;
    };
    let done = false;
    for (let count = 0; count < 10 && !done; count += 1) done = await attempt();
    assert.ok(done, 'a checkpoint ran while two exports waited for their callers');
  });

  it('an export that nobody reads is cut after the stall limit', async () => {
    await until('no export runs', async () => !(await operations('export')).some(isActive));
    const sleeper = sleepingExport();
    const exports = watchedExports();
    try {
      await until('it has been cut', async () => (await exports.running()) === 0 && exports.anyOver());
      sleeper.wake();
      assert.equal((await sleeper.ended as { code: number }).code, 4);
    } finally {
      sleeper.close();
    }
  });

  it('an import whose caller falls silent ends after the stall limit', async () => {
    async function* silent(): AsyncGenerator<ImportMessage> {
      yield { type: 'start', start: { source: 'x.tar', reason: '' } };
      await new Promise((resolve) => { setTimeout(resolve, 20_000).unref(); });
    }
    await assert.rejects(Array.fromAsync(agent.client.importCheckpoint(silent(), none)), { code: 'DEADLINE_EXCEEDED', message: /sent nothing for 8000 ms/ });
  });

  it('work is cancelled by who asked for it and by operators, and by nobody else', async () => {
    const [rita, rob, olga, kim] = await Promise.all([as('rita', 'restorer'), as('rob', 'restorer'), as('olga', 'operator'), as('kim', 'keeper')]);
    const forged = await as('local', 'restorer');
    try {
      for (const canceller of [rita, olga]) {
        const operationId = newOperationId();
        async function* waiting(): AsyncGenerator<ImportMessage> {
          yield { type: 'start', start: { source: 'x.tar', reason: '', operationId } };
          await new Promise((resolve) => { setTimeout(resolve, 20_000).unref(); });
        }
        const ended = Array.fromAsync(rita.importCheckpoint(waiting(), none)).then(() => 'done', (error: { code: string }) => error.code);
        await until('it runs', async () => (await operations('import')).some(({ id, state }) => id === operationId && state === 'running'));
        for (const stranger of [rob, kim, forged]) await assert.rejects(stranger.cancelOperation({ operationId }, none), { code: 'PERMISSION_DENIED', message: /of "rita"/ });
        await canceller.cancelOperation({ operationId }, none);
        assert.equal(await ended, 'CANCELLED');
      }
      const operationId = newOperationId();
      const local = checkpoint(agent, container.id, { leaveRunning: true, operationId });
      await until('it is known', async () => (await operations('checkpoint')).some(({ id }) => id === operationId));
      await assert.rejects(forged.cancelOperation({ operationId }, none), { code: 'PERMISSION_DENIED' });
      await local;
    } finally {
      for (const client of [rita, rob, olga, kim, forged]) client.close();
    }
  });
});
