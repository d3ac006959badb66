/** Containers in which every attribute of docs/FIDELITY.md has a value that a new one would not have. */
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readMountinfo } from '../../src/host/mountinfo.ts';
import { readCgroups } from '../../src/host/proc.ts';
import type { RuntimeName } from '../../src/runtime/index.ts';
import { startContainer, waitForOutput, type Spec, type TestContainer } from './containers.ts';

/**
 * Pid 1, with two children: "other" has another root, "confined" is under Landlock. On SIGHUP those that can write down what
 * only they themselves can ask for.
 */
const PROGRAM = String.raw`
import ctypes, json, os, resource, signal, socket, struct, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def call(r, what):
    if r < 0: raise OSError(ctypes.get_errno(), what)
    return r
def prctl(*values): return call(libc.prctl(*[ctypes.c_ulong(value) for value in values], *[ctypes.c_ulong(0)] * (5 - len(values))), 'prctl %r' % (values,))
def told(option):
    value = ctypes.c_int()
    call(libc.prctl(option, ctypes.byref(value), 0, 0, 0), 'prctl')
    return value.value
def say(name, **values):
    with open('/said-%s.new' % name, 'w') as f: json.dump(values, f)
    os.rename('/said-%s.new' % name, '/said-%s' % name)
def named(name): open('/proc/self/comm', 'w').write(name)
def pause():
    while True: time.sleep(1000)

stream = socket.socket()
stream.setsockopt(6, 18, 5000)
open('/media/file', 'w').close()
os.setxattr('/media/file', 'user.kept', b'no')
libc.personality(0x0040000)
open('/proc/self/oom_score_adj', 'w').write('700')
open('/proc/self/coredump_filter', 'w').write('0x7f')
if os.fork() == 0:
    named('other')
    os.setsid()
    os.chroot('/usr')
    os.chdir('/share')
    pause()
if os.fork() == 0:
    named('confined')
    os.setpgid(0, 0)
    prctl(1, signal.SIGUSR1)
    prctl(38, 1)
    # Reading files is handled, and allowed nowhere.
    rules = call(libc.syscall(444, ctypes.byref(ctypes.c_uint64(4)), 8, 0), 'landlock_create_ruleset')
    call(libc.syscall(446, rules, 0), 'landlock_restrict_self')
    os.close(rules)
    def report(*_):
        try: open('/etc/passwd').close(); reads = 'allowed'
        except PermissionError: reads = 'denied'
        say('confined', landlock=reads, deathsig=told(2))
    signal.signal(signal.SIGHUP, report)
    pause()

def report(*_):
    say('init', securebits=prctl(27), dumpable=prctl(3), subreaper=told(37), interval=signal.getitimer(signal.ITIMER_VIRTUAL)[1],
        socket=stream.getsockopt(6, 18), attributes=os.listxattr('/media/file'))
signal.signal(signal.SIGHUP, report)
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGWINCH])
os.setgroups([7, 8])
os.umask(0o027)
os.chdir('/media')
resource.setrlimit(resource.RLIMIT_NOFILE, (777, 888))
threading.Thread(target=pause, daemon=True).start()
call(libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p())), 'timer_create')
signal.setitimer(signal.ITIMER_VIRTUAL, 100000, 777)
log = os.open('/log', os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
os.write(log, b'some bytes')
os.lseek(log, 3, 0)
pipe = os.pipe()
pair = socket.socketpair()
events = os.eventfd(5)
semaphore = os.eventfd(5, os.EFD_SEMAPHORE)
while True:
    try: member = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); member.setsockopt(0, 35, socket.inet_aton('239.1.2.3') + socket.inet_aton('127.0.0.1')); break
    except OSError: member.close(); time.sleep(0.05)
named('unusual')
prctl(29, 777777)
prctl(36, 1)
prctl(41, 1)
prctl(4, 0)
prctl(28, 4)
os.nice(5)
os.sched_setaffinity(0, {0})
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
call(libc.syscall(251 if os.uname().machine == 'x86_64' else 30, 1, 0, (2 << 13) | 6), 'ioprio_set')
print('ready', flush=True)
pause()
`;

const SHARED = ['bounding', 'effective', 'permitted'];

function configure(spec: Spec): void {
  const { process, linux, mounts } = spec;
  for (const set of SHARED) process.capabilities[set] = ['CAP_KILL', 'CAP_SYS_CHROOT', 'CAP_SETGID', 'CAP_SETPCAP', 'CAP_NET_BIND_SERVICE'];
  process.capabilities.inheritable = process.capabilities.ambient = ['CAP_KILL'];
  process.noNewPrivileges = false;
  linux.seccomp = { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['mount'], action: 'SCMP_ACT_ERRNO' }] };
  linux.namespaces = [...linux.namespaces.filter(({ type }: { type: string }) => type !== 'cgroup'), { type: 'cgroup' }, { type: 'time' }];
  linux.timeOffsets = { monotonic: { secs: 1000 }, boottime: { secs: 1000 } };
  linux.sysctl = { 'kernel.shmmni': '4000', 'kernel.domainname': 'unusual.example' };
  linux.resources = { ...linux.resources, ...(limitable() ? { memory: { limit: 512 << 20 }, pids: { limit: 100 }, cpu: { shares: 512 } } : {}) };
  mounts.push({ destination: '/media', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'nodev', 'noexec', 'strictatime', 'nodiratime', 'size=1m'] });
}

/** Version 1, or 2 with the controllers. */
export function limitable(): boolean {
  const mounts = readMountinfo('self').filter(({ fsType }) => fsType === 'cgroup' || fsType === 'cgroup2');
  return ['memory', 'pids', 'cpu', 'cpuset'].every((name) => mounts.some(({ fsType, mountPoint, superOptions }) => (
    fsType === 'cgroup' ? superOptions.includes(name) : readdirSync(mountPoint).includes('cgroup.controllers') && execFileSync('cat', [join(mountPoint, 'cgroup.controllers')], { encoding: 'utf8' }).split(/\s/).includes(name))));
}

/** The file of a process' cgroup ("pids.max"); undefined where no hierarchy here has it. */
export function cgroupFile(pid: number, file: string): string | undefined {
  const cgroups = readCgroups(pid);
  for (const { fsType, mountPoint, superOptions } of readMountinfo('self')) {
    if (fsType !== 'cgroup' && fsType !== 'cgroup2') continue;
    const path = cgroups.find(({ hierarchy, controllers }) => (fsType === 'cgroup2' ? hierarchy === 0 : controllers.some((name) => superOptions.includes(name))))?.path;
    const found = path === undefined ? '' : join(mountPoint, path, file);
    if (path !== undefined && existsSync(found)) return found;
  }
  return undefined;
}

export function childOf(pid: number, name: string): number {
  const children = execFileSync('cat', [`/proc/${pid}/task/${pid}/children`], { encoding: 'utf8' }).trim().split(' ').map(Number);
  return children.find((child) => execFileSync('cat', [`/proc/${child}/comm`], { encoding: 'utf8' }).trim() === name) ?? 0;
}

/** A file of a cgroup below the container's that says something about it, on both versions. */
export const INNER_SETTING = ['pids.max', 'cgroup.max.descendants'];

function arrange({ pid, id, at }: TestContainer): void {
  const inside = (namespace: string, script: string): void => void execFileSync('nsenter', ['-t', String(pid), namespace, 'sh', '-ec', script]);
  inside('-n', `ip link set lo up; ip link add br0 type bridge; ip address add 10.9.8.7/24 dev br0; ip link set br0 up; ip address add 192.0.2.9/32 dev lo
    ip route add 203.0.113.0/24 dev br0; ip rule add from 10.9.8.7 table 77; echo 777 > /proc/sys/net/core/somaxconn`);
  inside('-m', 'mount --make-shared /media; mount -o remount,bind,nosymfollow,nosuid,nodev,noexec,strictatime,nodiratime /media');
  if (limitable()) execFileSync(at.binary, ['--root', at.root, 'update', '--pids-limit', '90', '--memory', String(256 << 20), '--cpu-quota', '50000', '--cpu-period', '100000', '--cpu-share', '300', '--cpuset-cpus', '0', id]);
  const weight = cgroupFile(pid, 'blkio.weight') ?? cgroupFile(pid, 'blkio.bfq.weight') ?? cgroupFile(pid, 'io.weight');
  if (weight !== undefined) writeFileSync(weight, '300');
}

/** One process of the container goes to a cgroup below it. */
function moveBelow(pid: number): void {
  const procs = cgroupFile(pid, 'pids.max') === undefined ? cgroupFile(pid, 'cgroup.procs') : cgroupFile(pid, 'pids.max');
  const inner = join(procs ?? '', '../inner');
  mkdirSync(inner);
  writeFileSync(join(inner, 'cgroup.procs'), String(pid));
  const setting = INNER_SETTING.map((file) => join(inner, file)).find((file) => existsSync(file));
  writeFileSync(setting ?? '', '50');
}

export async function startUnusual(runtime: RuntimeName): Promise<TestContainer> {
  const container = await startContainer({ runtime, id: `unusual-${runtime}`, args: ['/usr/bin/python3', '-c', PROGRAM], edit: configure });
  try {
    arrange(container);
    await waitForOutput(container.outputFile, (text) => text.includes('ready'));
    moveBelow(childOf(container.pid, 'confined'));
    return container;
  } catch (error) {
    await container.stop();
    throw error;
  }
}

/** In a user namespace, as a user of it. */
export async function startMapped(runtime: RuntimeName): Promise<TestContainer> {
  mkdirSync('/srv', { recursive: true });
  chmodSync('/srv', 0o711);
  return startContainer({
    runtime, id: `mapped-${runtime}`, args: ['/bin/sleep', '1000'],
    prepare: (directory) => {
      for (const name of ['', 'bundle', 'bundle/rootfs']) chmodSync(join(directory, name), 0o711);
      chownSync(join(directory, 'upper'), 100_000, 100_000);
    },
    edit: ({ process, linux }) => {
      process.user = { uid: 1000, gid: 1000 };
      linux.namespaces.push({ type: 'user' });
      linux.uidMappings = linux.gidMappings = [{ containerID: 0, hostID: 100_000, size: 65_536 }];
    },
  });
}
