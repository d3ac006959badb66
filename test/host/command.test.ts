import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { runCommand } from '../../src/host/command.ts';
import { readStat } from '../../src/host/proc.ts';

const directory = mkdtempSync(join(tmpdir(), 'stasis-command-'));
after(() => rmSync(directory, { recursive: true, force: true }));
const limits = { timeoutMs: 5000, maxBytes: 1000 };
const sh = (script: string, more: Partial<typeof limits> = {}, input = '') => runCommand(['/bin/sh', '-c', script], Buffer.from(input), { ...limits, ...more });

async function gone(pid: number): Promise<boolean> {
  for (let waited = 0; waited < 2000; waited += 20) {
    const state = readStat(pid)?.state;
    if (state === undefined || state === 'Z') return true;
    await delay(20);
  }
  return false;
}

void describe('a command of somebody else', () => {
  void it('gets the question, gives the answer, and sees nothing of our environment', async () => {
    process.env['STASIS_TEST_SECRET'] = 'do not tell';
    try {
      const result = await sh('cat; env; echo talk >&2', {}, 'question ');
      assert.ok(result.kind === 'ended');
      assert.deepEqual([result.status, result.stderr], [0, 'talk']);
      const lines = result.stdout.toString().split('\n').filter((line) => line !== '' && !/^(PWD|OLDPWD|SHLVL|_)=/.test(line)).sort();
      assert.match(lines.join('\n').replace('question ', ''), /^(?:(?:HOME=\/|LANG=C\.UTF-8|PATH=[\w/:]+)\n?){3}$/);
      assert.ok(result.stdout.toString().startsWith('question '));
    } finally {
      delete process.env['STASIS_TEST_SECRET'];
    }
  });

  void it('that fails, is not there, is killed', async () => {
    assert.deepEqual(await sh('echo "\u0007no access\u001b[2J" >&2; exit 7'), { kind: 'ended', status: 7, stdout: Buffer.alloc(0), stderr: '?no access?[2J' });
    assert.deepEqual(await runCommand([join(directory, 'nothing')], Buffer.alloc(0), limits), { kind: 'unstartable', code: 'ENOENT', stderr: '' });
    assert.equal((await sh('kill -9 $$')).kind, 'killed');
  });

  void it('does not have to read what it is asked', async () => {
    const result = await sh('exec <&-; echo yes', {}, 'x'.repeat(4 * 1024 * 1024));
    assert.ok(result.kind === 'ended' && result.stdout.toString() === 'yes\n');
  });

  void it('that hangs is killed with all that it started', async () => {
    const file = join(directory, 'pids');
    const started = performance.now();
    const result = await sh(`sleep 1000 & echo $! > ${file}; echo $$ >> ${file}; echo waiting >&2; wait`, { timeoutMs: 300 });
    assert.deepEqual(result, { kind: 'timeout', stderr: 'waiting' });
    assert.ok(performance.now() - started < 3000);
    for (const pid of readFileSync(file, 'utf8').trim().split('\n')) assert.ok(await gone(Number(pid)), pid);
  });

  void it('that answers without end is killed', async () => {
    assert.deepEqual(await sh('yes'), { kind: 'too-much', stderr: '' });
    const talk = await sh('yes noise | head -c 100000 >&2');
    assert.ok(talk.kind === 'ended' && talk.stderr.length <= 2048);
  });

  void it('what it leaves behind is killed when it ends, and cannot hold the answer back', async () => {
    const file = join(directory, 'left');
    const started = performance.now();
    const result = await sh(`sleep 1000 & echo $! > ${file}; echo done`);
    assert.ok(result.kind === 'ended' && result.stdout.toString() === 'done\n');
    assert.ok(await gone(Number(readFileSync(file, 'utf8'))));
    // In a session of its own it lives on, with our pipe in its hands.
    const escaped = await sh(`setsid sleep 4 & echo done`);
    assert.equal(escaped.kind, 'ended');
    assert.ok(performance.now() - started < 3000);
  });
});
