/**
 * A program for a container in a user namespace, under a seccomp filter, with a network of its own: terminals with something in
 * them, timers, queued signals, native AIO, a deleted file with holes. Prints "ready".
 */
export const walledKinds = String.raw`
import ctypes, fcntl, os, pty, signal, socket, struct, termios, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def call(r, what):
    if r < 0: raise OSError(ctypes.get_errno(), what)
    return r
x86 = os.uname().machine == 'x86_64'
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 33, 99, 1, 2))
os.write(master, b'typed\n'); os.write(slave, b'shown\n')
for notify in 0, 1, 4:
    event = struct.pack('QiiiI', 0, 35, notify, libc.gettid(), 0).ljust(64, b'\0')
    timer = ctypes.c_void_p()
    call(libc.timer_create(1, event, ctypes.byref(timer)), 'timer_create')
    call(libc.timer_settime(timer, 0, struct.pack('qqqq', 500, 0, 500, 0), None), 'timer_settime')
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, 36])
for value in 1, 2:
    info = struct.pack('iiiiiiQ', 36, 0, -1, 0, os.getpid(), os.getuid(), value).ljust(128, b'\0')
    call(libc.syscall(129 if x86 else 138, os.getpid(), 36, info), 'rt_sigqueueinfo')
libc.tgkill(os.getpid(), libc.gettid(), signal.SIGUSR1)
ring = ctypes.c_ulong()
call(libc.syscall(206 if x86 else 0, 8, ctypes.byref(ring)), 'io_setup')
unix = socket.socket(socket.AF_UNIX); os.umask(0o037); unix.bind('/tmp/walled'); unix.listen(1)
sparse = open('/tmp/sparse', 'w+b'); sparse.truncate(1 << 20); sparse.seek(1 << 19); sparse.write(b'x' * 9000); sparse.flush(); os.unlink('/tmp/sparse')
queue = call(libc.msgget(0x77, 0o1600), 'msgget'); libc.msgsnd(queue, struct.pack('q5s', 7, b'hello'), 5, 0)
threading.Thread(target=lambda: time.sleep(1e6), daemon=True).start()
print('ready', flush=True)
while True: time.sleep(0.5)
`;
