/**
 * A container whose checkpoint would come back as something else is not stopped. Whatever differs is made so from outside
 * while the rebuilt tasks stand in the scratch place.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { pidFromInside } from '../../src/host/nested-pid.ts';
import { sessionLeader } from '../../src/host/session.ts';
import type { CheckpointResult } from '../../src/rpc/api.ts';
import { assertClean, atFailpoint, checkpoint, checkpointIds, endAgents, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startContainer, waitForOutput, type TestContainer } from '../support/containers.ts';
import { startCounter, type Counter } from '../support/counter.ts';

let home: AgentHome;

before(() => {
  home = makeHome();
});
after(() => removeHome(home));
afterEach(endAgents);

interface Tampering {
  readonly attribute: string;
  /** With the pid of the first of the rebuilt tasks. */
  readonly change: (pid: number) => void;
}

function inMounts(pid: number, ...args: string[]): void {
  execFileSync('nsenter', ['-t', String(pid), '-m', ...args]);
}

function within(pid: number, namespace: '-n' | '-i' | '-u', script: string): void {
  execFileSync('nsenter', ['-t', String(pid), namespace, 'sh', '-ec', script]);
}

const tamperings: readonly Tampering[] = [
  { attribute: 'nice', change: (pid) => void execFileSync('renice', ['-n', '7', '-p', String(pid)]) },
  { attribute: 'oom-score-adj', change: (pid) => writeFileSync(`/proc/${pid}/oom_score_adj`, '321') },
  { attribute: 'resource-limits', change: (pid) => void execFileSync('prlimit', ['--pid', String(pid), '--nofile=17:17']) },
  { attribute: 'mount-options', change: (pid) => inMounts(pid, 'mount', '-o', 'remount,bind,exec,nosuid,nodev', '/dev/shm') },
  { attribute: 'file-system-options', change: (pid) => inMounts(pid, 'mount', '-o', 'remount,size=77k', '/dev/shm') },
  { attribute: 'mount', change: (pid) => inMounts(pid, 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt') },
  { attribute: 'mount-propagation', change: (pid) => inMounts(pid, 'mount', '--make-shared', '/dev/shm') },
  { attribute: 'host-name', change: (pid) => within(pid, '-u', 'hostname other') },
  { attribute: 'ipc-settings', change: (pid) => within(pid, '-i', 'echo 4001 > /proc/sys/kernel/shmmni') },
  { attribute: 'network-links', change: (pid) => within(pid, '-n', 'ip link set lo mtu 1400') },
  { attribute: 'network-addresses', change: (pid) => within(pid, '-n', 'ip address add 10.9.8.7/32 dev lo') },
  {
    attribute: 'network-routes',
    change: (pid) => within(pid, '-n', 'ip link set lo up; ip route add 203.0.113.0/24 dev lo'),
  },
  { attribute: 'network-rules', change: (pid) => within(pid, '-n', 'ip rule add from 10.9.8.7 table 77') },
];

/** More of it than there can be twice, where this kernel hands it out to cgroups. */
function realTime(): { readonly cpu?: object } {
  const file = '/sys/fs/cgroup/cpu/cpu.rt_runtime_us';
  if (!existsSync(file)) return {};
  writeFileSync(file, '900000');
  return { cpu: { realtimeRuntime: 600_000, realtimePeriod: 1_000_000 } };
}

function rebuiltPid(): number {
  const directory = join(home.run, 'rehearsals', readdirSync(join(home.run, 'rehearsals'))[0] ?? '');
  const leader = sessionLeader(join(directory, 'session'));
  assert.ok(leader !== undefined);
  const pid = pidFromInside(leader, Number(readFileSync(join(directory, 'gate/pre-resume'), 'utf8')));
  assert.ok(pid !== undefined);
  return pid;
}

/** Stops the container; its rehearsal is made to differ. */
async function stopTampered(agent: TestAgent, id: string, change: (pid: number) => void, allowDifference: string[] = []): Promise<CheckpointResult> {
  const stopped = checkpoint(agent, id, { rehearsal: 'always', allowDifference });
  stopped.catch(() => undefined);
  await atFailpoint(agent, () => change(rebuiltPid()));
  return stopped;
}

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`the rehearsal of a stop with ${runtime} compares`, () => {
    let counter: Counter;

    before(async () => {
      counter = await startCounter(runtime);
    });
    after(() => counter.stop());

    void it('what differs is named, nothing is committed, and the container goes on', async () => {
      const agent = await startAgent(home, { STASIS_TESTING_FAILPOINT: 'checkpoint.rehearse.rebuilt=stop' });
      const saved = await checkpointIds(agent);
      const all = (pid: number): void => tamperings.forEach(({ change }) => change(pid));
      await assert.rejects(stopTampered(agent, counter.id, all), (error: { code?: string; message: string; hint?: string; details?: Record<string, unknown> }) => {
        assert.equal(error.code, 'REHEARSAL_FAILED', error.message);
        assert.match(error.message, /goes on: .* would not be what was saved: .*nice of process 1: was 0, is 7; /);
        const attributes = String(error.details?.['attributes']).split(',');
        assert.deepEqual([...attributes].sort(), tamperings.map(({ attribute }) => attribute).sort());
        assert.ok(error.hint?.includes(`stasis checkpoint --allow-difference ${attributes.join(',')}`), error.hint);
        return true;
      });
      await counter.assertCounting();
      assert.deepEqual(await checkpointIds(agent), saved);
      await assertClean(agent);
    });

    void it('a difference that the caller allows is told; an unknown name is refused', async () => {
      const agent = await startAgent(home, { STASIS_TESTING_FAILPOINT: 'checkpoint.rehearse.rebuilt=stop' });
      await assert.rejects(checkpoint(agent, counter.id, { allowDifference: ['nise'] }), { code: 'USAGE' });
      const stopped = await stopTampered(agent, counter.id, tamperings[0]!.change, ['nice']);
      assert.equal(stopped.rehearsal?.done, true);
      assert.deepEqual(stopped.findings.filter(({ kind }) => kind === 'difference').map(({ message }) => message), ['nice of process 1: was 0, is 7']);
      await counter.adopt(await restore(agent, stopped.checkpoint));
      await counter.assertCounting();
    });

    void it('what a restore puts back is no difference', async () => {
      const directory = `/srv/put-back-${runtime}`;
      const program = `import os, ctypes, time; os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}); ctypes.CDLL(None).prctl(29, 777777); os.nice(3); os.path.exists('/sys/fs/cgroup/cpu/cpu.rt_runtime_us') and os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(5)); print("ready", flush=True)\nwhile True: time.sleep(0.1)`;
      let container: TestContainer | undefined;
      try {
        mkdirSync(join(directory, 'memory'), { recursive: true });
        mkdirSync(join(directory, 'plain'));
        writeFileSync(join(directory, 'file'), '');
        execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m,nr_inodes=64,noexec', 'none', join(directory, 'memory')]);
        container = await startContainer({
          runtime, id: `putting-${runtime}`, args: ['/usr/bin/python3', '-c', program], capabilities: ['CAP_SYS_NICE'],
          edit: (spec) => {
            spec['linux'].resources = { ...spec['linux'].resources, ...realTime() };
            spec['mounts'].push(
              { destination: '/media', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'noexec', 'noatime', 'nodiratime', 'size=1m'] },
              { destination: '/srv/memory', type: 'bind', source: join(directory, 'memory'), options: ['rbind', 'rw', 'nosuid'] },
              { destination: '/srv/plain', type: 'bind', source: join(directory, 'plain'), options: ['bind', 'ro', 'nodev', 'noatime'] },
              { destination: '/srv/file', type: 'bind', source: join(directory, 'file'), options: ['bind', 'ro', 'noexec'] },
            );
          },
        });
        await waitForOutput(container.outputFile, (text) => text.includes('ready'));
        execFileSync('mount', ['-o', 'remount,size=2m', join(directory, 'memory')]);
        const agent = await startAgent(home);
        const stopped = await checkpoint(agent, container.id, { rehearsal: 'always' });
        assert.equal(stopped.rehearsal?.done, true, stopped.rehearsal?.reason);
        await restore(agent, stopped.checkpoint);
      } finally {
        await container?.stop();
        execFileSync('umount', ['-l', join(directory, 'memory')]);
        rmSync(directory, { recursive: true });
      }
      assert.ok(!existsSync(join(home.run, 'rehearsals')) || readdirSync(join(home.run, 'rehearsals')).length === 0);
    });
  });
}
