/** The dead man's switch, with real processes in a real freezer cgroup and agents that really die. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, rmdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Freezer, type FreezerLocation } from '../../src/host/cgroup.ts';
import { cgroupProcesses } from '../../src/host/cgroup-walk.ts';
import { readDecision } from '../../src/host/decision.ts';
import { Guard, heldFromAbove, recoverGuard } from '../../src/host/guard.ts';
import { removeEmptyCgroups } from '../../src/host/own-cgroup.ts';
import { readStat } from '../../src/host/proc.ts';
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
  freezer.pids().forEach(killIfThere);
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
    freezer: freezer.directory, hook, budgetMs,
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
        freezer: freezer.directory, hook: true, budgetMs: 60_000,
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

  /** Of the program that ends criu at a harmless moment. */
  const programs: Record<string, (links: { node: string; program: string }) => void> = {
    'that is there': () => undefined,
    'whose Node.js is gone with the image of the agent': ({ node }) => replaceLink(node, '/nowhere/node'),
    'that is gone': ({ program }) => replaceLink(program, '/nowhere/program.js'),
    'that cannot run': ({ node }) => replaceLink(node, '/bin/false'),
    'that does not answer': ({ program }) => {
      rmSync(program);
      writeFileSync(program, 'setInterval(() => {}, 1000);');
    },
  };
  for (const [what, change] of Object.entries(programs)) void it(`ends a criu that does not end, and only then thaws, with a program ${what}`, async () => {
    const hanging = spawn('sleep', ['1000'], { detached: true, stdio: 'ignore' });
    await once(hanging, 'spawn');
    const ended = once(hanging, 'exit');
    {
      await using guard = await arm(700);
      change({ node: join(guard.directory, 'node'), program: join(guard.directory, 'end-criu') });
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
        freezer: undefined, hook: false, budgetMs: 60_000,
      });
      await guard.start();
    }
    assert.equal(freezer.frozen(), true);
  });

  // Everything that a name in the kernel may hold: a cgroup's all but "/" and a line feed, a process's all but NUL, 15 bytes.
  void it('thaws a cgroup whatever it is called', async () => {
    const names = ['my pod', 'a\tb', 'a\\040b', 'a)', '(b', ') S 1 1', '-n', '--', "quote'", '"', '*', '$(x)', '`x`', '%s', ';', '&', '\u00e9', '\u{1f9ca}', 'THAWED', ' ', 'x 0', '\x01'];
    await Promise.all(names.map(async (name, index) => {
      const inner = new Freezer({ version, directory: join(location.directory, name) });
      mkdirSync(inner.directory);
      try {
        await using guard = await Guard.arm(script, { directory: join(directory, `guard-${index}`), init: { pid: 1, start: 1 }, freezer: inner.directory, hook: false, budgetMs: 60_000 });
        await guard.start();
        await inner.freeze({ signal: undefined, timeoutMs: 1000 });
      } finally {
        assert.equal(inner.closed(), false, JSON.stringify(name));
        rmdirSync(inner.directory);
      }
    }));
  });

  void it('takes no stranger for a process of the operation, whatever it is called', async () => {
    const session = '9999997';
    const names = [') S   SESSION ', ') S 1 1 SESSION', ')\nS 1 1 SESSION', '\n1 (x) S 1 1 SES', 'SESSION', ') R\t0 0 SESSION', '\xff) S 0 0 9'];
    const program = (name: string): string => `import ctypes, time; ctypes.CDLL(None).prctl(15, ${pythonBytes(name.replace('SESSION', session).slice(0, 15))}); print(flush=True); time.sleep(1000)`;
    const strangers = names.map((name) => spawn('python3', ['-c', program(name)], { stdio: ['ignore', 'pipe', 'inherit'] }));
    try {
      await Promise.all(strangers.map(({ stdout }) => once(stdout, 'data')));
      {
        await using guard = await arm(60_000);
        await guard.start();
        writeFileSync(join(guard.directory, 'session'), `${session}\n`);
        await freezer.freeze({ signal: undefined, timeoutMs: 1000 });
      }
      assert.equal(freezer.frozen(), false);
      assert.deepEqual(strangers.map(({ exitCode, signalCode }) => exitCode ?? signalCode), names.map(() => null), 'a stranger was ended');
    } finally {
      await Promise.all(strangers.map((stranger) => {
        const ended = once(stranger, 'exit');
        stranger.kill('SIGKILL');
        return ended;
      }));
    }
  });

  void it('sees that the first process lives, or is dead, whatever it calls itself', async () => {
    const named = spawn('python3', ['-c', `import ctypes, time; ctypes.CDLL(None).prctl(15, ${pythonBytes(')\nZ 1 (x) Z 1')}); print(flush=True); time.sleep(1000)`], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(named.stdout, 'data');
    const ended = once(named, 'exit');
    const guardDirectory = join(directory, 'guard');
    mkdirSync(guardDirectory);
    const start = readStat(named.pid ?? 0)?.startTime ?? 0;
    for (const [file, value] of [['init-pid', named.pid], ['init-start', start]] as const) writeFileSync(join(guardDirectory, file), `${value}\n`);
    symlinkSync('commit', join(guardDirectory, 'decision'));
    await recoverGuard(script, guardDirectory);
    await ended;
    assert.equal(named.signalCode, 'SIGKILL', 'a committed container must die');
  });

  void it('keeps the budget whatever `date` and the clock of the machine say', async () => {
    const bin = join(directory, 'bin');
    mkdirSync(bin);
    writeFileSync(join(bin, 'date'), '#!/bin/sh\necho 0\n', { mode: 0o755 });
    const hanging = spawn('sleep', ['1000'], { detached: true, stdio: 'ignore' });
    await once(hanging, 'spawn');
    const ended = once(hanging, 'exit');
    const path = process.env['PATH'];
    process.env['PATH'] = `${bin}:${path}`;
    try {
      await using guard = await arm(500);
      await guard.start();
      writeFileSync(join(guard.directory, 'session'), `${hanging.pid}\n`);
      await freezer.freeze({ signal: undefined, timeoutMs: 1000 });
    } finally {
      process.env['PATH'] = path;
    }
    await ended;
    assert.equal(freezer.frozen(), false);
  });

  for (const budgetMs of [0, -1, Number.NaN, 2 ** 31, Infinity]) {
    void it(`refuses a budget of ${budgetMs} ms`, async () => {
      await assert.rejects(arm(budgetMs), (error) => isStasisError(error, 'USAGE'));
    });
  }

  void it('carries out what is left of a guard, whichever of its files are missing, and only once', async () => {
    const files = ['init-pid', 'init-start', 'session', 'answer', 'guard.pid'];
    for (let missing = 0; missing < 2 ** files.length; missing += 7) {
      const guardDirectory = join(directory, `left-${missing}`);
      mkdirSync(guardDirectory);
      symlinkSync(location.directory, join(guardDirectory, 'freezer'));
      files.forEach((file, bit) => (missing & (1 << bit)) === 0 && writeFileSync(join(guardDirectory, file), ''));
      await freezer.freeze({ signal: undefined, timeoutMs: 1000 });
      assert.equal(await recoverGuard(script, guardDirectory), 'thaw');
      assert.equal(freezer.frozen(), false, `without ${missing.toString(2)}`);
      await freezer.freeze({ signal: undefined, timeoutMs: 1000 });
      await recoverGuard(script, guardDirectory);
      assert.equal(freezer.frozen(), true, 'somebody else has paused it since');
      freezer.thaw();
    }
  });

  void it('carries out a guard of an agent of version 0.1, blanks in the path included', async () => {
    const guardDirectory = join(directory, 'old');
    mkdirSync(guardDirectory);
    mkdirSync(join(location.directory, 'a b'));
    const inner = new Freezer({ version, directory: join(location.directory, 'a b') });
    try {
      await inner.freeze({ signal: undefined, timeoutMs: 1000 });
      writeFileSync(join(guardDirectory, 'freezer'), `${location.directory}/a b/${version === 1 ? 'freezer.state THAWED' : 'cgroup.freeze 0'}\n`);
      await recoverGuard(script, guardDirectory);
      assert.equal(inner.closed(), false);
    } finally {
      rmdirSync(join(location.directory, 'a b'));
    }
  });

  void it('opens the freezer of the container below one that is frozen by somebody else, ends, and says so', async () => {
    mkdirSync(join(location.directory, 'below'));
    const inner = new Freezer({ version, directory: join(location.directory, 'below') });
    const guardDirectory = join(directory, 'held');
    mkdirSync(guardDirectory);
    try {
      writeFileSync(join(inner.directory, 'cgroup.procs'), String(target.pid));
      await inner.freeze({ signal: undefined, timeoutMs: 1000 });
      await freezer.freeze({ signal: undefined, timeoutMs: 1000 });
      symlinkSync(inner.directory, join(guardDirectory, 'freezer'));
      await recoverGuard(script, guardDirectory);
      assert.deepEqual([inner.closed(), inner.frozenFromAbove(), heldFromAbove(guardDirectory)], [false, true, true]);
      freezer.thaw();
      assert.equal(inner.frozenFromAbove(), false);
    } finally {
      freezer.thaw();
      writeFileSync(join(location.directory, 'cgroup.procs'), String(target.pid));
      inner.pids().forEach(killIfThere);
      for (let tries = 0; tries < 100 && inner.pids().length > 0; tries++) await delay(10);
      rmdirSync(inner.directory);
    }
  });

  void it('leaves the cgroup of the agent, so that what kills or freezes that one does not stop it', async () => {
    const module = new URL('../../src/host/guard.js', import.meta.url).href;
    const mine = join(location.directory, 'pod');
    mkdirSync(mine);
    const agent = spawn(process.execPath, ['--input-type=module', '-e', `
      import { Guard } from ${JSON.stringify(module)};
      import { writeFileSync } from 'node:fs';
      writeFileSync(${JSON.stringify(join(mine, 'cgroup.procs'))}, String(process.pid));
      const guard = await Guard.arm(${JSON.stringify(script)}, ${JSON.stringify({
        directory: join(directory, 'guard'), init: { pid: target.pid, start: startTimeOf(target.pid ?? 0) }, freezer: location.directory, hook: false, budgetMs: 60_000,
      })});
      await guard.start();
      console.log(JSON.stringify(guard.exposed));
      setInterval(() => {}, 1000);
    `], { stdio: ['ignore', 'pipe', 'inherit'] });
    const exited = once(agent, 'exit');
    try {
      const [told] = await once(agent.stdout, 'data') as [Buffer];
      assert.deepEqual(JSON.parse(told.toString()), []);
      assert.deepEqual(cgroupProcesses(mine), [agent.pid], 'the guard is still in the cgroup of its agent');
      await freezer.freeze({ signal: undefined, timeoutMs: 1000 });
    } finally {
      // Frozen with the container above it: killed, it dies when it is thawed.
      agent.kill('SIGKILL');
    }
    freezer.thaw();
    await exited;
    const guardPid = Number(readFileSync(join(directory, 'guard/guard.pid'), 'utf8'));
    for (let tries = 0; tries < 300 && readStat(guardPid) !== undefined; tries++) await delay(10);
    assert.equal(readDecision(join(directory, 'guard')), 'thaw');
    rmdirSync(mine);
    removeEmptyCgroups('stasis-guards');
  });
});

function replaceLink(link: string, target: string): void {
  rmSync(link);
  symlinkSync(target, link);
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended by itself.
  }
}

/** A Python literal of exactly these bytes. */
function pythonBytes(text: string): string {
  return `b'${[...Buffer.from(text, 'latin1')].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}'`;
}
