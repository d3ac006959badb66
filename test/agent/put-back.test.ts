/** What CRIU or a runtime loses and Stasis brings back before a process runs. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, readlinkSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { parseContainerId } from '../../src/core/ids.ts';
import { mount } from '../../src/host/libc.ts';
import { readMountinfo } from '../../src/host/mountinfo.ts';
import { readCgroups } from '../../src/host/proc.ts';
import { ioPriority } from '../../src/host/task-calls.ts';
import { remove } from '../../src/runtime/index.ts';
import { assertClean, checkpoint, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startContainer, waitForOutput, type Spec, type TestContainer } from '../support/containers.ts';

let home: AgentHome;
let agent: TestAgent;
let containers: TestContainer[] = [];

before(async () => {
  home = makeHome();
  agent = await startAgent(home);
});

after(async () => {
  await agent?.stop();
  await removeHome(home);
});

afterEach(async () => {
  for (const container of containers) await container.stop();
  containers = [];
});

async function start(options: Parameters<typeof startContainer>[0]): Promise<TestContainer> {
  const container = await startContainer(options);
  containers.push(container);
  return container;
}

/** Version 1, or 2 with the controllers. */
function limitable(): boolean {
  const mounts = readMountinfo('self').filter(({ fsType }) => fsType === 'cgroup' || fsType === 'cgroup2');
  return ['memory', 'pids'].every((name) => mounts.some(({ fsType, mountPoint, superOptions }) => (
    fsType === 'cgroup' ? superOptions.includes(name) : readFileSync(join(mountPoint, 'cgroup.controllers'), 'utf8').trim().split(' ').includes(name))));
}

const LOOP = ['/bin/sh', '-c', 'while :; do sleep 0.2; done'];

/** Stops the container and brings it back, twice, and says what `look` sees each time. */
async function cycles<T>(container: TestContainer, look: (pid: number) => T): Promise<{ before: T; after: T[] }> {
  const seen = { before: look(container.pid), after: [] as T[] };
  for (let round = 0; round < 2; round++) {
    const { checkpoint: id } = await checkpoint(agent, container.id);
    seen.after.push(look((await restore(agent, id)).pid));
  }
  return seen;
}

const withCgroupNamespace = (spec: Spec): void => {
  spec['linux'].namespaces = [...spec['linux'].namespaces.filter(({ type }: { type: string }) => type !== 'cgroup'), { type: 'cgroup' }];
  for (const mount of spec['mounts']) if (mount.type === 'cgroup') mount.options = mount.options.filter((option: string) => option !== 'ro');
};

function cgroupView(pid: number): { own: boolean; mounts: string[]; self: string[] } {
  const mounts = readMountinfo(pid).filter(({ fsType }) => fsType.startsWith('cgroup'));
  return {
    own: readlinkSync(`/proc/${pid}/ns/cgroup`) !== readlinkSync('/proc/self/ns/cgroup'),
    mounts: mounts.map(({ mountPoint, root, options, fsType }) => [fsType, mountPoint, root, ...options.filter((option) => option !== 'nosymfollow')].join(' ')).sort(),
    self: mounts.flatMap(({ mountPoint }) => readdirSync(join(`/proc/${pid}/root`, mountPoint), { withFileTypes: true }).filter((entry) => entry.isDirectory()).map(({ name }) => name)),
  };
}

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`a container of ${runtime}`, () => {
    void it('that had none, as the runtimes make it on version 1, sees its own cgroups and no others', async () => {
      const container = await start({ runtime, id: `unwalled-${runtime}`, args: LOOP, edit: (spec) => {
        spec['linux'].namespaces = spec['linux'].namespaces.filter(({ type }: { type: string }) => type !== 'cgroup');
      } });
      const { before: was, after: is } = await cycles(container, cgroupView);
      assert.deepEqual(is, [was, was]);
    });

    void it('that had a cgroup namespace has its own again, rooted at its cgroup, and sees no other cgroup', async () => {
      const container = await start({ runtime, id: `walls-${runtime}`, args: LOOP, edit: withCgroupNamespace });
      const { before: was, after: is } = await cycles(container, cgroupView);
      assert.equal(was.own, true);
      assert.ok(was.mounts.length > 0 && was.mounts.every((mount) => mount.includes(` /walls-${runtime} `)), was.mounts.join('\n'));
      assert.deepEqual(is, [was, was]);
      await assertClean(agent);
    });

    void it('that is restored under another name sees the cgroup of that name', async () => {
      const container = await start({ runtime, id: `old.walls-${runtime}`, args: LOOP, edit: withCgroupNamespace });
      const was = cgroupView(container.pid);
      const { checkpoint: id } = await checkpoint(agent, container.id);
      const restored = await restore(agent, id, { container: `new.walls-${runtime}` });
      const is = cgroupView(restored.pid);
      assert.deepEqual(is, { ...was, mounts: was.mounts.map((mount) => mount.replaceAll(`/old.walls-${runtime} `, `/new.walls-${runtime} `)) });
      assert.deepEqual(readFileSync(`/proc/${restored.pid}/cgroup`, 'utf8').split('\n').filter((line) => line.includes('old.walls')), []);
      await remove(container.at, parseContainerId(`new.walls-${runtime}`), { force: true, signal: undefined });
    });

    void it('in a user namespace comes back with its mappings, volumes and output', async () => {
      const mappings = [{ containerID: 0, hostID: 100000, size: 65536 }];
      mkdirSync('/srv', { recursive: true });
      chmodSync('/srv', 0o711);
      const container = await start({
        runtime, id: `mapped-${runtime}`, args: ['/bin/sh', '-c', 'n=0; while :; do n=$((n+1)); echo $n > /made; echo $n > /dev/shm/n; echo line $n; sleep 0.1; done'],
        prepare: (directory) => {
          for (const name of ['', 'bundle', 'bundle/rootfs']) chmodSync(join(directory, name), 0o711);
          mkdirSync(join(directory, 'shm'), { mode: 0o700 });
          mount('shm', join(directory, 'shm'), 'tmpfs', 0, 'mode=1777');
          chownSync(join(directory, 'upper'), 100000, 100000);
        },
        edit: (spec) => {
          withCgroupNamespace(spec);
          const shm = spec['mounts'].find(({ destination }: { destination: string }) => destination === '/dev/shm');
          Object.assign(shm, { type: 'bind', source: `/srv/mapped-${runtime}/shm`, options: ['rbind', 'rw'] });
          spec['linux'].namespaces.push({ type: 'user' });
          spec['linux'].uidMappings = spec['linux'].gidMappings = mappings;
        },
      });
      const made = (pid: number): string => `/proc/${pid}/root/made`;
      await waitForOutput(made(container.pid), (text) => Number(text) > 2);
      const { before: was, after: is } = await cycles(container, (pid) => {
        const { uid, gid } = statSync(made(pid));
        return { uid, gid, uids: readFileSync(`/proc/${pid}/uid_map`, 'utf8'), gids: readFileSync(`/proc/${pid}/gid_map`, 'utf8'), cgroups: cgroupView(pid) };
      });
      assert.deepEqual([was.uid, was.gid], [100000, 100000]);
      assert.deepEqual(is, [was, was]);
      const { pid } = await container.inspect();
      const before = Number(readFileSync(made(pid), 'utf8'));
      await waitForOutput(made(pid), (text) => Number(text) > before);
      await waitForOutput(join(home.state, 'output', `mapped-${runtime}.stdout.log`), (text) => text.includes(`line ${before + 1}\n`));
      // Its tasks get no userfaultfd: neither its rehearsal nor its restore can be lazy.
      const { checkpoint: id, rehearsal } = await checkpoint(agent, container.id, { rehearsal: 'always' });
      assert.equal(rehearsal?.done, true, rehearsal?.reason);
      const { lazyReason } = await restore(agent, id, { lazy: runtime === 'runc' ? 'always' : 'auto' });
      if (runtime === 'runc' && readFileSync('/proc/sys/vm/unprivileged_userfaultfd', 'utf8').trim() === '0') assert.match(lazyReason ?? '', /no userfaultfd .*user namespace/);
    });

    void it('has the limits that were changed while it ran, also where no process more would fit', { skip: limitable() ? false : 'no memory and pids controllers on this machine' }, async () => {
      const container = await start({
        runtime, id: `limits-${runtime}`, args: ['/bin/sh', '-c', 'sleep 1000 & sleep 1000 & while :; do echo alive; read -r _ < /pause; done'],
        prepare: (directory) => execFileSync('mkfifo', [join(directory, 'upper/pause')]),
        edit: (spec) => { spec['linux'].resources = { ...spec['linux'].resources, memory: { limit: 512 << 20 }, pids: { limit: 100 }, cpu: { shares: 512 } }; },
      });
      const look = (pid: number): Record<string, string> => Object.fromEntries(readCgroups(pid).flatMap(({ controllers, path, hierarchy }) => {
        const mounted = readMountinfo('self').find((mount) => (hierarchy === 0 ? mount.fsType === 'cgroup2' : mount.fsType === 'cgroup' && mount.superOptions.includes(controllers[0]!)));
        const directory = mounted === undefined ? '' : join(mounted.mountPoint, path);
        const files = ['memory.limit_in_bytes', 'memory.max', 'pids.max', 'cpu.cfs_quota_us', 'cpu.cfs_period_us', 'cpu.shares', 'cpu.max', 'cpu.weight', 'cpuset.cpus'];
        return files.filter((file) => mounted !== undefined && path !== '/' && existsSync(join(directory, file))).map((file) => [file, readFileSync(join(directory, file), 'utf8').trim()]);
      }));
      await waitForOutput(container.outputFile, (text) => text.includes('alive'));
      execFileSync(runtime, ['update', '--pids-limit', '3', '--memory', String(1 << 30), '--cpu-quota', '50000', '--cpu-period', '100000', '--cpu-share', '300', container.id]);
      const { before: was, after: is } = await cycles(container, look);
      if (was['pids.max'] !== undefined) assert.equal(was['pids.max'], '3');
      assert.deepEqual(is, [was, was]);
    });

    void it('has its affinity, I/O priority and timer slack, thread by thread', async () => {
      const program = [
        'import ctypes, os, threading, time',
        'libc = ctypes.CDLL(None)',
        'def other():',
        '    os.sched_setaffinity(0, {0}); libc.syscall(251 if os.uname().machine == "x86_64" else 30, 1, 0, 3 << 13)',
        '    time.sleep(1000)',
        'threading.Thread(target=other, daemon=True).start()',
        'os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}); libc.prctl(29, 777777); libc.syscall(251 if os.uname().machine == "x86_64" else 30, 1, 0, (2 << 13) | 6)',
        'print("ready", flush=True)',
        'while True: time.sleep(0.1)',
      ].join('\n');
      const container = await start({ runtime, id: `bound-${runtime}`, args: ['/usr/bin/python3', '-c', program], capabilities: ['CAP_SYS_NICE'] });
      await waitForOutput(container.outputFile, (text) => text.includes('ready'));
      const { before: was, after: is } = await cycles(container, (pid) => readdirSync(`/proc/${pid}/task`).sort((a, b) => Number(b === String(pid)) - Number(a === String(pid))).map((tid) => ({
        affinity: /Cpus_allowed_list:\s*(\S+)/.exec(readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8'))?.[1],
        ioPriority: ioPriority(Number(tid)), slack: readFileSync(`/proc/${tid}/timerslack_ns`, 'utf8').trim(),
      })));
      assert.equal(was.length, 2);
      assert.deepEqual(was.map(({ ioPriority: value }) => value), [(2 << 13) | 6, 3 << 13]);
      assert.equal(was[0]!.slack, '777777');
      assert.deepEqual(is, [was, was]);
    });

    void it('has the sysctls, addresses, routes, rules and filters of its own network namespace, and listens there', async () => {
      const program = [
        'import socket, time',
        'def listen(address, family):',
        '    while True:',
        '        try: return socket.create_server((address, 4000), family=family)',
        '        except OSError: time.sleep(0.1)',
        'print("wait", flush=True)',
        'four = listen("10.9.8.7", socket.AF_INET)',
        'six = listen("fd00::5", socket.AF_INET6)',
        'print("ready", flush=True)',
        'while True: time.sleep(0.1)',
      ].join('\n');
      const container = await start({
        runtime, id: `net-${runtime}`, args: ['/usr/bin/python3', '-c', program],
        edit: (spec) => { spec['linux'].sysctl = { 'net.ipv4.ip_unprivileged_port_start': '0', 'net.ipv4.ip_local_port_range': '20000 30000' }; },
      });
      const inside = (pid: number, ...command: string[]): string => execFileSync('nsenter', ['-t', String(pid), '-n', ...command], { encoding: 'utf8' });
      await waitForOutput(container.outputFile, (text) => text.includes('wait'));
      inside(container.pid, 'sh', '-ec', `ip link set lo up; ip link add br0 type bridge; ip address add 10.9.8.7/24 dev br0; ip link set br0 up; ip -6 address add fd00::5/128 dev lo
        ip address add 192.0.2.9/32 dev lo; ip route add 203.0.113.0/24 dev br0; ip route add 198.51.100.0/24 dev br0 table 77; ip rule add from 10.9.8.7 table 77
        nft add table inet mine; nft 'add chain inet mine in { type filter hook input priority 0; policy accept; }'; nft add rule inet mine in tcp dport 99 drop
        echo 777 > /proc/sys/net/core/somaxconn; echo 99 > /proc/sys/net/ipv4/tcp_keepalive_time; echo 0 40000 > /proc/sys/net/ipv4/ping_group_range
        echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv4/conf/all/accept_redirects
        cd /proc/sys/net/ipv6/conf; echo 1 > all/use_tempaddr; echo 0 > default/use_tempaddr; echo fd00::9 > br0/stable_secret`);
      await waitForOutput(container.outputFile, (text) => text.includes('ready'));
      const { before: was, after: is } = await cycles(container, (pid) => [
        'ip -o address show dev lo', 'ip -o -4 address show dev br0', 'ip rule', 'ip -4 route show table 77', 'ip -4 route show', 'nft list ruleset', 'ip -json link show br0 | grep -o \'"address":"[^"]*\'', 'ss -Hltn',
        'cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ip_local_port_range /proc/sys/net/ipv4/tcp_keepalive_time',
        'cd /proc/sys/net; cat ipv4/ping_group_range; grep . ipv4/conf/*/accept_redirects; grep . ipv6/conf/*/addr_gen_mode ipv6/conf/*/use_tempaddr ipv6/conf/br0/stable_secret',
      ].map((command) => inside(pid, 'sh', '-c', command).replaceAll(/ linkdown|(?<= )\d+: /g, '')));
      assert.match(was.join('\n'), /dport 99 drop/);
      assert.deepEqual(is, [was, was]);
    });

    void it('comes back although an interface had its other end outside, with all other settings', async () => {
      const container = await start({ runtime, id: `end-${runtime}`, args: LOOP });
      execFileSync('sh', ['-ec', `ip link add ${runtime}-out type veth peer name ${runtime}-in; ip link set ${runtime}-in netns ${container.pid} name eth0
        nsenter -t ${container.pid} -n sh -ec 'cd /proc/sys/net; echo 5 > ipv4/conf/eth0/arp_ignore; echo 777 > core/somaxconn'`]);
      const { checkpoint: id } = await checkpoint(agent, container.id);
      const { pid } = await restore(agent, id);
      assert.equal(execFileSync('nsenter', ['-t', String(pid), '-n', 'sh', '-c', 'cat /proc/sys/net/core/somaxconn'], { encoding: 'utf8' }), '777\n');
    });
  });
}
