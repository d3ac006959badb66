/** checkpoint → restore → checkpoint → restore with real criu: the output goes on where it was, nobody dies with the one who started it. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { parseContainerId } from '../../src/core/ids.ts';
import { Freezer } from '../../src/host/cgroup.ts';
import { listPids, readProc, readStat } from '../../src/host/proc.ts';
import { criuConfig, dump, findContainer, openBundle, remove, restore, type Bundle, type Container, type RuntimeName, type Toolchain } from '../../src/runtime/index.ts';
import { counterArgs, numbers, roots, startContainer, toolchain, waitForOutput, type TestContainer } from '../support/containers.ts';

const flags = { leaveRunning: false, tcpEstablished: false, fileLocks: false, extUnixSk: false, shellJob: false };
const work = '/tmp/cycle';

function directories(name: string): { images: string; work: string; config: string } {
  const directory = join(work, name);
  mkdirSync(join(directory, 'images'), { recursive: true, mode: 0o700 });
  const config = join(directory, 'criu.conf');
  writeFileSync(config, criuConfig({ timeoutSeconds: 20, ghostLimitBytes: 1 << 20 }));
  return { images: join(directory, 'images'), work: directory, config };
}

async function checkpoint(container: Container, name: string, tools: Toolchain): Promise<string> {
  const at = directories(name);
  await new Freezer(container.freezer!).freezeSettled({ signal: undefined, timeoutMs: 5000 });
  const result = await dump({ container, flags, imageDir: at.images, workDir: at.work, pageServer: undefined, criuConfig: at.config, operationId: name }, tools, { signal: undefined, timeoutMs: 30_000 });
  assert.ok(existsSync(result.statsPath));
  // runc 1.1 cannot be trusted to kill only what it has saved.
  if (result.leftRunning) await remove(container.at, container.id, { force: true, signal: undefined });
  return at.images;
}

interface Restored {
  readonly container: Container;
  readonly bundle: Bundle;
  readonly out: string;
  readonly err: string;
}

async function bringBack(from: Container, images: string, id: string, tools: Toolchain): Promise<Restored> {
  const directory = join('/srv', `restored-${id}`);
  const bundle = await openBundle({ given: undefined, directory, id: parseContainerId(id), spec: from.spec, rootfs: from.rootfs, volumes: [] });
  await bundle.mount();
  const at = directories(`restore-${id}`);
  const [out, err] = [join(directory, 'out'), join(directory, 'err')];
  const restored = await restore({
    at: from.at, id: parseContainerId(id), bundle: bundle.directory, imageDir: images, workDir: at.work, criuConfig: at.config, operationId: `restore-${id}`, pidFile: join(directory, 'pid'),
    flags: { ...flags, tcpClose: false }, stdout: out, stderr: err,
  }, tools, { signal: undefined, timeoutMs: 30_000 }).catch(async (error: unknown) => {
    await bundle.remove();
    throw error;
  });
  const container = await findContainer(roots, id, { signal: undefined });
  assert.equal(container.pid, restored.pid);
  assert.equal(container.pidStart, restored.pidStart);
  assert.equal(container.status, 'running');
  return { container, bundle, out, err };
}

/** Processes other than the container's that write to a file of the test. */
function pumps(file: string): number[] {
  return listPids().filter((pid) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/1`) === file;
    } catch {
      return false;
    }
  });
}

const COUNT = 'i=0; while :; do i=$((i+1)); echo $i; echo e$i >&2; sleep 0.02; done';
/** After /redirect is there as COUNT is in the middle of its second echo: one stream on both descriptors, the other on a third. */
const REDIRECTED = 'exec 9>&1; i=0; while :; do if [ -e /redirect ]; then exec 1>&2; fi; i=$((i+1)); echo $i >&9; echo e$i >&2; sleep 0.02; done';
const SILENCED = 'exec 9>&1 1>/dev/null; i=0; while :; do i=$((i+1)); echo $i >&9; echo e$i >&2; sleep 0.02; done';

interface CycleOptions {
  readonly stdin: 'null' | 'pipe';
  readonly stderr: 'pipe' | 'same';
  readonly script?: string;
}

async function cycle(runtime: RuntimeName, options: CycleOptions, tools: Toolchain): Promise<void> {
  const script = options.script ?? COUNT;
  const cleanup: (() => Promise<unknown>)[] = [];
  try {
    const first: TestContainer = await startContainer({ runtime, id: `cycle-${runtime}`, args: ['/bin/sh', '-c', script], ...options });
    cleanup.push(() => first.stop());
    await waitForOutput(first.outputFile, (text) => numbers(text).length > 10);
    let from = await first.inspect();
    let last = 0;
    let lastFile = first.outputFile;
    if (script === REDIRECTED) {
      writeFileSync(`/proc/${from.pid}/root/redirect`, '');
      await until(() => readlinkSync(`/proc/${from.pid}/fd/1`) === readlinkSync(`/proc/${from.pid}/fd/2`));
    }
    for (const round of script === REDIRECTED ? [1] : [1, 2]) {
      const images = await checkpoint(from, `${runtime}-${round}`, tools);
      assert.equal(existsSync(join(from.at.root, from.id)), false, 'the runtime has removed the container');
      last = Math.max(...numbers(readFileSync(lastFile, 'utf8')));
      const restored = await bringBack(from, images, `cycle-${runtime}-${round}`, tools);
      cleanup.unshift(async () => {
        await remove(restored.container.at, restored.container.id, { force: true, signal: undefined });
        await restored.bundle.remove();
      });
      const text = await waitForOutput(restored.out, (output) => numbers(output).length > 10);
      assert.equal(numbers(text)[0], last + 1, 'the count goes on');
      assert.deepEqual(numbers(text), numbers(text).map((_, index) => last + 1 + index), 'no number is lost or doubled');
      if (options.stderr === 'pipe') {
        assert.match(await waitForOutput(restored.err, (output) => output.length > 0), /^e\d+\n/);
        assert.doesNotMatch(text, /e\d/);
      } else {
        assert.match(text, /e\d/);
      }
      for (const fd of script === SILENCED ? [2, 9] : options.stdin === 'pipe' ? [0, 1, 2] : [1, 2]) assert.match(readlinkSync(`/proc/${restored.container.pid}/fd/${fd}`), /^pipe:/);
      assert.equal(pumps(restored.out).length, 1);
      for (const pid of pumps(restored.out)) {
        assert.equal(readStat(pid)?.session, pid, 'the pump has a session of its own');
        assert.doesNotMatch(readProc(pid, 'environ') ?? '', /STASIS_OPERATION/);
      }
      from = restored.container;
      lastFile = restored.out;
    }
    await remove(from.at, from.id, { force: true, signal: undefined });
    // The pumps end with the container.
    await until(() => pumps(lastFile).length === 0);
  } finally {
    for (const undo of cleanup) await undo();
    rmSync(work, { recursive: true, force: true });
  }
}

async function until(condition: () => boolean): Promise<void> {
  for (let waited = 0; waited < 5000 && !condition(); waited += 20) await delay(20);
  assert.ok(condition(), condition.toString());
}

describe('checkpoint and restore, twice over', () => {
  let tools: Toolchain;
  before(async () => {
    tools = await toolchain();
  });

  it('runc, stdout and stderr apart', () => cycle('runc', { stdin: 'null', stderr: 'pipe' }, tools));
  it('runc, stdin a pipe, stderr together with stdout', () => cycle('runc', { stdin: 'pipe', stderr: 'same' }, tools));
  it('crun, stdout and stderr apart', () => cycle('crun', { stdin: 'null', stderr: 'pipe' }, tools));
  it('crun, stdin a pipe, stderr together with stdout', () => cycle('crun', { stdin: 'pipe', stderr: 'same' }, tools));

  for (const runtime of ['runc', 'crun'] as const) {
    it(`${runtime}, saved while standard output is sent to standard error`, () => cycle(runtime, { stdin: 'null', stderr: 'pipe', script: REDIRECTED }, tools));
    it(`${runtime}, saved while standard output goes to a file`, () => cycle(runtime, { stdin: 'null', stderr: 'pipe', script: SILENCED }, tools));
  }

  it('keeps an empty stdin open when nothing else is a pipe, until the container ends', async () => {
    const first = await startContainer({ runtime: 'runc', id: 'cycle-stdin', stdin: 'pipe', stdout: 'null', stderr: 'null', args: ['/bin/sh', '-c', 'read line; echo end of input > /tmp/end; sleep 1000'] });
    const holders = (pid: number): number[] => listPids().filter((candidate) => (readProc(candidate, 'cmdline') ?? '').includes(`tail\0--pid=${pid}`));
    let restored: Restored | undefined;
    try {
      const from = await first.inspect();
      await until(() => holders(from.pid).length === 1);
      restored = await bringBack(from, await checkpoint(from, 'stdin', tools), 'cycle-stdin-1', tools);
      const { pid } = restored.container;
      assert.match(readlinkSync(`/proc/${pid}/fd/0`), /^pipe:/);
      assert.equal(readlinkSync(`/proc/${pid}/fd/1`), '/dev/null');
      await until(() => holders(pid).length === 1);
      assert.ok(!existsSync(join(restored.bundle.upper!, 'tmp/end')), 'its input has not ended');
      process.kill(pid, 'SIGKILL');
      await until(() => holders(pid).length === 0);
    } finally {
      if (restored !== undefined) {
        await remove(restored.container.at, restored.container.id, { force: true, signal: undefined });
        await restored.bundle.remove();
      }
      await first.stop();
      rmSync(work, { recursive: true, force: true });
    }
  });

  it('leaves a container running that shall go on', async () => {
    const container = await startContainer({ runtime: 'runc', id: 'cycle-leave', args: counterArgs });
    try {
      await waitForOutput(container.outputFile, (text) => numbers(text).length > 3);
      const at = directories('leave');
      const found = await container.inspect();
      const freezer = new Freezer(found.freezer!);
      await freezer.freezeSettled({ signal: undefined, timeoutMs: 5000 });
      assert.equal((await container.inspect()).status, 'paused');
      await dump({ container: found, flags: { ...flags, leaveRunning: true }, imageDir: at.images, workDir: at.work, pageServer: undefined, criuConfig: at.config, operationId: 'leave' }, tools, { signal: undefined, timeoutMs: 30_000 });
      assert.ok(freezer.frozen(), 'criu leaves the freezer as it found it');
      freezer.thaw();
      const count = numbers(readFileSync(container.outputFile, 'utf8')).length;
      await waitForOutput(container.outputFile, (text) => numbers(text).length > count + 3);
    } finally {
      await container.stop();
      rmSync(work, { recursive: true, force: true });
    }
  });
});
