/** Who can read: escrow, recipients, rotation, shredding and key commands, with real agents and a real container. */
import assert from 'node:assert/strict';
import { chmodSync, copyFileSync, cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import type { ChangeRecipientsReport, ChangeRecipientsRequest } from '../../src/rpc/api.ts';
import { generateKeyFile } from '../../src/repository/index.ts';
import { collect } from '../rpc/harness.ts';
import { assertClean, checkpoint, endAgents, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startCounter, type Counter } from '../support/counter.ts';

const none = { signal: undefined };
let homes: AgentHome[] = [];
let shared: string;
let counter: Counter;

before(async () => {
  counter = await startCounter('runc');
});
after(() => counter?.stop());
afterEach(async () => {
  await endAgents();
  for (const home of homes) await removeHome(home);
  homes = [];
  rmSync(shared, { recursive: true, force: true });
});

function newHome(): AgentHome {
  const home = makeHome();
  homes.push(home);
  return home;
}

function newRepository(): Record<string, string> {
  shared = mkdtempSync('/srv/shared-');
  return { STASIS_REPOSITORY_DIRECTORY: join(shared, 'repository') };
}

const running = { leaveRunning: true } as const;

async function codeOf(attempt: Promise<unknown>): Promise<string> {
  return attempt.then(() => 'none', (error: unknown) => (error as { code?: string }).code ?? String(error));
}

async function change(agent: TestAgent, more: Partial<ChangeRecipientsRequest>): Promise<ChangeRecipientsReport> {
  const events = await collect(agent.client.changeRecipients({ lineages: [], add: [], remove: [], rotate: false, exact: false, endLineages: false, dryRun: false, reason: 'test', ...more }, none));
  const last = events.at(-1);
  assert.ok(last?.type === 'report');
  return last.report;
}

const packs = (): string => JSON.stringify(readdirSync(join(shared, 'repository/packs')).map((name) => [name, statSync(join(shared, 'repository/packs', name)).ctimeMs]));

void describe('escrow', () => {
  void it('a node writes what only another one restores; both say so; the escrow lets the first in again', { timeout: 120_000 }, async () => {
    const env = newRepository();
    const [here, there] = [newHome(), newHome()];
    let reader = await startAgent(there, env);
    const readerKeys = await reader.client.getKeys({}, none);
    const writer = await startAgent(here, { ...env, STASIS_KEYS_RECIPIENTS: readerKeys.own.join() });
    const writerKeys = await writer.client.getKeys({}, none);
    assert.deepEqual([writerKeys.recipients, writerKeys.own.length], [readerKeys.own, 1]);
    const first = await checkpoint(writer, counter.id, running);
    const second = await checkpoint(writer, counter.id, running);
    assert.notEqual(second.lineage, first.lineage, 'it cannot go on in what it cannot open');
    assert.ok(!writer.log.some(({ event }) => event === 'repository.problem'));
    await assert.rejects(restore(writer, first.checkpoint, { clone: true, container: 'never' }), (error: Error & { code?: string; hint?: string }) => error.code === 'KEY_WRONG' && /is wrapped to 1 other key/.test(error.message) && /recipient/.test(error.hint ?? ''));
    assert.deepEqual(readdirSync('/run/runc').filter((id) => id === 'never'), []);
    assert.equal(await codeOf(restore(reader, first.checkpoint, { clone: true, container: 'never' })), 'SIGNER_UNTRUSTED');
    const { keys } = await writer.client.listLineageKeys({}, none);
    assert.deepEqual(keys.map(({ openable, recipients, checkpoints }) => [openable, recipients, checkpoints.length]), [[false, readerKeys.own, 1], [false, readerKeys.own, 1]]);
    // It cannot give itself what it does not have.
    const refused = await change(writer, { add: writerKeys.own });
    assert.deepEqual([refused.changed, refused.sealed.length], [[], 2]);
    await reader.stop();

    reader = await startAgent(there, { ...env, STASIS_KEYS_TRUSTED_SIGNERS: writerKeys.signer });
    const back = await restore(reader, first.checkpoint, { clone: true, container: `${counter.id}-there` });
    const restored = await startedAs(back);
    await restored.stop();
    const before = packs();
    assert.deepEqual((await change(reader, { lineages: [first.lineage], add: writerKeys.own })).changed, [first.lineage]);
    assert.equal(packs(), before, 'nothing is uploaded again');
    assert.equal(await codeOf(restore(writer, first.checkpoint, { clone: true, container: 'never' })), 'SIGNER_UNTRUSTED', 'the key is signed by the reader now');
    await writer.stop();
    const trusting = await startAgent(here, { ...env, STASIS_KEYS_TRUSTED_SIGNERS: readerKeys.signer });
    await (await startedAs(await restore(trusting, first.checkpoint, { clone: true, container: `${counter.id}-here` }))).stop();
    const audit = reader.log.filter(({ event }) => event === 'keys.rewrapped');
    assert.deepEqual(audit.map((entry) => [entry['lineage'], entry['added'], entry['principal'], entry['reason']]), [[first.lineage, writerKeys.own, 'local', 'test']]);
  });
});

/** A counter that goes on from where it was restored, and is removed by stop(). */
async function startedAs(restored: { container: string; pid: number }): Promise<{ stop(): Promise<void> }> {
  const { execFileSync } = await import('node:child_process');
  const counts = (): number => readFileSync(`/proc/${restored.pid}/root/counter`, 'utf8').split('\n').length;
  const at = counts();
  for (let waited = 0; waited < 3000 && counts() === at; waited += 20) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.ok(counts() > at, 'it goes on');
  return { stop: async () => void execFileSync('runc', ['delete', '--force', restored.container]) };
}

void describe('rotation', () => {
  void it('a new key beside the old one, rotate, the old one away: everything is read, nothing uploaded again', { timeout: 120_000 }, async () => {
    const env = newRepository();
    const home = newHome();
    const folder = join(shared, 'keys');
    mkdirSync(folder, { mode: 0o700 });
    const old = await generateKeyFile(join(folder, '2026.key'));
    const settings = { ...env, STASIS_KEYS_PROVIDER: 'directory', STASIS_KEYS_DIRECTORY: folder };
    let agent = await startAgent(home, settings);
    const first = await checkpoint(agent, counter.id, running);
    const other = await checkpoint(agent, counter.id, { ...running, newLineage: true });
    const fresh = await generateKeyFile(join(shared, '2027.key'));
    cpSync(join(shared, '2027.key'), join(folder, '2027.key'), { mode: 0 });
    chmodSync(join(folder, '2027.key'), 0o600);
    for (let i = 0; i < 50 && (await agent.client.getKeys({}, none)).signer !== fresh.signer; i += 1) await new Promise((resolve) => setTimeout(resolve, 100));
    const keys = await agent.client.getKeys({}, none);
    assert.deepEqual([keys.signer, keys.formerSigners, keys.own], [fresh.signer, [old.signer], [fresh.recipient, old.recipient]]);
    const before = packs();
    assert.deepEqual((await change(agent, { rotate: true, dryRun: true })).changed.length, 2);

    // Killed in the middle, and two at once after that.
    await agent.stop();
    agent = await startAgent(home, { ...settings, STASIS_TESTING_FAILPOINT: 'rotate.rotate=kill' });
    await assert.rejects(change(agent, { rotate: true }));
    await agent.exited;
    agent = await startAgent(home, settings);
    const reports = await Promise.all([change(agent, { rotate: true }), change(agent, { rotate: true })]);
    assert.deepEqual(reports.flatMap(({ problems, sealed }) => [...problems, ...sealed]), []);
    assert.equal(new Set(reports.flatMap(({ changed }) => changed)).size + 0, 2);
    assert.deepEqual((await agent.client.listLineageKeys({}, none)).keys.map(({ recipients }) => recipients), [[fresh.recipient], [fresh.recipient]]);
    assert.deepEqual((await change(agent, { rotate: true })).unchanged, 2);
    assert.equal(packs(), before);
    await agent.stop();

    rmSync(join(folder, '2026.key'));
    agent = await startAgent(home, settings);
    assert.equal(await codeOf(restore(agent, first.checkpoint, { clone: true, container: 'never' })), 'SIGNER_UNTRUSTED', 'manifests are not signed again');
    await agent.stop();
    agent = await startAgent(home, { ...settings, STASIS_KEYS_TRUSTED_SIGNERS: old.signer });
    for (const { checkpoint: id } of [first, other]) await (await startedAs(await restore(agent, id, { clone: true, container: `${counter.id}-new` }))).stop();
    await counter.assertCounting();
  });

  void it('a recipient that is taken away ends the lineages: the next checkpoint has a new data key', { timeout: 120_000 }, async () => {
    const env = newRepository();
    const escrow = await generateKeyFile(join(shared, 'escrow.key'));
    const home = newHome();
    let agent = await startAgent(home, env);
    const own = (await agent.client.getKeys({}, none)).own;
    await agent.stop();
    agent = await startAgent(home, { ...env, STASIS_KEYS_RECIPIENTS: [...own, escrow.recipient].join() });
    const first = await checkpoint(agent, counter.id, running);
    assert.equal((await checkpoint(agent, counter.id, running)).lineage, first.lineage);
    await agent.stop();
    agent = await startAgent(home, env);
    const report = await change(agent, { remove: [escrow.recipient], endLineages: true });
    assert.deepEqual(report.changed, [first.lineage]);
    const next = await checkpoint(agent, counter.id, running);
    assert.notEqual(next.lineage, first.lineage);
    const { keys } = await agent.client.listLineageKeys({}, none);
    assert.deepEqual(keys.map(({ recipients, lineage }) => [lineage, recipients]).sort(), [[first.lineage, own], [next.lineage, own]].sort());
    assert.deepEqual(keys.filter(({ ended }) => ended).map(({ lineage }) => lineage), [first.lineage]);
    await (await startedAs(await restore(agent, first.checkpoint, { clone: true, container: `${counter.id}-read` }))).stop();
    assert.equal(await codeOf(change(agent, { add: ['xyz'] })), 'USAGE');
    assert.equal(await codeOf(change(agent, {})), 'USAGE');
    assert.deepEqual((await change(agent, { lineages: [first.lineage], remove: own })).problems.map(({ code }) => code), ['USAGE'], 'nobody would be left');
  });
});

void describe('shred', () => {
  void it('not what is pinned; then for ever, and the container goes on with a new lineage', { timeout: 120_000 }, async () => {
    const home = newHome();
    shared = home.state;
    const agent = await startAgent(home);
    const made = await checkpoint(agent, counter.id, running);
    await agent.client.pinCheckpoint({ checkpoint: made.checkpoint, pinned: true, reason: '' }, none);
    const request = { lineages: [made.lineage], force: false, dryRun: false, reason: 'erasure' };
    const dry = await agent.client.shredLineages({ ...request, dryRun: true }, none);
    assert.deepEqual(dry.shredded, [{ lineage: made.lineage, checkpoints: [made.checkpoint], pinned: [made.checkpoint] }]);
    assert.equal(await codeOf(agent.client.shredLineages(request, none)), 'CHECKPOINT_IN_USE');
    assert.equal(await codeOf(agent.client.inspectCheckpoint({ checkpoint: made.checkpoint }, none)), 'none');
    await agent.client.shredLineages({ ...request, force: true }, none);
    assert.equal(await codeOf(restore(agent, made.checkpoint, { clone: true, container: 'never' })), 'KEY_MISSING');
    assert.deepEqual(agent.log.filter(({ event }) => event === 'keys.shredded').map((entry) => [entry['lineage'], entry['checkpoints'], entry['forced'], entry['reason']]), [[made.lineage, [made.checkpoint], true, 'erasure']]);
    const next = await checkpoint(agent, counter.id, running);
    assert.notEqual(next.lineage, made.lineage);
    await agent.client.pinCheckpoint({ checkpoint: made.checkpoint, pinned: false, reason: '' }, none);
    await agent.client.deleteCheckpoint({ checkpoint: made.checkpoint, reason: '' }, none);
    await assertClean(agent);
    assert.equal(await codeOf(agent.client.shredLineages({ ...request, lineages: [made.lineage] }, none)), 'KEY_MISSING');
    await agent.stop();
  });
});

void describe('a key command', () => {
  /** A script that does what `mode` holds at the time. */
  function command(keyFile: string): { script: string; mode: (text: string) => void } {
    const script = join(shared, 'kms');
    const mode = (text: string): void => writeFileSync(join(shared, 'mode'), text);
    writeFileSync(script, `#!/bin/sh\nread question\necho "$question" >> ${shared}/asked\n. ${shared}/mode\n`, { mode: 0o755 });
    mode(`cat ${keyFile}`);
    return { script, mode };
  }

  void it('holds the key file; one that hangs, fails or talks nonsense is told apart, and nothing secret is in the log', { timeout: 120_000 }, async () => {
    const env = newRepository();
    const home = newHome();
    const file = join(shared, 'secret.key');
    const keys = await generateKeyFile(file);
    const { script, mode } = command(file);
    const settings = { ...env, STASIS_KEYS_PROVIDER: 'exec', STASIS_KEYS_COMMAND: `${script},--some,argument`, STASIS_KEYS_COMMAND_TIMEOUT: '700ms' };
    const agent = await startAgent(home, settings);
    assert.equal((await agent.client.getKeys({}, none)).signer, keys.signer);
    const made = await checkpoint(agent, counter.id, running);
    await (await startedAs(await restore(agent, made.checkpoint, { clone: true, container: `${counter.id}-kms` }))).stop();
    assert.equal(await agent.stop(), 0);
    const secret = (JSON.parse(readFileSync(file, 'utf8')) as { x25519: string }).x25519;
    const fails = async (text: string, says: RegExp): Promise<void> => {
      mode(text);
      const message = await startAgent(home, settings).then(() => 'it started', (error: unknown) => (error as Error).message);
      assert.match(message, says);
      assert.ok(!message.includes(secret), 'a secret was printed');
    };
    await fails('sleep 600', /did not answer within 700 ms and was killed/);
    await fails(`cat ${file}; exit 3`, /failed with status 3/);
    await fails('echo "no route to the KMS" >&2; exit 1', /failed with status 1/);
    await fails(`echo nonsense; cat ${file}`, /answered "describe" with what is not understood: \d+ bytes that are not JSON/);
    await fails('exec yes', /answered more than \d+ bytes and was killed/);
    rmSync(script);
    await fails('true', /cannot be started: ENOENT/);
  });

  void it('out of reach while the agent runs: checkpoints go on, restores say why', { timeout: 120_000 }, async () => {
    const env = newRepository();
    const home = newHome();
    const inside = await generateKeyFile(join(shared, 'inside.key'));
    const { script, mode } = command(join(shared, 'inside.key'));
    // Describes a key, and then opens nothing.
    const described = `case "$question" in *describe*) echo '{"recipients":["${inside.recipient}"]}';; *) `;
    mode(`${described} echo "access denied for lineage" >&2; exit 9;; esac`);
    const agent = await startAgent(home, { ...env, STASIS_KEYS_PROVIDER: 'exec', STASIS_KEYS_COMMAND: script, STASIS_KEYS_COMMAND_TIMEOUT: '1s', STASIS_KEYS_COMMAND_CACHE: '1ms' });
    const first = await checkpoint(agent, counter.id, running);
    const second = await checkpoint(agent, counter.id, running);
    assert.notEqual(second.lineage, first.lineage);
    const problem = agent.log.find(({ event }) => event === 'repository.problem');
    assert.match(JSON.stringify(problem), /KEY_UNAVAILABLE.*access denied for lineage/);
    await assert.rejects(restore(agent, first.checkpoint, { clone: true, container: 'never' }), { code: 'KEY_UNAVAILABLE' });
    mode(`${described} echo '{"dataKey":null}';; esac`);
    await assert.rejects(restore(agent, first.checkpoint, { clone: true, container: 'never' }), { code: 'KEY_WRONG', message: /does not open the key of lineage/ });
    mode(`${described} sleep 600;; esac`);
    await assert.rejects(restore(agent, first.checkpoint, { clone: true, container: 'never' }), { code: 'KEY_UNAVAILABLE', message: /did not answer within 1000 ms/ });
    await agent.stop();
    assert.match(readFileSync(join(shared, 'asked'), 'utf8'), new RegExp(`"request":"unwrap","lineage":"${first.lineage}"`));
    // What it wrote is there for whoever has the key.
    const signer = (JSON.parse(JSON.stringify(agent.log.find(({ event }) => event === 'key.created'))) as { signer: string }).signer;
    mkdirSync(join(newHome().state, 'keys'), { mode: 0o700 });
    const other = homes[1] ?? home;
    copyFileSync(join(shared, 'inside.key'), join(other.state, 'keys/node.key'));
    const reader = await startAgent(other, { ...env, STASIS_KEYS_TRUSTED_SIGNERS: signer });
    await (await startedAs(await restore(reader, first.checkpoint, { clone: true, container: `${counter.id}-read` }))).stop();
    await counter.assertCounting();
  });
});
