/**
 * A restored container is what was saved, or it is refused before it runs. Whatever differs is made so from outside while
 * the rebuilt tasks stand at the gate.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { compare, isNoted, observe, type FidelityRecord } from '../../src/runtime/fidelity/index.ts';
import { valueOf } from '../../src/runtime/fidelity/compare.ts';
import { assertClean, atFailpoint, checkpoint, endAgents, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { counterArgs, startContainer, type TestContainer } from '../support/containers.ts';
import type { RestoreResult } from '../../src/rpc/api.ts';

let home: AgentHome;

before(() => {
  home = makeHome();
});
after(() => removeHome(home));
afterEach(endAgents);

interface Tampering {
  readonly attribute: string;
  /** With the host pid of the first process. */
  readonly change: (pid: number) => void;
  readonly was: string;
  readonly is: string;
}

function inMounts(pid: number, ...args: string[]): void {
  execFileSync('nsenter', ['-t', String(pid), '-m', ...args]);
}

const tamperings: readonly Tampering[] = [
  { attribute: 'nice', change: (pid) => void execFileSync('renice', ['-n', '7', '-p', String(pid)]), was: '0', is: '7' },
  { attribute: 'oom-score-adj', change: (pid) => writeFileSync(`/proc/${pid}/oom_score_adj`, '321'), was: '\\d+', is: '321' },
  { attribute: 'resource-limits', change: (pid) => void execFileSync('prlimit', ['--pid', String(pid), '--nofile=17:17']), was: '.*', is: '.*Max open files 17 17.*' },
  { attribute: 'mount-options', change: (pid) => inMounts(pid, 'mount', '-o', 'remount,bind,exec,nosuid,nodev', '/dev/shm'), was: '.*noexec.*', is: '.*' },
  { attribute: 'mount', change: (pid) => inMounts(pid, 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'), was: 'absent', is: 'there' },
  { attribute: 'mount-propagation', change: (pid) => inMounts(pid, 'mount', '--make-shared', '/dev/shm'), was: 'private', is: 'shared' },
];

async function restoreTampered(agent: TestAgent, saved: string, change: (pid: number) => void, allowDifference: string[] = []): Promise<RestoreResult> {
  const restored = restore(agent, saved, { allowDifference });
  restored.catch(() => undefined);
  await atFailpoint(agent, () => {
    const gates = join(home.run, 'gates');
    change(Number(readFileSync(join(gates, readdirSync(gates)[0] ?? '', 'pre-resume'), 'utf8')));
  });
  return restored;
}

/** Options that CRIU does not keep. */
const watchful = { destination: '/media', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'noexec', 'noatime', 'nodiratime', 'size=1m'] };

const STOP = { STASIS_TESTING_FAILPOINT: 'restore.gate.pre-resume=stop' };

/** Each blocks SIGUSR1; the children wait in calls that have another mask meanwhile, and the kernel shows that one. */
const WAITING = String.raw`
import ctypes, os, signal, time
libc = ctypes.CDLL(None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
none = (ctypes.c_ulong * 16)()
for wait in [lambda: libc.sigsuspend(none), lambda: libc.ppoll(None, 0, None, none), lambda: signal.sigwait([signal.SIGUSR1])]:
    if os.fork() == 0:
        while True: wait()
while True: time.sleep(100)
`;
const BLOCKED = '0000000000000200';
const NOTHING = '0000000000000000';

function blockedBy(pid: number): string[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean);
  return [String(pid), ...children].map((one) => /SigBlk:\s*(\S+)/.exec(readFileSync(`/proc/${one}/status`, 'utf8'))?.[1] ?? '');
}

async function untilWaiting(pid: number): Promise<void> {
  for (let waited = 0; blockedBy(pid).join() !== [BLOCKED, NOTHING, NOTHING, NOTHING].join(); waited += 20) {
    assert.ok(waited < 10_000, blockedBy(pid).join());
    await delay(20);
  }
}

void it('blocked signals are compared, also of tasks that wait with another mask', async () => {
  assert.equal(isNoted('signals-blocked'), false);
  const container = await startContainer({ runtime: 'runc', id: 'waiting', args: ['/usr/bin/python3', '-c', WAITING] });
  try {
    await untilWaiting(container.pid);
    const agent = await startAgent(home, STOP);
    const { checkpoint: saved } = await checkpoint(agent, container.id);
    let atGate: string[] = [];
    const { pid } = await restoreTampered(agent, saved, (init) => { atGate = blockedBy(init); });
    assert.deepEqual(atGate, [BLOCKED, BLOCKED, BLOCKED, BLOCKED]);
    await untilWaiting(pid);
  } finally {
    await container.stop();
  }
});

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`a restore with ${runtime} is compared`, () => {
    let container: TestContainer;
    let saved: string;
    let record: FidelityRecord;

    before(async () => {
      container = await startContainer({ runtime, id: `fidelity-${runtime}`, args: counterArgs, edit: (spec) => spec['mounts'].push(watchful) });
      record = observe(container.pid);
      const agent = await startAgent(home);
      saved = (await checkpoint(agent, container.id)).checkpoint;
      await agent.stop();
    });
    after(() => container?.stop());

    // The comparison is the same with both; that crun's tasks stand at the gate, too, one row shows.
    for (const { attribute, change, was, is } of runtime === 'runc' ? tamperings : tamperings.slice(0, 1)) {
      void it(`${attribute} differs: refused, and nothing runs`, async () => {
        const agent = await startAgent(home, STOP);
        const output = join(home.state, 'output', `${container.id}.stdout.log`);
        const written = existsSync(output) ? readFileSync(output, 'utf8') : '';
        await assert.rejects(restoreTampered(agent, saved, change), (error: { code?: string; message: string }) => {
          assert.equal(error.code, 'RESTORE_DIFFERS', error.message);
          assert.match(error.message, new RegExp(`${attribute} of .*: was ${was}, is ${is}`));
          return true;
        });
        assert.equal(existsSync(output) ? readFileSync(output, 'utf8') : '', written);
        assert.deepEqual((await agent.client.listContainers({ all: true, container: '' }, { signal: undefined })).containers, []);
        await assertClean(agent);
      });
    }

    void it('options of every mount come back, those of masks, too', async () => {
      const masks = Object.values(record.attributes['mask-options']?.others ?? {}).concat(record.attributes['mask-options']?.usual ?? []);
      assert.ok(masks.some((options) => options.split(',').some((option) => option === 'ro' || option === 'nosuid')), masks.join(' '));
      assert.match(valueOf(record, 'mount-times', watchful.destination) ?? '', /noatime/);
      const agent = await startAgent(home);
      const { pid } = await restore(agent, saved, {});
      assert.deepEqual(compare(record, observe(pid)).filter(({ attribute }) => /^(mount|mask|file-system)/.test(attribute)), []);
      saved = (await checkpoint(agent, container.id)).checkpoint;
    });

    void it('a difference that the caller allows is told; an unknown name is refused', async () => {
      const agent = await startAgent(home, STOP);
      await assert.rejects(restore(agent, saved, { allowDifference: ['nise'] }), { code: 'USAGE' });
      const result = await restoreTampered(agent, saved, tamperings[0]!.change, ['nice']);
      assert.deepEqual(result.findings.map(({ kind, message }) => [kind, message]), [['difference', 'nice of process 1: was 0, is 7']]);
      assert.ok(agent.log.some(({ event }) => event === 'restore.differs'));
      assert.equal(observe(result.pid).attributes['nice']?.others?.['1'] ?? observe(result.pid).attributes['nice']?.usual, '7');
      await checkpoint(agent, container.id);
    });
  });
}
