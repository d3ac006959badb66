/** The deadline of a guard strikes while a real criu runs something inside the tasks that it dumps: the container goes on. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Freezer } from '../../src/host/cgroup.ts';
import { criuPids } from '../../src/host/criu-end.ts';
import { Guard } from '../../src/host/guard.ts';
import { areAtHome, type Places } from '../../src/host/places.ts';
import { processRuns, readStat } from '../../src/host/proc.ts';
import { sessionMembers } from '../../src/host/session.ts';
import { criuConfig, dump, type Container, type RuntimeName, type Toolchain } from '../../src/runtime/index.ts';
import { startContainer, toolchain, waitForOutput, type TestContainer } from '../support/containers.ts';

const script = process.env['STASIS_GUARD'] ?? '/opt/stasis/deploy/libexec/stasis-guard';
const work = '/tmp/guard-criu';
const BUDGET_MS = 1500;
/** Threads for whose sake criu is long in the tasks, and a first one that counts. */
const PROGRAM = `
import threading, time
for _ in range(40): threading.Thread(target=time.sleep, args=(100000,), daemon=True).start()
n = 0
while True:
    n += 1
    print(n, flush=True)
    time.sleep(0.01)
`;

let tools: Toolchain;
let running: { container: TestContainer; inspected: Container; freezer: Freezer } | undefined;

before(async () => {
  tools = await toolchain();
});
after(() => rmSync(work, { recursive: true, force: true }));
afterEach(async () => {
  await running?.container.stop();
  running = undefined;
});

async function start(runtime: RuntimeName): Promise<NonNullable<typeof running>> {
  const container = await startContainer({ runtime, id: `guard-criu-${runtime}`, args: ['/usr/bin/python3', '-c', PROGRAM] });
  const inspected = await container.inspect();
  running = { container, inspected, freezer: new Freezer(inspected.freezer!) };
  await waitForOutput(container.outputFile, (text) => text.length > 3);
  return running;
}

/**
 * The deadline of the guard strikes while criu is stopped at a moment at which its death does harm; until the guard has
 * settled it. False when the dump was over before such a moment was met.
 */
async function strike({ inspected, freezer }: NonNullable<typeof running>): Promise<boolean> {
  rmSync(work, { recursive: true, force: true });
  mkdirSync(join(work, 'images'), { recursive: true });
  const config = join(work, 'criu.conf');
  writeFileSync(config, criuConfig({ timeoutSeconds: 60, ghostLimitBytes: 1 << 20 }));
  await using guard = await Guard.arm(script, {
    directory: join(work, 'guard'), init: { pid: inspected.pid, start: inspected.pidStart }, freezer: freezer.directory,
    hook: false, budgetMs: BUDGET_MS, criuLog: join(work, 'dump.log'),
  });
  await guard.start();
  await freezer.freeze({ signal: undefined, timeoutMs: 1000 });
  const places = freezer.places()!;
  guard.notePlaces(places);
  const flags = { leaveRunning: true, tcpEstablished: false, fileLocks: false, extUnixSk: false, shellJob: false };
  const dumped = dump({
    container: inspected, flags, imageDir: join(work, 'images'), workDir: work, pageServer: undefined, criuConfig: config,
    operationId: 'guard-criu', guardDirectory: guard.directory,
  }, tools, { signal: undefined, timeoutMs: 60_000 }).catch(() => undefined);
  const met = await stopWhereItHarms(guard, places, dumped);
  if (met) while (!existsSync(join(guard.directory, 'settled'))) await delay(5);
  await dumped;
  assert.ok(!met || sessionMembers(guard.sessionFile).length === 0, 'the guard has left criu alone');
  return met;
}

async function stopWhereItHarms(guard: Guard, places: Places, dumped: Promise<unknown>): Promise<boolean> {
  const over = new AbortController();
  void dumped.then(() => over.abort());
  while (!over.signal.aborted && !guard.fired) {
    const [criu] = criuPids(guard.sessionFile);
    if (criu !== undefined && !areAtHome(places)) {
      process.kill(criu, 'SIGSTOP');
      while (readStat(criu)?.state !== 'T') await delay(1);
      if (!areAtHome(places)) return true;
      process.kill(criu, 'SIGCONT');
    }
    await delay(0);
  }
  return false;
}

async function assertGoesOn({ container, inspected, freezer }: NonNullable<typeof running>, what: string): Promise<void> {
  assert.ok(processRuns(inspected.pid, inspected.pidStart), `${what}: the container is dead`);
  assert.equal(freezer.frozen(), false, `${what}: the container is frozen`);
  const before = readFileSync(container.outputFile, 'utf8').length;
  await waitForOutput(container.outputFile, (text) => text.length > before);
}

for (const [runtime, rounds] of [['runc', 3], ['crun', 1]] as const) {
  void it(`the deadline strikes while criu is in the tasks: ended without harm, ${runtime}`, { timeout: 120_000 }, async () => {
    const one = await start(runtime);
    for (let met = 0, tries = 1; met < rounds; tries++) {
      assert.ok(tries <= rounds * 10, 'criu is not met in the tasks');
      if (await strike(one)) met += 1;
      await assertGoesOn(one, `try ${tries}`);
    }
  });
}
