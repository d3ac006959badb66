/** The dead man's switch, with real processes in a real freezer cgroup and agents that really die. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, rmdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Freezer, type FreezerLocation } from '../../src/host/cgroup.ts';
import { Guard, readDecision, recoverGuard } from '../../src/host/guard.ts';
import { isStasisError } from '../../src/core/errors.ts';

const script = process.env['STASIS_GUARD'] ?? '/opt/stasis/deploy/libexec/stasis-guard';
const version: 1 | 2 = existsSync('/sys/fs/cgroup/freezer') ? 1 : 2;

let location: FreezerLocation;
let freezer: Freezer;
let target: ChildProcess;
let directory: string;
let counter = 0;

function startTimeOf(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/.*\) /, '').split(' ')[19]);
}

beforeEach(async () => {
  counter += 1;
  location = { version, directory: `/sys/fs/cgroup/${version === 1 ? 'freezer/' : ''}guard-test-${process.pid}-${counter}` };
  mkdirSync(location.directory);
  freezer = new Freezer(location);
  directory = mkdtempSync(join(tmpdir(), 'guard-'));
  target = spawn('sh', ['-c', 'while :; do date +%s%N > "$0"; sleep 0.01; done', join(directory, 'tick')], { stdio: 'ignore' });
  await once(target, 'spawn');
  writeFileSync(join(location.directory, 'cgroup.procs'), String(target.pid));
});

afterEach(async () => {
  freezer.thaw();
  // Everything in the cgroup: the shell and the sleep it waits for.
  const ended = once(target, 'exit');
  for (const pid of freezer.pids()) process.kill(pid, 'SIGKILL');
  await ended;
  for (let tries = 0; tries < 100 && freezer.pids().length > 0; tries++) await delay(10);
  rmdirSync(location.directory);
  rmSync(directory, { recursive: true });
});

async function ticks(): Promise<boolean> {
  const read = (): string => readFileSync(join(directory, 'tick'), 'utf8');
  const before = read();
  for (let waited = 0; waited < 500; waited += 20) {
    await delay(20);
    if (read() !== before) return true;
  }
  return false;
}

function arm(budgetMs: number, hook = false): Promise<Guard> {
  return Guard.arm(script, {
    directory: join(directory, 'guard'), init: { pid: target.pid ?? 0, start: startTimeOf(target.pid ?? 0) },
    thawInstruction: freezer.thawInstruction, hook, budgetMs,
  });
}

void describe('guard of a freeze', () => {
  void it('leaves a released container alone', async () => {
    await using guard = await arm(60_000);
    await guard.start();
    await freezer.freeze({ signal: undefined, timeoutMs: 1000 });
    assert.equal(await ticks(), false, 'frozen means that nothing moves');
    freezer.thaw();
    guard.decide('released');
    assert.equal(await ticks(), true);
  });

  void it('thaws when the budget ends, and the agent that comes later hears of it', async () => {
    await using guard = await arm(300);
    await delay(400);
    assert.equal(readDecision(guard.directory), undefined, 'the budget begins with the freeze');
    const start = performance.now();
    await guard.start();
    await freezer.freeze({ signal: undefined, timeoutMs: 1000 });
    while (freezer.frozen()) {
      assert.ok(performance.now() - start < 3000, 'still frozen long after the budget');
      await delay(10);
    }
    assert.ok(performance.now() - start > 200, 'thawed before the budget ended');
    assert.throws(() => guard.decide('commit'), (error) => isStasisError(error, 'FREEZE_BUDGET_EXCEEDED'));
    assert.equal(readDecision(guard.directory), 'thaw');
  });

  void it('thaws when it is disposed of without a decision', async () => {
    {
      await using guard = await arm(60_000);
      await guard.start();
      await freezer.freeze({ signal: undefined, timeoutMs: 1000 });
    }
    assert.equal(freezer.frozen(), false);
    assert.equal(await ticks(), true);
  });

  void it('thaws when the agent is killed', async () => {
    const module = new URL('../../src/host/guard.js', import.meta.url).href;
    const agent = spawn(process.execPath, ['--input-type=module', '-e', `
      import { Guard } from ${JSON.stringify(module)};
      import { writeFileSync } from 'node:fs';
      const guard = await Guard.arm(${JSON.stringify(script)}, ${JSON.stringify({
        directory: join(directory, 'guard'), init: { pid: target.pid, start: startTimeOf(target.pid ?? 0) },
        thawInstruction: freezer.thawInstruction, hook: true, budgetMs: 60_000,
      })});
      await guard.start();
      console.log('armed');
      setInterval(() => {}, 1000);
    `], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(agent.stdout, 'data');
    await freezer.freeze({ signal: undefined, timeoutMs: 1000 });
    agent.kill('SIGKILL');
    const start = performance.now();
    while (freezer.frozen()) {
      assert.ok(performance.now() - start < 2000, 'still frozen after the agent died');
      await delay(10);
    }
    assert.equal(await ticks(), true);
    assert.equal(readDecision(join(directory, 'guard')), 'thaw');
  });

  void it('kills a criu that does not end, at the deadline, and only then thaws', async () => {
    const hanging = spawn('sleep', ['1000'], { detached: true, stdio: 'ignore' });
    await once(hanging, 'spawn');
    const ended = once(hanging, 'exit');
    {
      await using guard = await arm(700);
      await guard.start();
      writeFileSync(join(guard.directory, 'session'), `${hanging.pid}\n`);
      await freezer.freeze({ signal: undefined, timeoutMs: 1000 });
    }
    await ended;
    assert.equal(hanging.signalCode, 'SIGKILL');
    assert.equal(freezer.frozen(), false);
  });

  void it('can be done again by hand when the guard itself was killed', async () => {
    const guard = await arm(60_000);
    await guard.start();
    await freezer.freeze({ signal: undefined, timeoutMs: 1000 });
    process.kill(Number(readFileSync(join(guard.directory, 'guard.pid'), 'utf8')), 'SIGKILL');
    while (!guard.gone) await delay(5);
    assert.equal(freezer.frozen(), true, 'nobody has thawed yet');
    assert.equal(await recoverGuard(script, guard.directory), 'thaw');
    assert.equal(freezer.frozen(), false);
    await guard[Symbol.asyncDispose]();
  });

  void it('does not thaw what was paused before', async () => {
    await freezer.freeze({ signal: undefined, timeoutMs: 1000 });
    {
      await using guard = await Guard.arm(script, {
        directory: join(directory, 'guard'), init: { pid: target.pid ?? 0, start: startTimeOf(target.pid ?? 0) },
        thawInstruction: undefined, hook: false, budgetMs: 60_000,
      });
      await guard.start();
    }
    assert.equal(freezer.frozen(), true);
  });
});
