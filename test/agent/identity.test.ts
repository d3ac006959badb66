/** Keys and agents that do not belong together: wrong key files, foreign signers, two agents in one place. */
import assert from 'node:assert/strict';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { assertClean, checkpoint, checkpointIds, endAgents, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startCounter, type Counter } from '../support/counter.ts';

let homes: AgentHome[] = [];
let shared: string;
let counter: Counter;

before(async () => {
  shared = mkdtempSync('/srv/shared-');
  counter = await startCounter('runc');
});

after(async () => {
  await counter?.stop();
  rmSync(shared, { recursive: true, force: true });
});

afterEach(async () => {
  await endAgents();
  for (const home of homes) await removeHome(home);
  homes = [];
});

function newHome(): AgentHome {
  const home = makeHome();
  homes.push(home);
  return home;
}

const keyFile = (home: AgentHome): string => join(home.state, 'keys/node.key');

async function codeOf(attempt: Promise<unknown>): Promise<string> {
  return attempt.then(() => 'none', (error: unknown) => (error as { code?: string }).code ?? String(error));
}

async function refusal(start: Promise<TestAgent>): Promise<string> {
  return start.then(() => 'it started', (error: unknown) => (error as Error).message);
}

async function signerOf(agent: TestAgent): Promise<string> {
  return (await agent.client.getNode({}, { signal: undefined })).keys.signer;
}

void describe('the key file', () => {
  const spoilt: readonly { name: string; spoil: (path: string) => void; says: RegExp }[] = [
    { name: 'that others can read', spoil: (path) => chmodSync(path, 0o644), says: /has mode 644: others may use it/ },
    { name: 'that is garbage', spoil: (path) => writeFileSync(path, 'garbage'), says: /is not a usable key file: it is not JSON/ },
    { name: 'that is empty', spoil: (path) => writeFileSync(path, ''), says: /is not a usable key file/ },
    { name: 'that was edited', spoil: (path) => writeFileSync(path, readFileSync(path, 'utf8').replace(/("ed25519": ")../, '$1AA')), says: /its checksum does not fit/ },
    { name: 'that is a directory', spoil: (path) => { rmSync(path); mkdirSync(path); }, says: /is not a small regular file|EISDIR/ },
  ];
  for (const { name, spoil, says } of spoilt) {
    void it(`${name} keeps the agent from starting, and is not replaced`, async () => {
      const home = newHome();
      await (await startAgent(home)).stop();
      const good = `${keyFile(home)}.good`;
      cpSync(keyFile(home), good);
      spoil(keyFile(home));
      const message = await refusal(startAgent(home));
      assert.match(message, says);
      assert.doesNotMatch(message, new RegExp(RegExp.escape((JSON.parse(readFileSync(good, 'utf8')) as { x25519: string }).x25519)), 'a secret was printed');
      rmSync(keyFile(home), { recursive: true });
      renameSync(good, keyFile(home));
      assert.equal(await (await startAgent(home)).stop(), 0);
    });
  }

  void it('of another node: old checkpoints are refused before anything runs, new ones begin a new lineage', async () => {
    const home = newHome();
    let agent = await startAgent(home);
    const old = await checkpoint(agent, counter.id, { leaveRunning: true });
    const signer = await signerOf(agent);
    await agent.stop();
    renameSync(keyFile(home), `${keyFile(home)}.old`);
    agent = await startAgent(home);
    assert.equal(await codeOf(restore(agent, old.checkpoint, { clone: true, container: 'never' })), 'SIGNER_UNTRUSTED');
    const { checkpoints, problems } = await agent.client.listCheckpoints({ pageSize: 0, pageToken: '' }, { signal: undefined });
    assert.deepEqual([checkpoints.length, problems.map(({ code }) => code)], [0, ['SIGNER_UNTRUSTED']]);
    const next = await checkpoint(agent, counter.id, { leaveRunning: true });
    assert.notEqual(next.lineage, old.lineage);
    await counter.assertCounting();
    await agent.stop();
    agent = await startAgent(home, { STASIS_KEYS_TRUSTED_SIGNERS: signer });
    assert.match(await codeOf(restore(agent, old.checkpoint, { clone: true, container: 'never' })), /^KEY_/);
    assert.deepEqual(readdirSync('/run/runc').filter((id) => id === 'never'), []);
    await agent.stop();
  });
});

void describe('two agents with one repository', () => {
  void it('write side by side, read only what they may, and delete nothing of each other', async () => {
    const env = { STASIS_REPOSITORY_DIRECTORY: join(shared, 'repository') };
    const other = await startCounter('runc');
    try {
      const [one, two] = [await startAgent(newHome(), env), await startAgent(newHome(), env)];
      const [first, second] = await Promise.all([checkpoint(one, counter.id, { leaveRunning: true }), checkpoint(two, other.id, { leaveRunning: true })]);
      const [third, fourth] = await Promise.all([checkpoint(one, counter.id, { leaveRunning: true }), checkpoint(two, other.id)]);
      assert.equal(await codeOf(restore(one, fourth.checkpoint)), 'SIGNER_UNTRUSTED');
      const { checkpoints, problems } = await one.client.listCheckpoints({ pageSize: 0, pageToken: '' }, { signal: undefined });
      assert.deepEqual(checkpoints.map(({ id }) => id), [third.checkpoint, first.checkpoint]);
      assert.deepEqual(problems.map(({ code }) => code), ['SIGNER_UNTRUSTED', 'SIGNER_UNTRUSTED']);
      for (const id of [first.checkpoint, third.checkpoint]) await one.client.deleteCheckpoint({ checkpoint: id, reason: 'test' }, { signal: undefined });
      // Its own start cleans up what dead writers left; the other one lives.
      await one.kill();
      const again = await startAgent(one.home, env);
      for await (const event of two.client.verifyCheckpoint({ checkpoint: second.checkpoint }, { signal: undefined })) {
        if (event.type === 'report') assert.deepEqual(event.report.problems, []);
      }
      await other.adopt(await restore(two, fourth.checkpoint));
      await other.assertCounting();
      await counter.assertCounting();
      await again.stop();
      await two.stop();
    } finally {
      await other.stop();
    }
  });
});

void describe('an agent that is started twice', () => {
  void it('is refused for the same state, the same run directory and the same socket, and the first serves on', async () => {
    const home = newHome();
    const elsewhere = newHome();
    const agent = await startAgent(home, { STASIS_TESTING_FAILPOINT: 'checkpoint.read-ahead=sleep 4000' });
    const outcome = checkpoint(agent, counter.id, { leaveRunning: true });
    const same = [
      { home, env: {} },
      { home: { state: home.state, run: elsewhere.run }, env: {} },
      { home: { state: elsewhere.state, run: home.run }, env: { STASIS_SOCKET: join(elsewhere.run, 'agent.sock') } },
      { home: elsewhere, env: { STASIS_SOCKET: join(home.run, 'agent.sock') } },
    ];
    for (const { home: place, env } of same) {
      assert.match(await refusal(startAgent(place, env)), /another agent (?:uses|serves)/);
    }
    await outcome;
    assert.equal((await checkpointIds(agent)).length, 1);
    await assertClean(agent);
    await counter.assertCounting();
    assert.equal(await agent.stop(), 0);
  });
});
