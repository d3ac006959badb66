/** Dumps and restores that fail, with real criu: the error says why, and nothing is left. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { isStasisError, type StasisError } from '../../src/core/errors.ts';
import { parseContainerId } from '../../src/core/ids.ts';
import { Freezer } from '../../src/host/cgroup.ts';
import { readMountinfo } from '../../src/host/mountinfo.ts';
import { listPids, readProc } from '../../src/host/proc.ts';
import { criuConfig, dump, openBundle, remove, removeBundle, restore, type Container, type DumpRequest, type RuntimeName, type Toolchain } from '../../src/runtime/index.ts';
import { counterArgs, numbers, startContainer, toolchain, waitForOutput, type TestContainer } from '../support/containers.ts';

const work = '/tmp/failures';
const flags = { leaveRunning: true, tcpEstablished: false, fileLocks: false, extUnixSk: false, shellJob: false };

function request(container: Container, name: string, actionScript?: string): DumpRequest {
  const directory = join(work, name);
  mkdirSync(join(directory, 'images'), { recursive: true, mode: 0o700 });
  const config = join(directory, 'criu.conf');
  writeFileSync(config, criuConfig({ timeoutSeconds: 10, ghostLimitBytes: 1 << 20, actionScript }));
  return { container, flags, imageDir: join(directory, 'images'), workDir: directory, pageServer: undefined, criuConfig: config, operationId: name };
}

function script(text: string): string {
  const path = join(work, 'hook');
  mkdirSync(work, { recursive: true });
  writeFileSync(path, `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  return path;
}

async function failure(promise: Promise<unknown>): Promise<StasisError> {
  const error: unknown = await promise.then(() => undefined, (reason: unknown) => reason);
  assert.ok(isStasisError(error), `expected a failure, got ${String(error)}`);
  return error;
}

/** Processes of criu and the runtimes, of this test or of anybody in the box. */
function leftovers(): string[] {
  return listPids().map((pid) => readProc(pid, 'cmdline')?.replaceAll('\0', ' ') ?? '').filter((line) => /^(criu|runc|crun|\/bin\/sh \S*stasis-restore)/.test(line));
}

describe('failures', () => {
  let tools: Toolchain;
  before(async () => {
    tools = await toolchain();
  });
  afterEach(() => rmSync(work, { recursive: true, force: true }));

  async function withCounter(runtime: RuntimeName, use: (container: TestContainer) => Promise<void>): Promise<void> {
    const container = await startContainer({ runtime, id: `fail-${runtime}`, args: counterArgs });
    try {
      await waitForOutput(container.outputFile, (text) => numbers(text).length > 3);
      await use(container);
    } finally {
      await container.stop();
    }
    assert.deepEqual(leftovers(), []);
  }

  async function goesOn(container: TestContainer): Promise<void> {
    const count = numbers(readFileSync(container.outputFile, 'utf8')).length;
    await waitForOutput(container.outputFile, (text) => numbers(text).length > count + 3);
  }

  for (const runtime of ['runc', 'crun'] as const) {
    it(`${runtime}: a dump that criu refuses names the cause, and the container goes on`, async () => {
      const container = await startContainer({ runtime, id: `fail-${runtime}`, args: ['/bin/sh', '-c', 'exec 5>/tmp/lock; flock 5; i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done'] });
      try {
        await waitForOutput(container.outputFile, (text) => numbers(text).length > 3);
        const found = await container.inspect();
        const freezer = new Freezer(found.freezer!);
        await freezer.freezeSettled({ signal: undefined, timeoutMs: 5000 });
        const error = await failure(dump(request(found, 'lock'), tools, { signal: undefined, timeoutMs: 20_000 }));
        freezer.thaw();
        assert.equal(error.code, 'DUMP_FAILED');
        assert.match(error.message, /could not be dumped: processes hold file locks/);
        assert.match(error.hint ?? '', /--file-locks/);
        assert.ok(existsSync(String(error.details['log'])));
        await goesOn(container);
      } finally {
        await container.stop();
      }
    });

    it(`${runtime}: a post-dump hook that says no`, () => withCounter(runtime, async (container) => {
      const error = await failure(dump({ ...request(await container.inspect(), 'veto', script('[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ]')), flags: { ...flags, leaveRunning: false } }, tools, { signal: undefined, timeoutMs: 20_000 }));
      assert.equal(error.code, 'DUMP_FAILED');
      await goesOn(container);
    }));

    it(`${runtime}: the deadline and an abort end what runs`, () => withCounter(runtime, async (container) => {
      const reached = join(work, 'reached');
      const hook = script(`[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ] || { : > ${reached}; sleep 60; }`);
      // A criu that is killed in the middle of a dump may take the container along: in the hook it does not.
      const late = await failure(dump(request(await container.inspect(), 'late', hook), tools, { signal: undefined, timeoutMs: 4000 }));
      assert.ok(existsSync(reached), 'criu did not come to its hook within the deadline');
      assert.equal(late.code, 'DEADLINE_EXCEEDED');
      assert.deepEqual(leftovers(), []);
      await goesOn(container);
      rmSync(reached);
      const abort = new AbortController();
      const aborted = assert.rejects(dump(request(await container.inspect(), 'abort', hook), tools, { signal: abort.signal, timeoutMs: 20_000 }), { name: 'AbortError' });
      while (!existsSync(reached)) await delay(20);
      abort.abort();
      await aborted;
      assert.deepEqual(leftovers(), []);
      await goesOn(container);
    }));

    it(`${runtime}: a container that has ended`, () => withCounter(runtime, async (container) => {
      const found = await container.inspect();
      process.kill(found.pid, 'SIGKILL');
      const error = await failure(dump(request(found, 'gone'), tools, { signal: undefined, timeoutMs: 20_000 }));
      assert.equal(error.code, 'CONTAINER_EXITED');
    }));

    it(`${runtime}: restores that cannot work leave nothing, and the next one works`, () => withCounter(runtime, async (container) => {
      const found = await container.inspect();
      const good = request(found, 'good');
      await new Freezer(found.freezer!).freezeSettled({ signal: undefined, timeoutMs: 5000 });
      const { leftRunning } = await dump({ ...good, flags: { ...flags, leaveRunning: false } }, tools, { signal: undefined, timeoutMs: 20_000 });
      if (leftRunning) await remove(found.at, found.id, { force: true, signal: undefined });
      const id = parseContainerId(`fail-${runtime}-restored`);
      const directory = join('/srv', id);
      const attempt = async (name: string, change: { hook?: string; abortAfterMs?: number; stillMs?: number; spoil?: () => void }): Promise<unknown> => {
        const bundle = await openBundle({ given: undefined, directory, id, spec: found.spec, rootfs: found.rootfs, volumes: [] });
        await bundle.mount();
        change.spoil?.();
        const { workDir, criuConfig: config } = request(found, name, change.hook);
        return restore({
          at: found.at, id, bundle: bundle.directory, imageDir: good.imageDir, workDir, criuConfig: config, operationId: name, pidFile: join(directory, 'pid'),
          flags: { ...flags, tcpClose: false }, stdout: join(directory, 'out'), stderr: join(directory, 'err'),
        }, tools, { signal: change.abortAfterMs === undefined ? undefined : AbortSignal.timeout(change.abortAfterMs), timeoutMs: change.stillMs ?? 20_000, whileStill: change.stillMs !== undefined });
      };
      const clean = (): void => {
        assert.deepEqual(leftovers(), []);
        assert.ok(!existsSync(join(found.at.root, id)), 'no state');
        assert.deepEqual(listPids().filter((pid) => readProc(pid, 'cgroup')?.includes(`/${id}`)), [], 'no process');
        const stray = readMountinfo('self').filter(({ mountPoint }) => mountPoint.startsWith(found.at.root));
        assert.deepEqual(stray, [], 'no mount');
      };

      const vetoed = await failure(attempt('veto', { hook: script('[ "$CRTOOLS_SCRIPT_ACTION" != post-restore ]') }));
      assert.equal(vetoed.code, 'RESTORE_FAILED');
      clean();
      for (const stage of ['setup-namespaces', 'post-restore']) {
        await assert.rejects(attempt(`cut-${stage}`, { hook: script(`[ "$CRTOOLS_SCRIPT_ACTION" != ${stage} ] || sleep 60`), abortAfterMs: 700 }), { name: 'TimeoutError' });
        clean();
      }
      const still = await failure(attempt('still', { hook: script('[ "$CRTOOLS_SCRIPT_ACTION" != setup-namespaces ] || sleep 60'), stillMs: 2000 }));
      assert.equal(still.code, 'DEADLINE_EXCEEDED');
      assert.match(still.message, /stood still for 2000 ms/);
      clean();
      // The runtime is dead, and its criu, which would go on for ever, is in no cgroup of the container.
      const orphaned = await failure(attempt('orphan', { hook: script(`[ "$CRTOOLS_SCRIPT_ACTION" = post-restore ] || exit 0
for procs in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/init/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do echo "$PPID" > "$procs"; done 2> /dev/null
kill -STOP "$PPID"
kill -9 "$(sed 's/.*) . \\([0-9]*\\) .*/\\1/' "/proc/$PPID/stat")"
sleep 60`) }));
      assert.equal(orphaned.code, 'RESTORE_FAILED');
      clean();
      const pstree = readFileSync(join(good.imageDir, 'pstree.img'));
      const spoiled = await failure(attempt('spoiled', { spoil: () => writeFileSync(join(good.imageDir, 'pstree.img'), 'nonsense') }));
      assert.equal(spoiled.code, 'RESTORE_FAILED');
      assert.doesNotMatch(spoiled.message, /NOTIFY|errno/);
      clean();
      writeFileSync(join(good.imageDir, 'pstree.img'), pstree);

      // Slow, and not still.
      const busy = script(`[ "$CRTOOLS_SCRIPT_ACTION" = post-restore ] || exit 0
timeout 5 sh -c 'while :; do :; done'
exit 0`);
      await attempt('works', runtime === 'runc' ? { hook: busy, stillMs: 2000 } : {});
      await waitForOutput(join(directory, 'out'), (text) => numbers(text).length > 3);
      assert.equal((await failure(attempt('twice', {}))).code, 'CONTAINER_EXISTS');
      await remove(found.at, id, { force: true, signal: undefined, bundle: directory });
      await remove(found.at, id, { force: true, signal: undefined });
      clean();
      await removeBundle(directory);
    }));
  }
});
