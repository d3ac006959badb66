/** Each thing that is put back, made impossible: it is named, and the others are put back nevertheless. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { changeMounts } from '../../src/host/foreign-mounts.ts';
import { readMountinfo } from '../../src/host/mountinfo.ts';
import { ioPriority } from '../../src/host/task-calls.ts';
import { putBackLimits, readLimits } from '../../src/runtime/put-back/limits.ts';
import { layOutNetwork, type SavedNetwork } from '../../src/runtime/put-back/network.ts';
import { putBackTasks, type TaskState } from '../../src/runtime/put-back/tasks.ts';

const script = '/opt/stasis/deploy/libexec/stasis-network';
let directory: string;
let sleeper: ChildProcess;
let pid: number;

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'put-back-'));
  // A mount namespace of its own for the mounts.
  sleeper = spawn('unshare', ['--mount', 'sleep', '1000'], { stdio: 'ignore' });
  await once(sleeper, 'spawn');
  pid = sleeper.pid ?? 0;
  while (readFileSync(`/proc/${pid}/comm`, 'utf8') !== 'sleep\n') await new Promise(setImmediate);
});

after(async () => {
  const ended = once(sleeper, 'exit');
  sleeper.kill('SIGKILL');
  await ended;
  rmSync(directory, { recursive: true });
});

void describe('of a task', () => {
  const rows: readonly (readonly [string, Omit<TaskState, 'tid'>])[] = [
    ['affinity', { affinity: '0' }], ['I/O priority', { ioPriority: 7 << 13 }], ['timer slack', { timerSlack: -1 }], ['core dump filter', { coredumpFilter: 'zz' }],
  ];
  for (const [name, state] of rows) {
    void it(`${name} that the kernel refuses is named, and the rest is set`, () => {
      const good = { affinity: '1', ioPriority: (2 << 13) | 6, timerSlack: 777_777, coredumpFilter: '0000007f' };
      const failed = putBackTasks([{ tid: pid, ...good, ...state }], [pid]);
      assert.deepEqual(failed.map((line) => line.replace(/:.*/, '')), [`${name} of task ${pid}`]);
      if (name !== 'affinity') assert.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /^Cpus_allowed:\s*0*1$/m);
      if (name !== 'I/O priority') assert.equal(ioPriority(pid), good.ioPriority);
      if (name !== 'timer slack') assert.equal(readFileSync(`/proc/${pid}/timerslack_ns`, 'utf8').trim(), '777777');
      if (name !== 'core dump filter') assert.equal(readFileSync(`/proc/${pid}/coredump_filter`, 'utf8').trim(), good.coredumpFilter);
      assert.deepEqual(putBackTasks([{ tid: pid, affinity: '3', ioPriority: 3 << 13, timerSlack: 60_000 }], [pid]), []);
    });
  }
});

/** Controllers with limits that this machine has: a cgroup for each hierarchy. */
function limitable(): string[] {
  const v1 = ['cpu', 'pids', 'memory', 'blkio', 'cpuset'].map((name) => `/sys/fs/cgroup/${name}`).filter((path) => existsSync(path));
  return v1.map((path) => join(path, `put-back-${process.pid}`));
}

void describe('of a cgroup', { skip: limitable().length === 0 ? 'no controllers of version 1 on this machine' : false }, () => {
  before(() => limitable().forEach((path) => mkdirSync(path)));
  after(() => limitable().forEach((path) => rmdirSync(path)));

  void it('each limit that the kernel refuses is named, with what it is and was', () => {
    const now = readLimits(limitable());
    const names = Object.keys(now);
    assert.ok(names.length > 5, names.join());
    // Nothing that means a number, a list or a device.
    const wanted = Object.fromEntries(names.map((name) => [name, 'x']));
    const failed = [false, true].flatMap((ended) => putBackLimits(wanted, limitable(), { ended }));
    assert.deepEqual(failed.map((line) => line.replace(/^(\S+) is .*, was x: .+$/s, '$1')).sort(), names.sort());
    assert.deepEqual(readLimits(limitable()), now);
  });

  void it('a value that the kernel makes another of is no success', () => {
    const [shares] = limitable();
    assert.match(putBackLimits({ 'cpu.shares': '1' }, [shares ?? ''], { ended: false }).join(), /cpu\.shares is \d+, was 1: the kernel makes it 2/);
  });
});

void describe('of mounts', () => {
  void it('one that is not there, that another hides, or that takes no option is named', () => {
    const [proc] = readMountinfo(pid).filter(({ mountPoint }) => mountPoint === '/proc');
    assert.ok(proc !== undefined);
    const failed = changeMounts(pid, [
      { mountPoint: '/nowhere', id: 1, add: ['ro'] }, { mountPoint: '/proc', id: proc.id + 100_000, add: ['ro'] },
      { mountPoint: '/proc', id: proc.id, add: ['noatime', 'strictatime'] }, { mountPoint: '/proc', id: proc.id, add: ['nosuid'] },
    ]);
    assert.deepEqual(failed.map((line) => line.replace(/:.*/, '')), ['/nowhere', '/proc', '/proc'], failed.join('\n'));
    assert.match(failed.join(), /another mount hides it/);
  });
});

void describe('of a network namespace', () => {
  const empty: SavedNetwork = { parts: {}, links: [], up: [], sysctls: {} };
  const part = (name: string, text: string): SavedNetwork => ({ ...empty, parts: { [name]: Buffer.from(text).toString('base64') } });
  const rows: readonly (readonly [string, SavedNetwork, RegExp])[] = [
    ['settings', { ...empty, sysctls: { 'net/core/somaxconn': 'many' } }, /somaxconn/],
    ['a setting that this kernel lacks', { ...empty, sysctls: { 'net/ipv4/no_such': '1' } }, /no_such/],
    ['links', { ...empty, links: ['link add name x0 type nosuch'] }, /link|type|supported/i],
    ['links that go up', { ...empty, up: ['link set nosuch up'] }, /nosuch/],
    ['addresses', part('addresses', 'no dump'), /./],
    ['routes', part('routes4', 'route replace 203.0.113.0/24 dev nosuch'), /nosuch/],
    ['routes of version 6', part('routes6', 'route replace fd00::/64 dev nosuch'), /nosuch/],
    ['rules', part('rules4', 'no dump'), /./],
    ['rules of version 6', part('rules6', 'no dump'), /./],
    ['filters', part('nft', 'table nosuch {'), /nosuch|syntax/],
  ];
  for (const [name, network, why] of rows) {
    void it(`${name} that cannot be made fail with the cause`, () => {
      const there = mkdtempSync(join(directory, 'network-'));
      layOutNetwork(there, network);
      const { status, stdout } = spawnSync('unshare', ['--net', script, 'restore', there], { encoding: 'utf8' });
      assert.equal(status, 1, stdout);
      assert.match(stdout, /^Error \(stasis-network\): network of the namespace: /);
      assert.match(stdout.replace(/^.*namespace: /, ''), why);
    });
  }
  void it('nothing to bring back is no failure', () => {
    layOutNetwork(directory, empty);
    execFileSync('unshare', ['--net', script, 'restore', directory]);
  });
});
