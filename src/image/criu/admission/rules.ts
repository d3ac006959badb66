/**
 * What the values in imported images may be, whatever the bundle grants: judged message by message, as criu/*.c uses them.
 * Each rule yields what is wrong. What depends on the bundle is left to whoever knows it; numbers that tie images together
 * are in references.ts.
 */
import type { Message } from './message.ts';

type Rule = (message: Message) => Generator<string>;

/** open(2) flags that a file keeps: access mode, append, non-blocking, (d)sync, async, direct, large file, directory, no-follow, no-atime, close-on-exec, path, and the own bit of O_TMPFILE. Not those that make or cut files. */
const OPEN_FLAGS = 0o3 | 0o2000 | 0o4000 | 0o10000 | 0o20000 | 0o40000 | 0o100000 | 0o200000 | 0o400000 | 0o1000000 | 0o2000000 | 0o4010000 | 0o10000000 | 0o20000000;
/** FD_TYPES of images/fdinfo.proto: which field of file_entry describes it. */
export const descriptions: Readonly<Record<number, string>> = {
  1: 'reg', 2: 'pipe', 3: 'fifo', 4: 'isk', 5: 'usk', 6: 'efd', 7: 'epfd', 8: 'ify', 9: 'sgfd', 11: 'tty', 13: 'nlsk', 17: 'tfd', 18: 'memfd',
};
const fileKinds = Object.values(descriptions);

/** CLOCK_REALTIME, MONOTONIC, PROCESS_CPUTIME_ID, THREAD_CPUTIME_ID, BOOTTIME, TAI. The alarm clocks wake machines, and need a capability. */
const CLOCKS = new Set([0, 1, 2, 3, 7, 11]);
const TASK_STATES = new Set([1, 2, 3]);
/** PER_LINUX32, UNAME26, ADDR_NO_RANDOMIZE: what runtimes let programs choose, and debuggers. */
const PERSONALITY = 0x8 | 0x20000 | 0x40000;
const RESOURCES = 16;
const SIGACTIONS = 62;
const SIGINFO_BYTES = 128;
/** Status bits of mappings (criu/include/image.h) that a dump writes: all but sockets, uprobes, plugins and what CRIU adds itself. */
const MAPPING_STATUS = 0x0001_f7ff;
const MAPPING_DENIED = 0x0800 | 0x10;
const MiB = 2 ** 20;
/** CRIU sets buffers as root, beyond the limits of the node; tcp_wmem ends at 4 to 64 MiB. */
const SOCKET_BUFFER = 64 * MiB;
/** fs.pipe-max-size of Linux. */
const PIPE_BUFFER = MiB;
const STREAM_AND_DATAGRAM = new Set(['2 1 6', '2 2 17', '10 1 6', '10 2 17']);
/** TCP_ESTABLISHED to TCP_CLOSING, as a dump finds them. */
const SOCKET_STATES = 11;
/** IN_CLOEXEC and IN_NONBLOCK; O_RDONLY. */
const INOTIFY_FLAGS = 0o2004000;
const MS_KNOWN = 0x1 | 0x2 | 0x4 | 0x8 | 0x100 | 0x400 | 0x800 | 0x200000 | 0x1000000;
const MS_RDONLY = 1;
const S_IFMT = 0o170000;
const S_IFSOCK = 0o140000;
const GHOST_KINDS = new Set([0o100000, 0o040000, 0o010000, 0o020000, 0o060000]);
/** Pseudo terminals, and the controlling terminal; not consoles, virtual terminals and serial lines of the node. */
const TTY_TYPES = new Set([1, 4]);
const RUN_ID = /^[0-9a-f-]{1,64}$/;

export const rules: Readonly<Record<string, Rule>> = {
  *inventory(m) {
    if (m.number('img_version') !== 2 || !m.flag('fdinfo_per_id') || !m.flag('ns_per_id')) yield 'is of a version of CRIU that is too old';
    if (m.number('network_lock_method') > 2) yield 'locks the network in a way that is not known';
    // CRIU makes a command for nft of it.
    if (m.has('dump_criu_run_id') && !RUN_ID.test(m.text('dump_criu_run_id'))) yield 'has a run id that is none';
  },
  *plugins(m) { if (m.has('plugins')) yield 'asks for plugins of CRIU'; },
  *core(m) {
    const [machine, field] = process.arch === 'arm64' ? [3, 'ti_aarch64'] : [1, 'info'];
    const dead = m.message('tc')?.number('task_state') === 2;
    if (m.number('mtype') !== machine || (!dead && !m.has(field)) || m.has(field === 'info' ? 'ti_aarch64' : 'info')) yield `is of another processor than this node's ${process.arch}`;
  },
  *task(m) {
    if (!TASK_STATES.has(m.number('task_state'))) yield `has a process in state ${m.number('task_state')}`;
    if ((m.number('personality') & ~PERSONALITY) !== 0) yield `has the personality 0x${m.number('personality').toString(16)}`;
    if (Math.abs(m.number('oom_score_adj')) > 1000) yield `has an OOM score of ${m.number('oom_score_adj')}`;
    if (m.has('sigactions') && m.all('sigactions').length !== SIGACTIONS) yield `has ${m.all('sigactions').length} signal handlers`;
  },
  *rlimits(m) { if (m.all('rlimits').length > RESOURCES) yield `has ${m.all('rlimits').length} resource limits`; },
  *siginfo(m) { if (m.bytes('siginfo').length !== SIGINFO_BYTES) yield 'has a signal of an impossible size'; },
  *posix_timer(m) { if (!CLOCKS.has(m.number('clock_id'))) yield `has a timer on clock ${m.number('clock_id')}`; },
  *thread(m) {
    if (m.number('seccomp_mode') > 2) yield `has the seccomp mode ${m.number('seccomp_mode')}`;
    if (m.number('seccomp_mode') === 2 && !m.has('seccomp_filter')) yield 'has a seccomp filter without a number';
    if (m.number('sched_nice') < -20 || m.number('sched_nice') > 19) yield `has the nice value ${m.number('sched_nice')}`;
    if (m.has('sched_policy') && ![0, 1, 2, 3, 5].includes(m.number('sched_policy'))) yield `has the scheduler ${m.number('sched_policy')}`;
  },
  *creds(m) {
    // SECBIT_KEEP_CAPS, SECBIT_NOROOT and so on: four switches, four locks, and two pairs of later kernels.
    if (m.number('secbits') > 0xfff) yield `has the secure bits 0x${m.number('secbits').toString(16)}`;
    if (m.has('lsm_sockcreate')) yield 'makes sockets with a label of its own';
    for (const name of ['cap_inh', 'cap_prm', 'cap_eff', 'cap_bnd', 'cap_amb']) if (m.all(name).length > 2) yield `has too long a set of capabilities (${name})`;
    if (m.all('groups').length > 65_536) yield 'has more groups than a process can have';
  },
  *pstree(m) {
    if (m.number('pid') === 0 || m.number('pid') > 2 ** 22) yield `has a process with pid ${m.number('pid')}`;
  },
  *pagemap(m) { if (m.flag('in_parent')) yield 'leaves pages to a dump before it'; },
  *mm(m) {
    if (m.all('saved_auxv').length > 128) yield 'has too long an auxiliary vector';
  },
  *vma(m) {
    const status = m.number('status');
    if ((status & ~MAPPING_STATUS) !== 0 || (status & MAPPING_DENIED) !== 0) yield `has a mapping of the kind 0x${status.toString(16)}`;
    if (m.has('fdflags')) yield* openFlags(m.number('fdflags'));
  },
  *fdinfo(m) { if (descriptions[m.number('type')] === undefined) yield `has a descriptor of type ${m.number('type')}, which containers do not need`; },
  *seccomp_filter(m) {
    // SECCOMP_FILTER_FLAG_TSYNC and FLAG_LOG.
    if (m.number('flags') > 3) yield `has a seccomp filter with the flags ${m.number('flags')}`;
  },

  *file(m) {
    const kind = descriptions[m.number('type')];
    if (kind === undefined) yield `has an open file of type ${m.number('type')}, which containers do not need`;
    else for (const one of fileKinds) if (m.has(one) !== (one === kind)) yield `has an open file of type ${m.number('type')} that ${one === kind ? 'is not described' : `is described as ${one}`}`;
    const described = kind === undefined ? undefined : m.message(kind);
    if (described !== undefined && described.number('id') !== m.number('id')) yield `has an open file with two numbers, ${m.number('id')} and ${described.number('id')}`;
  },
  *reg(m) {
    yield* openFlags(m.number('flags'));
    yield* filePath(m.text('name'));
    if (m.flag('ext')) yield `takes ${shown(m.text('name'))} from outside`;
  },
  *pipe(m) { yield* openFlags(m.number('flags')); },
  *eventfd(m) { yield* openFlags(m.number('flags')); },
  *eventpoll(m) { yield* openFlags(m.number('flags')); },
  *signalfd(m) { yield* openFlags(m.number('flags')); },
  *memfd(m) { yield* openFlags(m.number('flags')); },
  *tty(m) { yield* openFlags(m.number('flags')); },
  *timerfd(m) {
    yield* openFlags(m.number('flags'));
    if (!CLOCKS.has(m.number('clockid'))) yield `has a timer on clock ${m.number('clockid')}`;
  },
  *inotify(m) { if ((m.number('flags') & ~INOTIFY_FLAGS) !== 0) yield `has a watch with the flags 0x${m.number('flags').toString(16)}`; },
  *handle(m) { yield* filePath(m.text('path')); },
  *unix(m) {
    yield* openFlags(m.number('flags'));
    if (![1, 2, 5].includes(m.number('type'))) yield `has a UNIX socket of type ${m.number('type')}`;
    if (m.number('state') > SOCKET_STATES) yield `has a UNIX socket in state ${m.number('state')}`;
    if (m.number('uflags') !== 0) yield 'has a UNIX socket that is given from outside';
    yield* socketName(m);
  },
  *socket_file(m) { if ((m.number('mode') & ~(S_IFSOCK | 0o777)) !== 0) yield `has a UNIX socket of mode 0${m.number('mode').toString(8)}`; },
  *inet(m) {
    yield* openFlags(m.number('flags'));
    const kind = `${m.number('family')} ${m.number('type')} ${m.number('proto')}`;
    if (!STREAM_AND_DATAGRAM.has(kind)) yield `has a socket that is neither TCP nor UDP (${kind})`;
    if (m.number('state') > SOCKET_STATES) yield `has a socket in state ${m.number('state')}`;
    if (m.number('src_port') > 65_535) yield 'has a socket with an impossible port';
    for (const end of ['src_addr', 'dst_addr']) if (m.has(end) && m.all(end).length !== (m.number('family') === 10 ? 4 : 1) && m.all(end).length !== 4) yield `has an address of ${m.all(end).length} words`;
  },
  *netlink(m) {
    yield* openFlags(m.number('flags'));
    if (m.number('protocol') !== 0) yield `has a netlink socket of protocol ${m.number('protocol')}`;
  },
  *socket(m) {
    for (const name of ['sndbuf', 'rcvbuf']) if (m.number(name) > SOCKET_BUFFER) yield `has a socket buffer of ${m.number(name)} bytes`;
    if (m.all('filter').length > 4096) yield 'has a socket filter that is too long';
    if (!/^[^/\s]{0,15}$/.test(m.text('bound_dev'))) yield 'has a socket bound to an impossible device';
  },
  *memfd_inode(m) {
    if (m.number('hugetlb_flag') !== 0) yield 'has a memory file of huge pages';
    if ((m.number('mode') & ~(S_IFMT | 0o777)) !== 0) yield 'has a memory file that runs as its owner';
  },
  *tty_info(m) {
    if (!TTY_TYPES.has(m.number('type'))) yield `has a terminal of type ${m.number('type')}`;
    const [major, minor] = [(m.number('rdev') >>> 8) & 0xfff, m.number('rdev') & 0xff];
    const pty = (major >= 136 && major <= 143) || (major === 5 && (minor === 2 || minor === 0)) || (major >= 2 && major <= 3);
    if (!pty) yield `has the terminal ${major}:${minor}`;
  },
  // Another discipline would load a module of the kernel.
  *termios(m) { if (m.number('c_line') > 0xff || (m.number('c_line') & 0xff) !== 0) yield `has a terminal with the line discipline ${m.number('c_line')}`; },
  *pipe_data(m) { if (m.number('size') > PIPE_BUFFER) yield `has a pipe of ${m.number('size')} bytes`; },
  *queue(m) { if (m.all('scm').length > 1) yield 'has a packet with more than one list of descriptors'; },
  *scm(m) {
    if (m.number('type') !== 1) yield `has a control message of type ${m.number('type')}`;
    if (m.all('rights').length > 253) yield 'passes more descriptors than a packet can';
  },
  *remap(m) { if (m.number('remap_type') > 2) yield `has a deleted file of type ${m.number('remap_type')}`; },
  *ghost(m) {
    if (!GHOST_KINDS.has(m.number('mode') & S_IFMT)) yield `has a deleted file of mode 0${m.number('mode').toString(8)}`;
    if (m.has('mtim') !== m.has('atim')) yield 'has half the times of a deleted file';
  },
  // FL_POSIX, FL_FLOCK, FL_OFDLCK; F_RDLCK, F_WRLCK, F_UNLCK. Leases are not a container's.
  *lock(m) {
    if (![1, 2, 1024].includes(m.number('flag'))) yield `has a lock of the kind ${m.number('flag')}`;
    if (m.number('type') > 2) yield `has a lock of type ${m.number('type')}`;
  },

  *mount(m) {
    const place = m.text('mountpoint');
    if ((m.number('flags') & ~MS_KNOWN) !== 0) yield `mounts with the flags 0x${m.number('flags').toString(16)} at ${shown(place)}`;
    if ((m.number('sb_flags') & ~MS_RDONLY) !== 0) yield `mounts with the super block flags 0x${m.number('sb_flags').toString(16)} at ${shown(place)}`;
    if (!isNormal(place.replace(/^\.(?=\/|$)/, '') || '/') && place !== './') yield `mounts at ${shown(place)}, which is no plain path`;
    if (!isNormal(m.text('root'))) yield `mounts ${shown(m.text('root'))}, which is no plain path, at ${shown(place)}`;
    if (m.flag('with_plugin')) yield `${shown(place)} is mounted by a plugin`;
    if (m.flag('ext_mount')) yield `${shown(place)} is given from outside under no name`;
    if (m.flag('deleted')) yield `${shown(place)} is a mount of what was deleted`;
    if (m.flag('internal_sharing')) yield `${shown(place)} shares its mounts`;
  },
  *netns(m) {
    if (!m.has('ext_key')) return;
    if (m.text('ext_key') !== 'extRootNetNS') yield 'takes a network from outside that no runtime gives';
    for (const name of ['def_conf', 'all_conf', 'def_conf4', 'all_conf4', 'def_conf6', 'all_conf6', 'unix_conf', 'ipv4_sysctl']) if (m.has(name)) yield `sets ${name} of a network that is given from outside`;
  },
  *pidns(m) { if (m.has('ext_key') && m.text('ext_key') !== 'extRootPidNS') yield 'takes processes from outside that no runtime gives'; },
  *ipc_shm(m) {
    if (m.number('hugetlb_flag') !== 0) yield 'has shared memory of huge pages';
    if (m.big('size') > 2n ** 46n) yield 'has shared memory of an impossible size';
  },
  *ipc_msg(m) { if (m.number('msize') > 8192) yield `has a message of ${m.number('msize')} bytes`; },
};

function* openFlags(flags: number): Generator<string> {
  if ((flags & ~OPEN_FLAGS) !== 0) yield `opens a file with the flags 0${flags.toString(8)}`;
}

/** Absolute, without ".", ".." and empty components. */
export function isNormal(path: string): boolean {
  return path === '/' || (path.length < 4096 && /^(?:\/[^/]+)+$/.test(path) && !/\/\.{1,2}(?=\/|$)/.test(path));
}

/**
 * Symlinks of /proc, and those to them that every /dev has, lead out of every mount: while CRIU opens files, /proc/self is CRIU, with descriptors of the node's own
 * directories. The kernel never names an open file through them.
 */
const MAGIC = /^\/dev\/(?:fd|core|stdin|stdout|stderr)(?:\/|$)|^\/proc\/(?:self|thread-self)(?:\/|$)|^\/proc\/.*\/(?:cwd|root|exe)(?:\/|$)|^\/proc\/.*\/(?:fd|ns|map_files)\/./;

export function* filePath(name: string): Generator<string> {
  if (!isNormal(name)) yield `opens ${shown(name)}, which is no plain path`;
  else if (MAGIC.test(name)) yield `opens ${shown(name)}, a way out of the container`;
}

const SOCKET_NAME_BYTES = 108;

/** Where a UNIX socket lies in the file system, if it does. */
export function* socketPath(m: Message): Generator<string> {
  const path = Buffer.from(m.bytes('name')).toString('latin1').replace(/\0+$/, '');
  if (path === '' || path.startsWith('\0')) return;
  const directory = m.has('name_dir') ? m.text('name_dir') : '/';
  yield path.startsWith('/') ? path : `${directory === '/' ? '' : directory}/${path}`;
}

function* socketName(m: Message): Generator<string> {
  const name = Buffer.from(m.bytes('name')).toString('latin1');
  if (name.length > SOCKET_NAME_BYTES) yield 'has a UNIX socket with too long a name';
  if (name === '' || name.startsWith('\0')) {
    if (m.has('name_dir')) yield 'has a UNIX socket without a path in a directory';
    return;
  }
  const path = name.replace(/\0+$/, '');
  if (path.includes('\0')) yield 'has a UNIX socket with a NUL byte in its path';
  else for (const whole of socketPath(m)) yield* filePath(whole);
  if (m.has('name_dir')) yield* filePath(m.text('name_dir'));
}

export function shown(text: string): string {
  return JSON.stringify(text.slice(0, 200)).replaceAll(/[^\x20-\x7e]/g, '?');
}
