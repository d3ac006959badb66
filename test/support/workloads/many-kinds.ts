/** A program with one of each kind of thing that a container without privileges may have open. Prints "ready". */
export const manyKinds = String.raw`
import os, socket, select, signal, time, mmap, threading, ctypes, fcntl, struct
libc = ctypes.CDLL(None, use_errno=True)
keep = []
p = os.pipe(); os.write(p[1], b'in a pipe'); keep.append(p)
os.mkfifo('/tmp/fifo'); f = os.open('/tmp/fifo', os.O_RDWR); os.write(f, b'in a fifo')
e = os.eventfd(3)
t = libc.timerfd_create(1, 0); libc.timerfd_settime(t, 0, struct.pack('qqqq', 5, 0, 5, 0), None)
s = libc.signalfd(-1, ctypes.create_string_buffer(struct.pack('Q', 1 << 9), 128), 0)
ep = select.epoll(); ep.register(p[0], select.EPOLLIN)
i = libc.inotify_init(); libc.inotify_add_watch(i, b'/tmp', 0x100)
m = os.memfd_create('thing', 2); os.write(m, b'x' * 5000); keep.append(mmap.mmap(m, 4096))
a, b = socket.socketpair(); a.send(b'queued'); socket.send_fds(a, [b'with a descriptor'], [e])
u = socket.socket(socket.AF_UNIX); u.bind('/tmp/sock'); u.listen(5)
l = socket.socket(); l.bind(('127.0.0.1', 8080)); l.listen(5); c = socket.create_connection(('127.0.0.1', 8080)); d, _ = l.accept(); c.send(b'on its way')
g = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); g.bind(('127.0.0.1', 9000))
n = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); n.bind((0, 1))
gone = open('/tmp/gone', 'w+b'); gone.write(b'deleted'); gone.flush(); os.unlink('/tmp/gone')
h = libc.shmget(0x1234, 8192, 0o1600); q = libc.msgget(0x66, 0o1600); libc.msgsnd(q, struct.pack('q5s', 7, b'hello'), 5, 0); libc.semget(0x55, 3, 0o1600)
r = open('/root-file', 'w+b'); r.write(b'z' * 10000); r.flush(); keep += [mmap.mmap(r.fileno(), 0), mmap.mmap(-1, 65536)]
k = open('/locked', 'w'); fcntl.flock(k, fcntl.LOCK_EX)
x = os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY); fcntl.ioctl(x, 0x40045431, struct.pack('i', 0)); y = os.open('/dev/pts/0', os.O_RDWR | os.O_NOCTTY)
signal.signal(signal.SIGALRM, lambda *a: None); signal.setitimer(signal.ITIMER_REAL, 1000)
tid = ctypes.c_int(); libc.timer_create(0, None, ctypes.byref(tid))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); os.kill(os.getpid(), signal.SIGUSR1)
threading.Thread(target=lambda: time.sleep(1e6), daemon=True).start()
if os.fork() == 0: os._exit(3)
time.sleep(0.2)
while True:
    print('ready', flush=True); time.sleep(0.1)
`;
