/** The disk's bad days: full at any write, read-only, failing, gone. The container runs on, and what is visible is whole. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { MNT_DETACH, mount, umount } from '../../src/host/libc.ts';
import { atFailpoint, checkpoint, endAgents, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startCounter, type Counter } from '../support/counter.ts';

const MiB = 1024 * 1024;
const PAGE = 4096;
const MS_REMOUNT = 32;
const MS_RDONLY = 1;

let home: AgentHome;
let place: string;
let counter: Counter;

before(() => {
  home = makeHome();
  place = mkdtempSync('/srv/place-');
});

/** One test's bad day must not be that of the next. */
beforeEach(async () => {
  counter = await startCounter('runc');
});

after(async () => {
  await removeHome(home);
  rmSync(place, { recursive: true });
});

afterEach(async () => {
  await endAgents();
  await counter?.stop();
  while (execFileSync('sh', ['-c', `grep -c " ${place} " /proc/self/mountinfo || true`], { encoding: 'utf8' }).trim() !== '0') umount(place, MNT_DETACH);
  for (const name of readdirSync(place)) rmSync(join(place, name), { recursive: true });
});

const repository = (): string => join(place, 'repository');

function agentThere(more: Record<string, string> = {}): Promise<TestAgent> {
  return startAgent(home, { STASIS_REPOSITORY_DIRECTORY: repository(), ...more });
}

const stopping = (step: string): Record<string, string> => ({ STASIS_TESTING_FAILPOINT: `${step}=stop` });

async function failure(attempt: Promise<unknown>): Promise<{ code: string; message: string }> {
  return attempt.then(() => ({ code: 'none', message: '' }), (error: unknown) => error as { code: string; message: string });
}

/** An ext4 of 200 MiB in a file, at the place of the repository. */
function mountImage(image: string): void {
  execFileSync('truncate', ['-s', '200M', image]);
  execFileSync('mkfs.ext4', ['-q', '-F', image]);
  execFileSync('mount', ['-o', 'loop', image, place]);
}

/** Leaves so many bytes free. */
function fill(name: string, leave: number, where = place): void {
  const { bavail, bsize } = statfsSync(where);
  const bytes = bavail * bsize - leave;
  const file = openSync(join(where, name), 'w');
  const block = Buffer.alloc(MiB, 1);
  try {
    for (let written = 0; written < bytes;) written += writeSync(file, block, 0, Math.min(block.length, bytes - written));
  } finally {
    closeSync(file);
  }
}

async function visible(agent: TestAgent): Promise<string[]> {
  return (await agent.client.listCheckpoints({ pageSize: 0, pageToken: '' }, { signal: undefined })).checkpoints.map(({ id }) => id);
}

async function problems(agent: TestAgent, id: string): Promise<string[]> {
  for await (const event of agent.client.verifyCheckpoint({ checkpoint: id }, { signal: undefined })) {
    if (event.type === 'report') return event.report.problems.map(({ code, object }) => `${code} ${object}`);
  }
  throw new Error('no report');
}

/** Nothing of an unfinished checkpoint, not even a temporary file, but for the fence against a put that comes late. */
async function assertUndone(agent: TestAgent, expected: readonly string[]): Promise<void> {
  assert.deepEqual(await visible(agent), expected);
  const files = readdirSync(repository(), { recursive: true, encoding: 'utf8' })
    .filter((name) => /^(packs|manifests|lineages|writers)\/./.test(name) && !name.endsWith('.fenced'));
  assert.deepEqual(files.filter((name) => !expected.some((id) => name.includes(id)) && !name.startsWith('lineages/')), []);
  if (expected.length === 0) assert.deepEqual(files, []);
  const own = [join(home.state, 'journal'), join(home.run, 'guards'), join(home.run, 'staging')];
  assert.deepEqual(own.flatMap((path) => readdirSync(path)), []);
  await counter.assertCounting();
}

/** With space again the next one works and is whole. */
async function recovers(agent: TestAgent, expected: readonly string[]): Promise<void> {
  await assertUndone(agent, expected);
  const { checkpoint: id } = await checkpoint(agent, counter.id, { leaveRunning: true });
  assert.deepEqual(await problems(agent, id), []);
  await forget(agent);
}

async function forget(agent: TestAgent): Promise<void> {
  for (const id of await visible(agent)) await agent.client.deleteCheckpoint({ checkpoint: id, reason: 'test' }, { signal: undefined });
}

void describe('a repository that is full', () => {
  // The pack of a counter takes some 100 KiB; behind it come key and manifest. A few pages, because sizes differ by one or
  // two from run to run.
  void it('4, 6, 12 or 1000 pages too few are left at the sealing', async () => {
    mount('tmpfs', place, 'tmpfs', 0, 'size=200m');
    const agent = await agentThere();
    const free = (): number => statfsSync(place).bavail;
    const before = free();
    const { checkpoint: first } = await checkpoint(agent, counter.id, { leaveRunning: true, newLineage: true });
    const needed = before - free();
    for (const { short, leaveRunning } of [{ short: 6, leaveRunning: true }, ...[4, 6, 12, 1000].map((pages) => ({ short: pages, leaveRunning: false }))]) {
      agent.arm('checkpoint.dump.after=stop');
      const outcome = failure(checkpoint(agent, counter.id, { leaveRunning, newLineage: true, rehearsal: 'never' }));
      await atFailpoint(agent, () => fill('filler', Math.max(0, needed - short) * PAGE));
      const { code, message } = await outcome;
      assert.equal(code, 'NO_SPACE', `${short} pages, ${leaveRunning ? 'leave running' : 'stop'}: ${message}`);
      rmSync(join(place, 'filler'));
      await assertUndone(agent, [first]);
    }
    agent.arm('');
    await recovers(agent, [first]);
    assert.equal(await agent.stop(), 0);
  });

  void it('is known before anything is frozen', async () => {
    mount('tmpfs', place, 'tmpfs', 0, 'size=40m');
    const agent = await agentThere();
    const steps = new Set<string>();
    const { code } = await failure(checkpoint(agent, counter.id, {}, ({ step }) => steps.add(step)));
    assert.equal(code, 'NO_SPACE');
    assert.ok(!steps.has('freeze'));
    mount('tmpfs', place, 'tmpfs', MS_REMOUNT, 'size=200m');
    await recovers(agent, []);
    await agent.stop();
  });

  void it('has an older checkpoint of the lineage, which stays whole', async () => {
    mount('tmpfs', place, 'tmpfs', 0, 'size=200m');
    const agent = await agentThere({ STASIS_TESTING_FAILPOINT: 'checkpoint.dump.after:2=stop' });
    const { checkpoint: id } = await checkpoint(agent, counter.id, { leaveRunning: true });
    const outcome = failure(checkpoint(agent, counter.id));
    await atFailpoint(agent, () => fill('filler', 0));
    assert.equal((await outcome).code, 'NO_SPACE');
    rmSync(join(place, 'filler'));
    assert.deepEqual(await problems(agent, id), []);
    await recovers(agent, [id]);
    await agent.stop();
  });
});

void describe('a state directory that is full', () => {
  void it('from any step on: an error, or a checkpoint that stands', async () => {
    mount('tmpfs', place, 'tmpfs', 0, 'size=100m');
    mkdirSync(join(place, 'state'));
    const other = { ...home, state: join(place, 'state') };
    const agent = await startAgent(other, { STASIS_REPOSITORY_DIRECTORY: join(home.state, 'repository') });
    for (const step of ['checkpoint.examine', 'checkpoint.read-ahead', 'checkpoint.commit.after']) {
      agent.arm(`${step}=stop`);
      const outcome = failure(checkpoint(agent, counter.id, { leaveRunning: true }));
      await atFailpoint(agent, () => fill('filler', 0));
      const { code, message } = await outcome;
      const ids = await visible(agent);
      if (step === 'checkpoint.examine') assert.match(code, /NO_SPACE/, message);
      assert.equal(ids.length, code === 'none' ? 1 : 0, `${step}: ${code}: ${message}`);
      await counter.assertCounting();
      rmSync(join(place, 'filler'));
      assert.deepEqual(readdirSync(join(other.state, 'journal')), [], step);
      await forget(agent);
    }
    agent.arm('');
    await checkpoint(agent, counter.id, { leaveRunning: true });
    await forget(agent);
    assert.equal(await agent.stop(), 0);
  });
});

void describe('staging that is too small', () => {
  void it('is said before anything is frozen, with the sizes; over the page server it works', async () => {
    const agent = await agentThere({ STASIS_STAGING_SIZE: '18M' });
    const { code, message } = await failure(checkpoint(agent, counter.id, { leaveRunning: true, memoryPath: 'directory' }));
    assert.ok(code === 'NO_SPACE' || code === 'none', message);
    const small = await failure(checkpoint(agent, counter.id, { leaveRunning: true }));
    assert.equal(small.code, 'none', small.message);
    for (const id of await visible(agent)) await agent.client.deleteCheckpoint({ checkpoint: id, reason: 'test' }, { signal: undefined });
    await agent.stop();
    const none = await agentThere({ STASIS_STAGING_SIZE: '8M' });
    assert.equal((await failure(checkpoint(none, counter.id))).code, 'NO_SPACE');
    await counter.assertCounting();
    await none.stop();
  });
});

void describe('a repository that is read-only', () => {
  void it('from the start: what is there can be read and restored, nothing can be written, the container runs on', async () => {
    mount('tmpfs', place, 'tmpfs', 0, 'size=200m');
    let agent = await agentThere();
    const { checkpoint: id } = await checkpoint(agent, counter.id, { leaveRunning: true });
    await agent.stop();
    mount('tmpfs', place, 'tmpfs', MS_REMOUNT | MS_RDONLY, '');
    agent = await agentThere();
    assert.deepEqual(await visible(agent), [id]);
    assert.deepEqual(await problems(agent, id), []);
    assert.equal((await failure(checkpoint(agent, counter.id))).code, 'STORE_READ_ONLY');
    assert.equal((await failure(agent.client.deleteCheckpoint({ checkpoint: id, reason: '' }, { signal: undefined }))).code, 'STORE_READ_ONLY');
    const clone = await restore(agent, id, { clone: true, container: 'from-read-only' });
    execFileSync('runc', ['delete', '--force', clone.container]);
    await counter.assertCounting();
    await agent.stop();
  });

  for (const [step, leaveRunning] of [['checkpoint.dump.after', false], ['checkpoint.commit', true], ['checkpoint.commit.manifest', false]] as const) {
    void it(`all of a sudden, as ext4 does it after an error, in ${step}, ${leaveRunning ? 'leave running' : 'stop'}`, async () => {
      mountImage(join(home.state, 'image'));
      const agent = await agentThere(stopping(step));
      const outcome = failure(checkpoint(agent, counter.id, { leaveRunning }));
      await atFailpoint(agent, () => execFileSync('mount', ['-o', 'remount,abort', place]));
      const { code, message } = await outcome;
      if (step === 'checkpoint.commit.manifest') {
        // Everything was durable before.
        assert.equal(code, 'none', message);
        return;
      }
      assert.match(code, /^STORE_(READ_ONLY|UNAVAILABLE)$/, message);
      await counter.assertCounting();
      assert.deepEqual(await visible(agent), []);
      await agent.kill();
      umount(place, MNT_DETACH);
      execFileSync('sh', ['-c', `e2fsck -fy ${join(home.state, 'image')} > /dev/null 2>&1; [ $? -lt 4 ]`]);
      execFileSync('mount', ['-o', 'loop', join(home.state, 'image'), place]);
      // What could not be removed then is removed by the next start.
      const next = await agentThere();
      await recovers(next, []);
      await next.stop();
    });
  }

  void it('whose disk fails when it is told to flush (EIO)', async () => {
    const thin = mkdtempSync('/srv/thin-');
    mount('tmpfs', thin, 'tmpfs', 0, 'size=16m');
    try {
      // The file system believes in 200 MiB; what is behind it can take some.
      mountImage(join(thin, 'image'));
      const agent = await agentThere(stopping('checkpoint.dump.after'));
      const outcome = failure(checkpoint(agent, counter.id));
      await atFailpoint(agent, () => fill('filler', 0, thin));
      const { code, message } = await outcome;
      assert.match(code, /^(STORE_READ_ONLY|STORE_UNAVAILABLE|NO_SPACE)$/, message);
      await counter.assertCounting();
      assert.deepEqual(await visible(agent), []);
      await agent.kill();
    } finally {
      umount(place, MNT_DETACH);
      umount(thin, MNT_DETACH);
      rmSync(thin, { recursive: true });
    }
  });

  void it('gone: its file system was unmounted in the middle of a stop', async () => {
    mount('tmpfs', place, 'tmpfs', 0, 'size=200m');
    const agent = await agentThere(stopping('checkpoint.seal'));
    const outcome = failure(checkpoint(agent, counter.id));
    await atFailpoint(agent, () => umount(place, MNT_DETACH));
    const { code } = await outcome;
    assert.match(code, /^(OBJECT_MISSING|STORE_UNAVAILABLE)$/);
    await counter.assertCounting();
    await agent.stop();
  });
});
