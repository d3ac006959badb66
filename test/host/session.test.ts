/** A session is known by its number and by when its leader began: a number that has come round again is a stranger's. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { listPids, processAlive, readStat } from '../../src/host/proc.ts';
import { run } from '../../src/host/process.ts';
import { killSession, runsCriu, sessionLeader, sessionMembers, ticksUsed } from '../../src/host/session.ts';

const guard = fileURLToPath(new URL('../../../deploy/libexec/stasis-guard', import.meta.url));

void describe('a session file', () => {
  let directory: string;
  let file: string;
  let ended: Promise<unknown>;
  before(() => { directory = mkdtempSync(join(tmpdir(), 'session-')); });
  after(() => rmSync(directory, { recursive: true, force: true }));
  afterEach(async () => {
    await killSession(file);
    await ended;
  });

  async function start(name: string, script: string): Promise<{ leader: number; startTime: number }> {
    mkdirSync(join(directory, name));
    file = join(directory, name, 'session');
    ended = run('sh', ['-c', `${script}\n: > ${directory}/${name}/ready\nwait`], { signal: undefined, timeoutMs: 60_000, detached: true, sessionFile: file });
    for (let waited = 0; !existsSync(join(directory, name, 'ready')); waited += 5) {
      assert.ok(waited < 30_000, 'it never began');
      await delay(5);
    }
    const leader = sessionLeader(file) ?? 0;
    return { leader, startTime: readStat(leader)?.startTime ?? 0 };
  }

  void it('holds the leader and its start time, and finds the others', async () => {
    const { leader, startTime } = await start('found', 'sleep 1000 & sleep 1000 &');
    assert.equal(readFileSync(file, 'utf8'), `${leader} ${startTime}\n`);
    assert.equal(sessionMembers(file).length, 3);
    assert.equal(runsCriu(file), false);
    await killSession(file);
    assert.deepEqual(sessionMembers(file), []);
    assert.equal(processAlive(leader, startTime), false);
  });

  void it('tells whether anything below it works, in whatever session', async () => {
    const { leader } = await start('busy', 'setsid sh -c "while :; do :; done" &');
    const before = ticksUsed(file);
    for (let waited = 0; ticksUsed(file) === before && waited < 30_000; waited += 20) await delay(20);
    const used = ticksUsed(file) - before;
    for (const pid of listPids()) if (readStat(pid)?.ppid === leader) process.kill(pid, 'SIGKILL');
    assert.ok(used > 0, 'no time is counted');
  });

  void it('of an older agent holds a number only', async () => {
    const { leader } = await start('older', 'sleep 1000 &');
    writeFileSync(file, `${leader}\n`);
    assert.equal(sessionMembers(file).length, 2);
  });

  for (const [what, shift] of [['before', -1], ['after', 1]] as const) {
    void it(`whose session began ${what} the one that bears its number now means nobody`, async () => {
      const { leader, startTime } = await start(what, 'sleep 1000 &');
      const own = readFileSync(file, 'utf8');
      try {
        writeFileSync(file, `${leader} ${startTime + shift}\n`);
        assert.deepEqual(sessionMembers(file), []);
        await killSession(file);
        assert.equal(spawnSync(guard, ['recover', join(directory, what)], { timeout: 30_000 }).status, 0);
        assert.equal(processAlive(leader, startTime), true);
      } finally {
        writeFileSync(file, own);
      }
      assert.equal(sessionMembers(file).length, 2);
      rmSync(join(directory, what, 'settled'));
      rmSync(join(directory, what, 'decision'));
      assert.equal(spawnSync(guard, ['recover', join(directory, what)], { timeout: 30_000 }).status, 0);
      assert.equal(processAlive(leader, startTime), false, 'the guard knows its own');
    });
  }

  for (const text of ['', 'x', '0', '1 5', '-3 4', '1e99', '12 x']) {
    void it(`that holds ${JSON.stringify(text)} means nobody`, async () => {
      await start(`odd${text}`.replaceAll(' ', '-'), 'sleep 1000 &');
      const own = readFileSync(file, 'utf8');
      writeFileSync(file, text);
      assert.deepEqual(sessionMembers(file), []);
      writeFileSync(file, own);
    });
  }

  void it('whose leader has ended still finds the others', async () => {
    const { leader, startTime } = await start('orphans', 'sleep 1000 &');
    process.kill(leader, 'SIGKILL');
    while (processAlive(leader, startTime)) await delay(5);
    assert.equal(sessionMembers(file).length, 1);
  });
});
