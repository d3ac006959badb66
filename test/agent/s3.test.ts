/** The agent on a bucket: checkpoint, verify, restore, delete; killed before and after the commit; a store that goes away. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { processAlive } from '../../src/host/proc.ts';
import { codeOf } from '../repository/support.ts';
import { bucket, createBucket, testStore, useTestCredentials } from '../repository/s3/setup.ts';
import { checkpoint, checkpointIds, makeHome, oneAfterTheOther, removeHome, restore, type AgentHome } from '../support/agent.ts';
import { startCounter, type Counter } from '../support/counter.ts';
import { startRadosgw, type Radosgw } from '../support/radosgw.ts';
import { startFaultProxy, type FaultProxy } from '../support/s3-fault-proxy.ts';

const prefix = 'agent/test';

let server: Radosgw;
let proxy: FaultProxy;
let home: AgentHome;
let counter: Counter;

const agents = oneAfterTheOther(() => home, () => ({
  STASIS_REPOSITORY_S3_BUCKET: bucket, STASIS_REPOSITORY_S3_PREFIX: prefix, STASIS_REPOSITORY_S3_ENDPOINT: proxy.endpoint,
  STASIS_REPOSITORY_S3_PATIENCE: '3s',
}));

before(async () => {
  useTestCredentials();
  server = await startRadosgw();
  await createBucket(server.endpoint);
  proxy = await startFaultProxy(server.port);
  home = makeHome();
  counter = await startCounter('runc');
});

after(async () => {
  await counter?.stop();
  await removeHome(home);
  await proxy?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
});

afterEach(() => {
  proxy.decide = () => undefined;
});

/** Fences stay after a failure, against a put that comes late. */
async function objects(): Promise<string[]> {
  const store = await testStore(server.endpoint, { prefix });
  const names: string[] = [];
  for (const folder of ['packs/', 'manifests/', 'lineages/', 'writers/']) for await (const { name } of store.list(folder, { signal: undefined })) if (!name.endsWith('.fenced')) names.push(name);
  await store.close();
  return names;
}

void describe('the agent on a bucket', () => {
  void it('saves, verifies, brings back and deletes', async () => {
    const agent = await agents.now();
    const saved = await checkpoint(agent, counter.id);
    assert.equal(processAlive(counter.pid, counter.pidStart), false);
    assert.deepEqual(await checkpointIds(agent), [saved.checkpoint]);
    for await (const event of agent.client.verifyCheckpoint({ checkpoint: saved.checkpoint }, { signal: undefined })) {
      if (event.type === 'report') assert.equal(event.report.ok, true);
    }
    await counter.adopt(await restore(agent, saved.checkpoint));
    await counter.assertCounting();
    await agent.client.deleteCheckpoint({ checkpoint: saved.checkpoint, reason: 'test' }, { signal: undefined });
    assert.deepEqual(await objects(), []);
  });

  void it('tries its store when asked', async () => {
    const agent = await agents.now();
    const report = await agent.client.probeStore({}, { signal: undefined });
    assert.equal(report.usable, true, JSON.stringify(report.checks));
    assert.equal(report.store, `s3:${bucket}/${prefix}`);
  });

  // Around what a checkpoint writes to its store: faults.test.ts goes through all steps.
  for (const place of ['dump.after', 'seal', 'seal.after', 'commit.manifest', 'commit.after', 'finish']) {
    void it(`killed at ${place}: the container runs, the bucket is clean, the next checkpoint works`, async () => {
      const dying = await agents.now();
      dying.arm(`checkpoint.${place}=kill`);
      await checkpoint(dying, counter.id, { leaveRunning: true }).catch(() => undefined);
      await dying.exited;
      const agent = await agents.now();
      await counter.assertCounting();
      const ids = await checkpointIds(agent);
      if (ids.length === 0) assert.deepEqual(await objects(), []);
      ids.push((await checkpoint(agent, counter.id, { leaveRunning: true })).checkpoint);
      for (const id of ids) await agent.client.deleteCheckpoint({ checkpoint: id, reason: 'test' }, { signal: undefined });
      assert.deepEqual(await objects(), []);
    });
  }

  void it('a store that goes away: the checkpoint fails clearly, the container runs on, nothing is visible, the agent goes on', async () => {
    const agent = await agents.now();
    proxy.decide = ({ method }) => (method === 'PUT' ? 'slow-down' : undefined);
    const error = await checkpoint(agent, counter.id).then(() => undefined, (thrown: unknown) => thrown);
    assert.equal(codeOf(error), 'STORE_UNAVAILABLE');
    assert.match((error as Error).message, /SlowDown/);
    await counter.assertCounting();
    proxy.decide = () => undefined;
    assert.deepEqual(await objects(), []);
    const saved = await checkpoint(agent, counter.id, { leaveRunning: true });
    await agent.client.deleteCheckpoint({ checkpoint: saved.checkpoint, reason: 'test' }, { signal: undefined });
  });
});
