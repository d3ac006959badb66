/** What CRIU's words about processes, namespaces and mounts mean in a dump. The texts matched are those of CRIU 3.15 to 4.2. */
import { AGAIN, type Cause } from './cause.ts';

const SANDBOX = 'switch the sandbox of that program off (browsers: --no-sandbox); containers in containers cannot be saved';

export const taskCauses: readonly Cause[] = [
  { match: /ctty inheritance detected sid\/pgrp (\d+)/, kind: 'tty', message: 'session $1 uses its terminal by /dev/tty, below the program that made it (tmux, screen or script)', hint: 'end the programs in that terminal, or start the service without one' },
  { match: /Found dangling tty with sid (\d+) pgid (\d+) \((.*?)\)/, kind: 'tty', message: 'session $1 has the terminal $3, whose other end is outside the container', hint: 'start it without a terminal (no -t), or use --shell-job' },
  { match: /tty: (?:Found|Can't|Unable|No CTL|The master|Unexpected|Index|Only one|Too many).*/, kind: 'tty', message: 'a terminal cannot be saved', hint: 'end the programs that made it (tmux, screen, ssh, script), or start the service without a terminal' },
  { match: /Can't get rlimit (\d+)[^:]*: Operation not permitted/, kind: 'capability', message: 'the limits of a process that runs as another user cannot be read (limit $1): CRIU lacks CAP_SYS_RESOURCE', hint: 'give the agent CAP_SYS_RESOURCE (privileged), or run the program in the container as root' },
  { match: /Can't dump the (\d+) thread with a pending SIGTRAP/, kind: 'signal', message: 'thread $1 has a SIGTRAP waiting', hint: 'end the debugger, or let the program take the signal (it blocks it)' },
  { match: /SEIZE (\d+): unsupported stop signal (\d+)/, kind: 'stopped-thread', message: 'process $1 was stopped by signal $2', hint: 'let it go on first (SIGCONT)' },
  { match: /Zombies? with threads are not supported|Zombie thread not supported|Can't dump thread for pid (\d+)/, kind: 'dead-leader', message: 'the first thread of a process has ended while others go on', hint: 'the program must keep its first thread: one that leaves main by pthread_exit cannot be saved' },
  { match: /Zombie with children/, kind: 'exited', message: 'a process ended while it was looked at', hint: 'try again in a moment' },
  { match: /Can't dump task (\d+) running in 32-bit mode/, kind: 'mode', message: 'process $1 runs in 32-bit mode', hint: 'this criu is built without 32-bit support: use a 64-bit program, or another build of criu' },
  { match: /Can't dump task (\d+) with LDT descriptors/, kind: 'mode', message: 'process $1 has a local descriptor table (modify_ldt)', hint: 'CRIU cannot save it: wine and DOS emulators use one' },
  { match: /shstk: /, kind: 'shadow-stack', message: 'the shadow stack of a process cannot be read', hint: 'start it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off' },
  { match: /suspending seccomp failed|Can't fetch (?:filter|seccomp metadata) on tid_real (\d+)/, kind: 'seccomp', message: 'the seccomp filters of a process cannot be read or suspended', hint: 'the agent needs CAP_SYS_ADMIN outside of any seccomp filter of its own; a filter with a listener cannot be saved' },
  { match: /Can't dump nested time namespace for (\d+)/, kind: 'nested-namespace', message: 'process $1 has made a time namespace for its children', hint: SANDBOX },
  {
    match: /Can't make (?:VM|FS|FILES|IO) id for (\d+)/, kind: 'thread',
    message: 'process $1 has its memory, directory or descriptors in common with another process (clone with CLONE_VM, '
      + 'CLONE_FS, CLONE_FILES)',
    hint: 'the program must use threads, or memory that is mapped as shared and messages',
  },
  { match: /Can't make (\w+ns) id|Can't make cgroup id/, kind: 'nested-namespace', message: 'a process has made a namespace of its own ($1) that CRIU cannot save', hint: SANDBOX },
  { match: /don't match netns|One or more namespaces doesn't belong to the target user namespace/, kind: 'user-namespace', message: 'a namespace of the container belongs to another user namespace than the container', hint: 'let one runtime make all namespaces: none by path that an engine made before' },
  { match: /Can't dump a pid namespace without the process init|The root task has another root than mntns: (\S+)|A root task is dead/, kind: 'root-process', message: 'the first process of the container has another root than the container ($1), or has ended', hint: 'start the program without chroot or pivot_root as its first process' },
  { match: /A session leader of zombie process (\d+)\((\d+)\) is outside/, kind: 'exec-session', message: 'the ended process $1 belongs to a session that began outside the container (exec)', hint: 'end exec sessions, then try again' },
  { match: /Conflict with a dead task with the same PID/, kind: 'exited', message: 'a file of /proc of an ended process is open, and its pid is used again', hint: 'let the program close it, or try again' },
  { match: /PIDs? reuse|Task pid reused while suspending|task not stopped after seize|Unexpected child (\d+)/, kind: 'exited', message: 'processes come and go faster than CRIU can stop them', hint: AGAIN },
  { match: /(\d+) was killed by (\d+) unexpectedly|(\d+) exited with (\d+) unexpectedly|(\d+) was stopped by (\d+) unexpectedly/, kind: 'exited', message: 'process $1$3$5 ended or was signalled ($2$4$6) while it was saved', hint: 'was it killed for memory? look at the limits of the container and at the kernel log; then try again' },
  { match: /Can't (?:inject syscall blob|inject memfd args|rmap memfd|map remote parasite map)|Can't create memfd in victim|Fail to truncate memfd for parasite|compel_syscall for mprotect failed|remote mmap\(\) failed/, kind: 'infect', message: 'CRIU cannot place its code in a process', hint: 'its seccomp filter, its memory limit (RLIMIT_AS, memory cgroup) or a security module forbids it; raise the limit or allow mmap, memfd_create and connect' },
  { match: /unsupported RSEQ ABI version/, kind: 'kernel', message: 'this criu does not know the kernel\'s restartable sequences', hint: 'install a newer criu, or start the program with GLIBC_TUNABLES=glibc.pthread.rseq=0' },
  { match: /kernel commit \S+ is missing|Kernel doesn't support/i, kind: 'kernel', message: 'this kernel lacks something that CRIU needs', hint: 'run criu check on the node; use a newer kernel' },
  // Network devices and mounts.
  { match: /Unsupported link (\d+) \(type (\d+) kind (\S+?)\)/, kind: 'link', message: 'the network device $1 of the container is of kind $3, which CRIU does not know', hint: 'let the network be made from outside (a network namespace with a path), or delete the device before a checkpoint' },
  { match: /Unable to dump a file system for \d+:(\S+)/, kind: 'mount', message: 'the file system mounted at $1 cannot be saved', hint: 'mount it from outside, as a bind mount of config.json' },
  { match: /(\S+) is a fuse mount but not external/, kind: 'mount', message: 'a FUSE file system is mounted at $1 from inside the container', hint: 'mount it from outside, as a bind mount of config.json' },
  { match: /Mount (\d+) has two children with same/, kind: 'mount', message: 'two mounts lie on one another in the container (below mount $1)', hint: 'unmount one of them' },
  { match: /The mount (\d+) is overmounted so paths are invisible/, kind: 'overmount', message: 'a mount with files that must be saved (mount $1) is hidden below another one', hint: 'unmount what was mounted over it' },
  { match: /The mount (\d+) has readonly sb/, kind: 'deleted-file', message: 'a deleted file is open on a file system that is read-only (mount $1)', hint: 'start the program again: an update has replaced one of its files' },
  { match: /Unable to find suitable mount point for s_dev/, kind: 'mount', message: 'a file lies on a file system that the container does not show', hint: 'let the program close it, or mount the file system into the container' },
  { match: /binfmt_misc: (?:unsupported feature|bad dump|Second)|Second binfmt_misc superblock/, kind: 'mount', message: 'the binfmt_misc file system of the container cannot be saved', hint: 'unmount it before a checkpoint' },
  { match: /Failed to find read pipe fd|Abandoned mount or control was delegated|autofs pipe fd \d+ is not empty|Autofs \d+ is alive, but unreachable/, kind: 'mount', message: 'an autofs mount of the container cannot be saved', hint: AGAIN },
  { match: /failed to dump fs (\S+) \((\S+)\): always fail/, kind: 'mount', message: 'the $2 mounted at $1 cannot be saved', hint: 'mount it from outside, as a bind mount of config.json' },
];
