/** What CRIU's error lines mean, for checkpoints. The texts matched are those of CRIU 3.15 to 4.2. */

import type { Cause } from './cause.ts';
import { descriptorCauses } from './descriptor-causes.ts';
import { socketCauses } from './socket-causes.ts';
import { taskCauses } from './task-causes.ts';

const general: readonly Cause[] = [
  // Sockets.
  { match: /External socket is used|Consider using --ext-unix-sk/, kind: 'external-unix-socket', message: 'a UNIX socket is connected with a process outside the container', hint: 'close the connection before a checkpoint; for datagram sockets that can be found again by path, use --ext-unix-sk' },
  { match: /Can't dump half of stream unix connection(?:\.?,? name: (.*?))?\.?$/, kind: 'external-unix-socket', message: 'a UNIX stream socket is connected with a process outside the container ($1)', hint: 'let the program close that connection before a checkpoint: only both ends together can be saved' },
  { match: /unix: Unix socket .* without peer|Unix socket \S+ has no peer/, kind: 'external-unix-socket', message: 'a UNIX socket has lost its other end', hint: 'try again; if it stays, let the program close the socket' },
  {
    match: /In-flight connection \(l\) for/, kind: 'in-flight',
    message: 'a listening socket has connections that were not accepted yet',
    hint: 'try again in a moment; --tcp-skip-in-flight leaves them out',
  },
  { match: /Connected TCP socket, consider using --tcp-established/, kind: 'tcp-established', message: 'a TCP connection is open', hint: 'use --tcp-established to save connections, or close them first' },
  { match: /Unsupported proto 262/, kind: 'socket', message: 'a process uses a multipath TCP socket', hint: 'switch multipath TCP off in the program (Go: GODEBUG=multipathtcp=0)' },
  { match: /Unsupported (?:proto|socket type|socket family|family) (\d+)|BUG! Unknown socket collected \(family (\d+)\)/, kind: 'socket', message: 'a process uses a kind of socket that CRIU does not know ($1$2)', hint: 'let the program close it before a checkpoint' },
  { match: /sockets: Can't get \d+:\d+ opt: Operation not supported/, kind: 'criu', message: 'this criu cannot read the options of internet sockets on this kernel', hint: 'install criu 4.2 or newer' },
  { match: /The socket has pending connections|Unable to dump an unix socket .* listen/, kind: 'in-flight', message: 'a UNIX socket has connections that were not accepted yet', hint: 'try again in a moment' },
  // Descriptors and devices.
  { match: /send_fds failed \(-22\)|Can't retrieve FDs from socket/, kind: 'io_uring', message: 'a process holds a descriptor that the kernel does not hand over, most likely of an io_uring', hint: 'deny io_uring_setup by a seccomp profile, or switch it off in the program' },
  { match: /Unknown shit \d+ \(anon_inode:\[io_uring\]\)|anon_inode:\[io_uring\]/, kind: 'io_uring', message: 'a process uses io_uring', hint: 'deny io_uring_setup by a seccomp profile, as the default ones of Docker and podman do, or switch it off in the program' },
  { match: /Can't dump file (\d+) of that type \[\d+\] \(([^)]*)/, kind: 'descriptor', message: 'descriptor $1 ($2) is of a kind that CRIU cannot save', hint: 'a device, GPU, RDMA, profiler or FUSE descriptor: let the program close it before a checkpoint' },
  { match: /Unknown shit \d+ \((.*)\)/, kind: 'descriptor', message: 'a descriptor ($1) is of a kind that CRIU cannot save', hint: 'let the program close it before a checkpoint' },
  { match: /handle_device_vma plugin failed|Can't handle non-regular mapping on (\d+)'s map (\S+)/, kind: 'device', message: 'process $1 has the memory of a device mapped ($2)', hint: 'a GPU or RDMA device: its state must be taken from it first; close devices that are not needed' },
  { match: /Can't open (\d+)'s mapfile link/, kind: 'mapping', message: 'a mapping of process $1 cannot be opened', hint: 'often an io_uring or a device: see stasis ps for what the container uses' },
  { match: /Can't dump that handle/, kind: 'file-watch', message: 'a watched file (inotify, fanotify) cannot be found again', hint: 'switch file watching off (tail -F, development servers, reloaders)' },
  { match: /Found dangling tty with sid (\d+)/, kind: 'tty', message: 'session $1 has a terminal whose other end is outside the container', hint: 'start it without a terminal (no -t), or use --shell-job' },
  { match: /Found slave peer index (\d+) without correspond master peer/, kind: 'tty', message: 'terminal $1 has its other end outside the container', hint: 'start it without a terminal (no -t), or use --shell-job' },
  { match: /Some file locks are hold by dumping tasks/, kind: 'file-lock', message: 'processes hold file locks', hint: 'use --file-locks: safe when nobody outside the container locks the same files' },
  { match: /Can't dump ghost file (.*) of (\d+) size, increase limit/, kind: 'deleted-file', message: 'the deleted file $1 of $2 bytes is still open and larger than the ghost limit', hint: 'raise the ghost limit in the configuration (criu.ghostLimit), or let the program close the file' },
  { match: /Can't create link remap for (.*?)\. Use link-remap/, kind: 'deleted-file', message: 'the open file $1 has lost its name', hint: 'its file system must be writable, and the runtime must let CRIU link it (runc 1.3 or newer); or let the program close and open it again, which an update made necessary' },
  { match: /Can't create link remap for (.*)/, kind: 'deleted-file', message: 'the open file $1 has lost its name and cannot get a new one', hint: 'its file system must be writable during the dump' },
  // Mounts.
  { match: /Can't lookup mount=(-?\d+) for fd=(-?\d+) path=(\S+)/, kind: 'mount', message: 'the open file $3 (descriptor $2) lies on a mount that the container does not have', hint: 'do not hand open files of the node to the container: use pipes for its output, bind mounts for its files' },
  { match: /(\d+):(\S+) doesn't have a proper root mount/, kind: 'mount', message: 'the mount $2 shows a directory whose source is not visible in the container', hint: 'mount it from outside, as a bind mount of config.json' },
  { match: /(\S+) has unreachable sharing\. Try --enable-external-masters/, kind: 'mount', message: 'the mount $1 receives mounts from the node (propagation)', hint: 'use private propagation (rprivate) for that volume' },
  { match: /FS mnt (\S+) .*unsupported id|Unable to dump .* unsupported (?:fs|file system)/, kind: 'mount', message: 'the mount $1 is of a file system type that CRIU does not know', hint: 'mount it from outside, as a bind mount of config.json' },
  { match: /Mount (\d+):?\s*(\S+)? .*(?:is not supported|unsupported)/i, kind: 'mount', message: 'the mount $2 cannot be saved', hint: 'mount it from outside, as a bind mount of config.json' },
  { match: /No parent found for mountpoint (\d+)/, kind: 'mount', message: 'the mounts of the container hang on one that is not visible (mount $1)', hint: 'run the agent with the node\'s own root (not in a chroot)' },
  { match: /overlayfs.*(?:lower|mapped)|Can't find overlayfs/i, kind: 'kernel', message: 'a mapped file cannot be found through the overlay', hint: 'use kernel 6.8 or newer, which tells the overlay\'s own paths' },
  // Network lock.
  { match: /Locking network failed: iptables-restore returned (\d+)/, kind: 'network-lock', message: 'the network could not be locked with iptables (status $1)', hint: 'use nftables, or install iptables with the mark match' },
  { match: /Locking network failed using nftables|CRIU was built without libnftables/, kind: 'network-lock', message: 'the network could not be locked with nftables', hint: 'does the kernel have nf_tables? a table "inet CRIU-…" of an earlier dump in the container\'s network must be deleted' },
  // Processes.
  { match: /SysVIPC shmem map @?(\S+) doesn't live in IPC ns/, kind: 'host-ipc', message: 'SysV shared memory of the node is mapped at $1', hint: 'give the container an IPC namespace of its own' },
  { match: /A session leader of (\d+)\((\d+)\) is outside of its pid namespace/, kind: 'exec-session', message: 'process $1 was started from outside the container (exec)', hint: 'end exec sessions and probes, then try again' },
  { match: /A process group leader of (\d+)\((\d+)\) is outside/, kind: 'exec-session', message: 'process $1 belongs to a group that began outside the container (exec)', hint: 'end exec sessions and probes, then try again' },
  { match: /The root process (\d+) is not a session leader/, kind: 'tty', message: 'the first process of the container does not lead a session: it was started from a shell', hint: 'use --shell-job' },
  { match: /failed to suspend seccomp|Dumping seccomp infos not supported|seccomp.*filters.* not supported/i, kind: 'seccomp', message: 'the seccomp filters cannot be suspended', hint: 'the agent needs CAP_SYS_ADMIN, the kernel CONFIG_CHECKPOINT_RESTORE' },
  { match: /(\d+) has rseq but kernel lacks get_rseq_conf/, kind: 'kernel', message: 'process $1 uses restartable sequences, which this kernel cannot save', hint: 'use kernel 5.13 or newer, or start it with GLIBC_TUNABLES=glibc.pthread.rseq=0' },
  { match: /Unable to connect a transport socket: Permission denied/, kind: 'security-module', message: 'AppArmor or SELinux keeps CRIU from talking to the process', hint: 'run the agent unconfined, or allow it in the profile' },
  { match: /Can't infect \(?(?:pid: )?(\d+)\)? with parasite|Can't infect task|Unable to (?:seize|attach|interrupt).*ptrace|SEIZE (\d+): can't seize|can't be seized|(?:Can't seize|Unable to seize) (\d+)/i, kind: 'traced', message: 'process $1$2$3 cannot be attached to', hint: 'end debuggers and tracers (gdb, strace); kernel.yama.ptrace_scope must be below 3' },
  { match: /Unseizable non-zombie (\d+) found, state (\S)/, kind: 'uninterruptible', message: 'process $1 is in state $2 and cannot be stopped', hint: 'try again; look for stuck network file systems' },
  { match: /The criu itself is within dumped tree/, kind: 'self', message: 'the agent runs inside the container that it shall checkpoint', hint: 'run the agent on the node' },
  { match: /Unable to freeze cgroup (\S+)/, kind: 'freeze', message: 'the cgroup $1 does not freeze', hint: 'a process in uninterruptible sleep holds it up: look for state D; a paused container needs criu 4.1 or newer' },
  { match: /Timeout reached\. Try to interrupt: (\d+)/, kind: 'freeze', message: 'process $1 did not stop in time', hint: 'raise the budget, or look at what that process waits for (state D, a GPU)' },
  { match: /Can't dump nested (\S+) namespace for (\d+)/, kind: 'nested-namespace', message: 'process $2 has made a $1 namespace of its own', hint: 'switch the sandbox of that program off (browsers: --no-sandbox); containers in containers cannot be saved' },
  { match: /Unable to dump more than one netns/, kind: 'nested-namespace', message: 'a process has made a net namespace of its own', hint: 'switch the sandbox of that program off (browsers: --no-sandbox)' },
  { match: /zombie (\d+) \(comm (.*)\) found while seizing/, kind: 'traced', message: 'process $1 ($2) cannot be attached to: something traces it, or it has just ended', hint: 'end debuggers and tracers (gdb, strace), then try again' },
  { match: /nested (\S+) namespaces? (?:is|are) not supported/i, kind: 'nested-namespace', message: 'a process has made a $1 namespace of its own', hint: 'switch the sandbox of that program off' },
  { match: /Individually stopped threads not supported/, kind: 'stopped-thread', message: 'one thread of a process is stopped', hint: 'let it go on (SIGCONT, detach the debugger), then try again' },
  { match: /(\d+) has uprobes vma/, kind: 'uprobes', message: 'process $1 is instrumented by uprobes', hint: 'stop the eBPF tracer or profiler that looks at it' },
  { match: /(?:PAUSE_DEVICES|CHECKPOINT_DEVICES) failed(?: with (.*))?/, kind: 'gpu', message: 'the GPU\'s state could not be taken ($1)', hint: 'a timeout: raise the budget; not supported: driver, MIG or unified memory; out of memory: the state needs room in RAM' },
  { match: /Tracking memory is not available/, kind: 'kernel', message: 'the kernel does not track dirty memory', hint: 'incremental dumps need CONFIG_MEM_SOFT_DIRTY' },
  { match: /The page server doesn't answer|Can't write pages to socket|Can't connect to (?:page )?server|page-xfer: (?:Unable to|Can't).*connect/i, kind: 'page-server', message: 'the receiver of the memory pages has gone', hint: 'see the agent\'s log: it was the receiver' },
  { match: /page-xfer: .*(?:Broken pipe|Connection reset)|Unable to (?:send|write) .*page/i, kind: 'page-server', message: 'the receiver of the memory pages closed the connection', hint: 'see the agent\'s log: it was the receiver' },
  { match: /No space left on device|Can't write .*ENOSPC/, kind: 'space', message: 'the staging directory is full', hint: 'give the staging more space, or use the page server' },
  { match: /Input\/output error/, kind: 'io', message: 'reading or writing failed with an I/O error', hint: 'look at the kernel log of the node for the disk' },
  { match: /Cannot allocate memory|Can't allocate .*(?:memory|bytes)/, kind: 'memory', message: 'memory ran out', hint: 'free memory on the node, or raise the memory limit of the agent or the container' },
  { match: /[Pp]ost.?dump script (?:failed|returned)|action.script.*post-dump|script (\S+) exited with (\d+)/, kind: 'hook', message: 'the dump was complete but not accepted, so the container went on', hint: 'the operation says why' },
  { match: /Can't find (?:a )?(?:task|process) (\d+)|Zombie found while expecting|(?:Task|Process) (\d+) (?:has )?(?:died|exited|is dead)|Can't read (?:the )?(?:stat|status) .*No such (?:file|process)|Unexpected (?:exit|death)/i, kind: 'exited', message: 'process $1$2 ended during the dump', hint: 'try again if the container still runs' },
];

/** The first row that fits a line is taken, so what is special stands before what is general. */
export const dumpCauses: readonly Cause[] = [...descriptorCauses, ...socketCauses, ...taskCauses, ...general];
