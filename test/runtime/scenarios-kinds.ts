/** More of what CRIU cannot save, or not bring back, each as a small program; the refusals were tried with a real dump. */
import type { ContainerOptions } from '../support/containers.ts';
import type { Scenario } from './scenarios.ts';

const head = `import ctypes, fcntl, os, select, signal, socket, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def call(*numbers):
    result = libc.syscall(*[ctypes.c_long(n) if isinstance(n, int) else n for n in numbers])
    assert result >= 0, os.strerror(ctypes.get_errno())
    return result
def ready():
    print("ready", flush=True)
    while True: time.sleep(1)
def child(work):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        work()
        os.write(write, b"x"); os.close(write)
        while True: time.sleep(1)
    os.close(write); os.read(read, 1); os.close(read)
    return pid
`;
const python = (program: string): readonly string[] => ['/usr/bin/python3', '-c', `${head}${program}\nready()`];
/** Without the seccomp profile, and with what the program needs. */
const admin = (program: string): Scenario['options'] => ({ args: python(program), capabilities: ['CAP_SYS_ADMIN', 'CAP_NET_ADMIN', 'CAP_BPF', 'CAP_DAC_OVERRIDE', 'CAP_MKNOD', 'CAP_FOWNER'], edit: noSeccomp });

const noSeccomp: NonNullable<ContainerOptions['edit']> = (spec) => { delete spec['linux'].seccomp; };

const listening = 'l = socket.socket(socket.AF_UNIX); l.bind("/tmp/waiting"); l.listen(); c = socket.socket(socket.AF_UNIX); c.connect("/tmp/waiting")';
const terminal = (inside: string): string => `import pty
pid, fd = pty.fork()
if pid == 0:
    ${inside}
    while True: time.sleep(1)
time.sleep(0.3)`;
const copied = 'import shutil; shutil.copy("/usr/bin/sleep", "/tmp/program"); p = subprocess.Popen(["/tmp/program", "1000"]); time.sleep(0.2)';

export const kindScenarios: readonly Scenario[] = [
  { name: 'an epoll of a closed descriptor', options: { args: python('e = select.epoll(); a, b = socket.socketpair(); e.register(a.fileno(), select.EPOLLIN)\nchild(lambda: None); a.close()') }, kind: 'epoll', severity: 'fatal', message: /has an epoll, descriptor \d, that watches descriptor \d, which this process has closed/ },
  { name: 'an open message queue', options: { args: python('assert libc.mq_open(b"/orders", os.O_CREAT | os.O_RDWR, 0o600, None) >= 0') }, kind: 'mqueue', severity: 'fatal', message: /pid \d+ \(python3, 1 inside\) has the POSIX message queue \/orders open, descriptor \d/ },
  { name: 'a message queue that nobody has open', options: { args: python('assert libc.mq_close(libc.mq_open(b"/orders", os.O_CREAT | os.O_RDWR, 0o600, None)) == 0') }, kind: 'mqueue', severity: 'fatal', message: /the POSIX message queue \/orders, which nobody has open/ },
  { name: 'a corked UDP socket', options: { args: python('u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.setsockopt(17, 1, 1); u.connect(("127.0.0.1", 9)); u.send(b"half")') }, kind: 'corked', severity: 'fatal', message: /corked UDP socket open \(UDP_CORK\), descriptor \d/ },
  { name: 'data on a UNIX connection that is not accepted', options: { args: python(`${listening}; c.send(b"x")`) }, kind: 'in-flight', severity: 'fatal', message: /\(\/tmp\/waiting\), descriptor \d, were not accepted yet \(1 with data\)/ },
  { name: 'a UNIX connection that was closed before it was accepted', options: { args: python(`${listening}; c.close()`) }, kind: 'in-flight', severity: 'fatal', message: /not accepted yet \(1 closed again\)/ },
  {
    name: 'unread datagrams',
    options: { args: python('u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.1", 4000)); u.sendto(b"x", ("127.0.0.1", 4000))') },
    kind: 'lost', severity: 'warning',
    message: /what the socket of pid \d+ \(python3.*\) at 127\.0\.0\.1:4000, descriptor \d, has received and nobody has read is lost by a restore/,
  },
  { name: 'unread answers of netlink', options: { args: python('u = socket.socket(16, 3, 0); u.bind((0, 1)); u.send(struct.pack("=IHHIIBxxx", 20, 18, 0x301, 1, 0, 0)); time.sleep(0.2)') }, kind: 'in-flight', severity: 'fatal', message: /a netlink socket of pid \d+ .*answers that were not read yet/ },
  { name: 'a socket to the host of a virtual machine', options: admin('u = socket.socket(40, 1); u.bind((0xffffffff, 1234)); u.listen()'), kind: 'socket', severity: 'fatal', message: /a socket of protocol AF_VSOCK open, descriptor \d, which CRIU cannot save/ },
  { name: 'a netlink group above 32', options: { args: python('u = socket.socket(16, 3, 0); u.bind((0, 0)); u.setsockopt(270, 1, 34)') }, kind: 'socket', severity: 'fatal', message: /a netlink group above 32/ },
  { name: 'a pidfd of a thread', options: { args: python('f = call(434, os.getpid(), 0o200)') }, kind: 'pidfd', severity: 'fatal', message: /a single thread open \(PIDFD_THREAD\)/ },
  { name: 'a pipe in packet mode', options: { args: python('r, w = os.pipe2(os.O_DIRECT)') }, kind: 'pipe', severity: 'fatal', message: /a pipe in packet mode/ },
  { name: 'secret memory that is not mapped', options: admin('f = call(447, 0)'), kind: 'mapping', severity: 'fatal', message: /has secret memory open \(memfd_secret\), descriptor \d/ },
  { name: 'a rule set of Landlock', options: admin('f = call(444, struct.pack("QQ", 1, 0), 8, 0)'), kind: 'descriptor', severity: 'fatal', message: /of kind landlock-ruleset/ },
  { name: 'a listener of seccomp', options: admin('code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7fff0000)); libc.prctl(38, 1, 0, 0, 0)\nf = call(317, 1, 8, struct.pack("HxxxxxxQ", 1, ctypes.addressof(code)))'), kind: 'descriptor', severity: 'fatal', message: /of kind seccomp notify/ },
  { name: 'a file system that is being made', options: admin('f = call(430, b"tmpfs", 0)'), kind: 'descriptor', severity: 'fatal', message: /of kind fscontext/ },
  { name: 'a namespace that nobody is in', options: admin('g = os.open("/proc/self/ns/net", os.O_RDONLY); call(272, 0x40000000); f = os.open("/proc/self/ns/net", os.O_RDONLY); call(308, g, 0x40000000)'), kind: 'nested-namespace', severity: 'fatal', message: /holds the namespace net:\[\d+\] open, descriptor \d, in which no process/ },
  { name: 'a time namespace for the children', options: admin('call(272, 0x80)'), kind: 'nested-namespace', severity: 'fatal', message: /has made a time namespace for its children/ },
  { name: 'a nested user namespace', options: admin('child(lambda: call(272, 0x10000000))'), kind: 'nested-namespace', severity: 'fatal', message: /a user namespace other than/ },
  { name: 'a file below another mount', options: admin('os.makedirs("/m"); f = open("/m/file", "w"); assert libc.mount(b"t", b"/m", b"tmpfs", 0, None) == 0'), kind: 'overmount', severity: 'fatal', message: /has \/m\/file open, descriptor \d, which is hidden below another mount/ },
  { name: 'a working directory below another mount', options: admin('os.makedirs("/m/a"); os.chdir("/m/a"); assert libc.mount(b"t", b"/m", b"tmpfs", 0, None) == 0'), kind: 'overmount', severity: 'fatal', message: /works in \/m\/a, which is hidden/ },
  { name: 'an overlay made inside', options: admin('for d in ("/dev/shm/u", "/dev/shm/w", "/m"): os.makedirs(d)\nassert libc.mount(b"overlay", b"/m", b"overlay", 0, b"lowerdir=/usr/share,upperdir=/dev/shm/u,workdir=/dev/shm/w") == 0'), kind: 'mount', severity: 'fatal', message: /an overlay was mounted at \/m from inside/ },
  { name: 'a program in a memory file', options: { args: python('f = os.memfd_create("program"); os.write(f, open("/usr/bin/sleep", "rb").read())\nif os.fork() == 0: os.execve(f, ["sleep", "1000"], {})\nos.close(f); time.sleep(0.3)') }, kind: 'program', severity: 'fatal', message: /was started from a memory file \(program\)/ },
  { name: 'a program that may not be executed any more', options: { args: python(`${copied}; os.chmod("/tmp/program", 0o600)`) }, kind: 'program', severity: 'fatal', message: /the program of pid \d+ \(program, \d+ inside\), \/tmp\/program, is not executable any more/ },
  { name: 'shared memory that is mapped in part', options: { args: python('libc.shmat.restype = ctypes.c_void_p; i = libc.shmget(0, 4096 * 8, 0o1600); p = libc.shmat(i, None, 0); libc.munmap(ctypes.c_void_p(p + 4096), 4096)') }, kind: 'shared-memory', severity: 'fatal', message: /has the SysV shared memory SYSV00000000 mapped in part only/ },
  { name: 'a process whose first thread has ended', options: { args: python(`def first():
    threading.Thread(target=ready).start()
    libc.syscall(60, 0)
if os.fork() == 0: first()
while True: time.sleep(1)`) }, kind: 'dead-leader', severity: 'fatal', message: /the first thread of pid \d+ \(python3, \d+ inside\) has ended while 1 other goes on/ },
  { name: 'a SIGTRAP that waits', options: { args: python('def trap():\n    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTRAP]); os.kill(os.getpid(), signal.SIGTRAP)\nchild(trap)') }, kind: 'signal', severity: 'fatal', message: /has a SIGTRAP waiting/ },
  { name: 'a process in a session that its parent has left', options: { args: python(`def first():
    os.setsid()
    if os.fork() == 0:
        if os.fork() == 0: ready()
        os.setsid(); ready()
    os._exit(0)
pid = os.fork()
if pid == 0: first()
os.waitpid(pid, 0); time.sleep(0.3)`) }, kind: 'session', severity: 'fatal', message: /pid \d+ \(python3, \d+ inside\) belongs to the session of pid \d+, into which it cannot be born again/ },
  { name: 'a terminal that is used by /dev/tty from below', options: { args: python(terminal('p = os.fork()\n    if p == 0: t = os.open("/dev/tty", os.O_RDWR)')) }, kind: 'tty', severity: 'fatal', message: /uses the terminal \/dev\/pts\/\d+ by \/dev\/tty, descriptor \d/ },
  { name: 'a terminal that its session leader uses by /dev/tty', options: { args: python(terminal('t = os.open("/dev/tty", os.O_RDWR)')) }, kind: 'tty', severity: 'fatal', message: /uses the terminal \/dev\/pts\/\d+ by \/dev\/tty, descriptor \d/ },
  ...[['a table of descriptors', 0x400], ['a working directory', 0x200], ['a net namespace', 0x40000000]].map(([own, flag]): Scenario => ({
    name: `a thread with ${own} of its own`, options: admin(`threading.Thread(target=lambda: (call(272, ${flag}), time.sleep(1000)), daemon=True).start(); time.sleep(0.2)`),
    kind: 'thread', severity: 'fatal', message: new RegExp(`thread \\d+ of pid \\d+ \\(python3, 1 inside\\) has ${own} of its own`),
  })),
  { name: 'two processes of one memory', options: { args: python('stack = ctypes.create_string_buffer(65536); libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]\nassert libc.clone(ctypes.cast(libc.pause, ctypes.c_void_p), ctypes.addressof(stack) + 65504, 0x100 | 17, None) > 0') }, kind: 'thread', severity: 'fatal', message: /pid \d+ \(python3, \d+ inside\) and its parent, pid \d+ \(python3, 1 inside\), have one memory/ },
  { name: 'two processes of one working directory', options: { args: python('if call(56, 0x200 | 17, 0, 0, 0, 0) == 0: signal.pause()') }, kind: 'thread', severity: 'fatal', message: /have one working directory \(clone with CLONE_FS\)/ },
  { name: 'a child whose end is told by another signal', options: { args: python('if call(56, signal.SIGUSR1, 0, 0, 0, 0) == 0: signal.pause()') }, kind: 'lost', severity: 'warning', message: /the signal by which the end of pid \d+ \(python3, \d+ inside\) is told to its parent/ },
  { name: 'a multicast membership', options: { args: python('u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("", 5000)); u.setsockopt(0, 35, socket.inet_aton("239.1.2.3") + socket.inet_aton("127.0.0.1"))') }, kind: 'lost', severity: 'warning', message: /in the multicast group 239\.1\.2\.3 \(lo\) is lost by a restore/ },
  { name: 'attributes of a file in memory, where tar does not keep them', features: { tar_attributes: false }, options: { args: python('open("/dev/shm/f", "w").close(); os.setxattr("/dev/shm/f", "user.x", b"1")') }, kind: 'lost', severity: 'warning', message: /as of \/dev\/shm\/f\) is lost by a restore/ },
  { name: 'a lease that is being broken', options: { args: python('signal.signal(signal.SIGIO, signal.SIG_IGN); f = os.open("/leased", os.O_CREAT | os.O_WRONLY); fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_WRLCK)\ntry: os.open("/leased", os.O_WRONLY | os.O_NONBLOCK)\nexcept BlockingIOError: pass') }, kind: 'file-lock', severity: 'warning', message: /pid \d+ \(python3, 1 inside\) has not given up a lease yet that somebody is breaking, descriptor \d/ },
  { name: 'an event counter that is a semaphore', options: { args: python('e = os.eventfd(3, os.EFD_SEMAPHORE)') }, kind: 'lost', severity: 'warning', message: /an event counter of pid \d+ \(python3, 1 inside\) is a semaphore \(EFD_SEMAPHORE, descriptor \d\) is lost by a restore/ },
  { name: 'options of a socket', options: { args: python('l = socket.socket(); l.bind(("127.0.0.1", 4000)); l.setsockopt(6, 18, 5000); l.setsockopt(6, 9, 5); l.listen()') }, kind: 'lost', severity: 'warning', message: /TCP_DEFER_ACCEPT, TCP_USER_TIMEOUT of the socket of pid \d+ \(python3, 1 inside\), descriptor \d, is lost/ },
  { name: 'a container that has unmounted /proc', options: admin('assert libc.umount2(b"/proc", 2) == 0'), kind: 'mount', severity: 'fatal', message: /the container has no \/proc, and pid \d+ \(python3, 1 inside\) holds a pipe/ },
  { name: 'a next hop object', options: admin('subprocess.check_call("ip link add b0 type bridge && ip addr add 10.9.8.7/24 dev b0 && ip link set b0 up && ip nexthop add id 5 via 10.9.8.9 dev b0", shell=True)'), kind: 'network', severity: 'fatal', message: /own network has 1 next hop object \(ip nexthop\)/ },
  { name: 'a network interface with another end', options: admin('subprocess.check_call(["ip", "link", "add", "v0", "type", "veth", "peer", "v1"])'), kind: 'lost', severity: 'warning', message: /the network interface v[01] \(veth\), v[01] \(veth\) in the container's own network with its addresses and routes is lost/ },
  { name: 'a limit of processes that leaves no room for a restore', options: { args: python('ps = [subprocess.Popen(["/usr/bin/sleep", "1000"]) for _ in range(5)]'), edit: (spec) => { spec['linux'].cgroupsPath = '/limited.slice'; spec['linux'].resources = { pids: { limit: 9 }, devices: [{ allow: false, access: 'rwm' }] }; } }, kind: 'limit', severity: 'fatal', message: /has 6 processes and threads, and its limit is 9 \(pids\.max\)/ },
];
