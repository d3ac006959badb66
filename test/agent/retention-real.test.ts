/** Retention, pins, quota, prune and check with a real agent and real containers. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { collect } from '../rpc/harness.ts';
import { assertNothingUnfinished, checkpoint, checkpointIds, makeHome, removeHome, restore, startAgent, type AgentHome } from '../support/agent.ts';
import { startCounter } from '../support/counter.ts';

const none = { signal: undefined };
let home: AgentHome;

before(() => {
  home = makeHome();
});

after(async () => {
  await removeHome(home);
});

void it('keeps the last, and what is pinned; refuses before the freeze what does not fit; prunes what a dead writer left', { timeout: 120_000 }, async () => {
  await using stack = new AsyncDisposableStack();
  const counter = await startCounter('runc');
  stack.defer(() => counter.stop());
  let agent = await startAgent(home, { STASIS_RETENTION_LAST: '2' });
  const first = await checkpoint(agent, counter.id, { leaveRunning: true });
  await agent.client.pinCheckpoint({ checkpoint: first.checkpoint, pinned: true, reason: 'golden' }, none);
  await assert.rejects(agent.client.deleteCheckpoint({ checkpoint: first.checkpoint, reason: '' }, none), { code: 'CHECKPOINT_IN_USE' });
  const made: string[] = [];
  for (let i = 0; i < 3; i += 1) made.push((await checkpoint(agent, counter.id, { leaveRunning: true })).checkpoint);
  const wanted = [first.checkpoint, made[1], made[2]].sort();
  for (let i = 0; i < 100 && (await checkpointIds(agent)).length > 3; i += 1) await delay(50);
  assert.deepEqual((await checkpointIds(agent)).sort(), wanted);
  const { checkpoints } = await agent.client.listCheckpoints({ pageSize: 0, pageToken: '' }, none);
  assert.deepEqual(checkpoints.filter(({ pinned }) => pinned).map(({ id }) => id), [first.checkpoint]);
  // The packs go behind the manifest, but for those with pages that a younger checkpoint needs.
  for (let i = 0; i < 100 && (await agent.client.repositoryStats({}, none)).loosePacks > 0; i += 1) await delay(50);
  assertNothingUnfinished(agent);

  const stats = await agent.client.repositoryStats({}, none);
  assert.deepEqual([stats.checkpoints, stats.lineages, stats.pins, stats.loosePacks], [3, 1, 1, 0]);
  assert.equal(await agent.stop(), 0);

  agent = await startAgent(home, { STASIS_REPOSITORY_QUOTA: String(stats.bytes + 1000), STASIS_REPOSITORY_GRACE: '1ms' });
  await assert.rejects(checkpoint(agent, counter.id, { leaveRunning: true }), { code: 'NO_SPACE' });
  assert.ok(!agent.log.some(({ event }) => event === 'checkpoint.frozen'));
  // A pack of nobody: as of a writer on a node that is gone.
  const packs = join(home.state, 'repository/packs');
  const [some = ''] = readdirSync(packs);
  writeFileSync(join(packs, `06h00703fak81tpvg107-${some.slice(21)}`), readFileSync(join(packs, some)), { mode: 0o600 });
  const dry = (await collect(agent.client.pruneRepository({ dryRun: true, reason: '' }, none))).at(-1);
  assert.ok(dry?.type === 'report' && dry.report.packs === 1);
  const pruned = (await collect(agent.client.pruneRepository({ dryRun: false, reason: '' }, none))).at(-1);
  assert.ok(pruned?.type === 'report' && pruned.report.packs === 1 && pruned.report.problems.length === 0, JSON.stringify(pruned));
  for (const readData of [false, true]) {
    const checked = (await collect(agent.client.checkRepository({ readData }, none))).at(-1);
    assert.ok(checked?.type === 'report' && checked.report.checkpoints === 3 && checked.report.problems.length === 0);
  }
  await counter.stop();
  const restored = await restore(agent, made[2] ?? '', { container: `${counter.id}-back` });
  assert.ok(restored.pid > 0);
  execFileSync('runc', ['delete', '--force', restored.container]);
  await agent.client.pinCheckpoint({ checkpoint: first.checkpoint, pinned: false, reason: '' }, none);
  for (const id of await checkpointIds(agent)) await agent.client.deleteCheckpoint({ checkpoint: id, reason: '' }, none);
  assert.deepEqual(readdirSync(packs), []);
  assert.deepEqual(readdirSync(join(home.state, 'repository/writers')), []);
  assert.equal(await agent.stop(), 0);
});
