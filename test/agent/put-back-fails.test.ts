/** What cannot be put back ends the restore with its name, and nothing of the container is left. The node is made to refuse it. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { parseContainerId } from '../../src/core/ids.ts';
import { cgroupTree } from '../../src/host/cgroup-walk.ts';
import { MNT_DETACH, umount } from '../../src/host/libc.ts';
import { listPids, readProc, readStat } from '../../src/host/proc.ts';
import { remove } from '../../src/runtime/index.ts';
import { agentOfFile, assertClean, atFailpoint, checkpoint, restore } from '../support/agent.ts';
import { rootOf, startContainer, type TestContainer } from '../support/containers.ts';

const file = agentOfFile();
const runtime = 'runc';
const id = 'refused';
const [SHARES, PIDS] = ['/sys/fs/cgroup/cpu/refused/cpu.shares', '/sys/fs/cgroup/pids/refused/pids.max'] as const;
const limits = existsSync('/sys/fs/cgroup/cpu') && existsSync('/sys/fs/cgroup/pids') ? false : 'no limits on this machine';
let directory: string;
let container: TestContainer;
let freezer: string;
let saved: string;

async function untilSeen(seen: () => boolean): Promise<void> {
  for (let tries = 0; !seen(); tries++) {
    assert.ok(tries < 500);
    await delay(10);
  }
}

function children(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
}

let armed = 0;

/** Each time in other words: a failed restore comes to no other failpoint, and what was armed before has struck. */
function stopAtGate(): void {
  armed += 1;
  file.agent.arm(`restore.gate.pre-resume=stop,none:${armed}=stop`);
}

/** Covers that hide a file; a cgroup may be removed below one, and its path with it. */
const covers: number[] = [];

/** A file that takes no word, with this in it, in the place of another. Only this box sees it. */
function refuse(path: string, content = ''): void {
  const cover = join(directory, 'cover');
  writeFileSync(cover, content);
  execFileSync('sh', ['-euc', 'mount --bind "$0" "$1"; mount -o remount,bind,ro "$1"', cover, path]);
  covers.push(openSync(path, 'r'));
}

function uncover(): void {
  for (const fd of covers.splice(0)) {
    try {
      umount(`/proc/self/fd/${fd}`, MNT_DETACH);
    } catch {
      // It went with the process that it was about.
    }
    closeSync(fd);
  }
}

/** The first process of the container that is being restored. */
function firstProcess(): number {
  const pid = listPids().find((candidate) => readProc(candidate, 'cgroup')?.includes(`/${id}`) === true
    && /^NSpid:.*\t1$/m.test(readProc(candidate, 'status') ?? ''));
  assert.ok(pid !== undefined);
  return pid;
}

async function assertNothingLeft(): Promise<void> {
  await assertClean(file.agent);
  assert.deepEqual(readdirSync(rootOf(runtime).root).filter((name) => name === id), []);
  const left = listPids().filter((pid) => readProc(pid, 'cgroup')?.includes(`/${id}`) === true && readStat(pid)?.state !== 'Z');
  assert.deepEqual(left.map((pid) => readStat(pid)?.comm), []);
  assert.deepEqual(cgroupTree(freezer), []);
}

const rows: readonly { readonly kind: string; readonly message: RegExp; readonly skip?: string | false; readonly refuse: () => void }[] = [
  { kind: 'timer slack', message: /timer slack of task 1: EROFS/, refuse: () => refuse(`/proc/${firstProcess()}/timerslack_ns`, '50000') },
  { kind: 'core dump filter', message: /core dump filter of task 1: EROFS/, refuse: () => refuse(`/proc/${firstProcess()}/coredump_filter`, '00000033') },
  { kind: 'a limit', skip: limits, message: /cpu\.shares is 5, was 77: EROFS/, refuse: () => refuse(SHARES, '5') },
  { kind: 'a limit that waits for the end of criu', skip: limits, message: /pids\.max is 5, was 77: EROFS/, refuse: () => refuse(PIDS, '5') },
  { kind: 'a cgroup below', message: /process \d+ does not come into its cgroup \S+: EROFS/, refuse: refuseBelow },
];

function refuseBelow(): void {
  mkdirSync(join(freezer, 'below'));
  refuse(join(freezer, 'below/cgroup.procs'));
}

void describe('what cannot be put back', () => {
  before(async () => {
    directory = mkdtempSync(join(tmpdir(), 'refused-'));
    container = await startContainer({ runtime, id, args: ['/bin/sh', '-c', 'sleep 1000000 & while :; do sleep 0.2; done'] });
    const { pid } = container;
    freezer = (await container.inspect()).freezer?.directory ?? '';
    await untilSeen(() => children(pid).length > 0);
    writeFileSync(`/proc/${pid}/timerslack_ns`, '777777');
    writeFileSync(`/proc/${pid}/coredump_filter`, '0x7f');
    execFileSync('nsenter', ['-t', String(pid), '-n', 'nft', 'add', 'table', 'inet', 'mine']);
    if (limits === false) for (const [path, value] of [[SHARES, '77'], [PIDS, '77']] as const) writeFileSync(path, value);
    mkdirSync(join(freezer, 'below'));
    writeFileSync(join(freezer, 'below/cgroup.procs'), String(children(pid)[0]));
    saved = (await checkpoint(file.agent, id)).checkpoint;
  });

  after(async () => {
    if (existsSync(join(rootOf(runtime).root, id))) await remove(rootOf(runtime), parseContainerId(id), { force: true, signal: undefined });
    await container?.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  for (const { kind, message, skip = false, refuse: act } of rows) {
    void it(`${kind} ends the restore with its name`, { skip }, async () => {
      stopAtGate();
      const refused = assert.rejects(restore(file.agent, saved), { code: 'RESTORE_FAILED', message });
      try {
        await atFailpoint(file.agent, act);
      } finally {
        file.agent.arm('');
      }
      await refused;
      uncover();
      await assertNothingLeft();
    });
  }

  void it('the network of its own namespace ends the restore with its name', async () => {
    const nft = execFileSync('sh', ['-c', 'readlink -f "$(command -v nft)"'], { encoding: 'utf8' }).trim();
    writeFileSync(join(directory, 'nft'), '#!/bin/sh\necho this node has no rules >&2\nexit 1\n', { mode: 0o755 });
    execFileSync('mount', ['--bind', join(directory, 'nft'), nft]);
    try {
      await assert.rejects(restore(file.agent, saved), { code: 'RESTORE_FAILED', message: /own network namespace cannot be brought back: this node has no rules/ });
    } finally {
      execFileSync('umount', [nft]);
    }
    await assertNothingLeft();
  });

  void it('is let pass where the caller allows it by name', async () => {
    stopAtGate();
    const restored = restore(file.agent, saved, { allowDifference: ['cgroup'] });
    await atFailpoint(file.agent, refuseBelow);
    file.agent.arm('');
    const { pid } = await restored;
    uncover();
    assert.equal(readFileSync(`/proc/${pid}/timerslack_ns`, 'utf8').trim(), '777777');
    assert.equal(readFileSync(`/proc/${pid}/coredump_filter`, 'utf8').trim(), '0000007f');
    if (limits === false) assert.deepEqual([SHARES, PIDS].map((path) => readFileSync(path, 'utf8').trim()), ['77', '77']);
  });
});
