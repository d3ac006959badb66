/** Containers that cannot be checkpointed, or only with a flag: what each does, and what preflight must say of it. */
import type { CheckpointFlags } from '../../src/runtime/index.ts';
import type { ContainerOptions } from '../support/containers.ts';

export interface Scenario {
  readonly name: string;
  readonly options: Omit<ContainerOptions, 'runtime' | 'id'>;
  readonly kind: string;
  readonly severity: 'fatal' | 'warning';
  /** Part of the message. */
  readonly message: RegExp;
  /** What this node's programs can do, as far as it must be otherwise. */
  readonly features?: Readonly<Record<string, boolean>>;
  /** A flag with which the finding goes away. */
  readonly cure?: keyof CheckpointFlags;
}

/** Every program says "ready" when it is in the state that the scenario is about. */
const perl = (program: string): readonly string[] => ['/usr/bin/perl', '-e', `$| = 1; ${program}; print "ready\\n"; sleep 1 while 1;`];
const shell = (program: string): readonly string[] => ['/bin/sh', '-c', `${program}\necho ready; while :; do sleep 1; done`];
const python = (program: string): readonly string[] => ['/usr/bin/python3', '-c', `import os, socket, sys, time\n${program}\nprint("ready", flush=True)\nwhile True: time.sleep(1)`];

export const scenarios: readonly Scenario[] = [
  { name: 'io_uring', options: { args: perl('my $p = "\\0" x 120; syscall(425, 8, $p) >= 0 or die "io_uring_setup: $!"'), edit: (spec) => { delete spec['linux'].seccomp; } }, kind: 'io_uring', severity: 'fatal', message: /uses io_uring, descriptor \d/ },
  { name: 'a device', options: { args: shell('exec 5<>/dev/fuse'), edit: addDevice('/dev/fuse', 10, 229) }, kind: 'device', severity: 'fatal', message: /the device \/dev\/fuse \(10:229\) open, descriptor 5/ },
  { name: 'a file whose mount is not in the container', options: { args: shell('mount -t tmpfs x /mnt && exec 5>/mnt/file && umount -l /mnt'), capabilities: ['CAP_SYS_ADMIN'] }, kind: 'foreign-file', severity: 'fatal', message: /has \/\S* open, descriptor 5, a file outside/ },
  { name: 'a file lock', options: { args: shell('exec 5>/tmp/lock; flock 5') }, kind: 'file-lock', severity: 'fatal', message: /holds 1 file lock \(FLOCK\)/, cure: 'fileLocks' },
  { name: 'a TCP connection', options: { args: python('s = socket.create_server(("127.0.0.1", 4000)); c = socket.create_connection(("127.0.0.1", 4000)); a = s.accept()[0]') }, kind: 'tcp-established', severity: 'fatal', message: /the TCP connection 127\.0\.0\.1:\d+ to 127\.0\.0\.1:\d+ open/, cure: 'tcpEstablished' },
  { name: 'a connection that nobody accepts', options: { args: python('s = socket.create_server(("127.0.0.1", 4000)); c = socket.create_connection(("127.0.0.1", 4000))') }, kind: 'in-flight', severity: 'fatal', message: /the connection from 127\.0\.0\.1:\d+ to port 4000 of pid \d+ .*was not accepted yet/, cure: 'tcpSkipInFlight' },
  { name: 'a nested uts namespace', options: { args: shell('unshare -u sleep 1000 & sleep 0.3'), capabilities: ['CAP_SYS_ADMIN'] }, kind: 'nested-namespace', severity: 'fatal', message: /a uts namespace other than/ },
  { name: 'a nested network namespace', options: { args: shell('unshare -n sleep 1000 & sleep 0.3'), capabilities: ['CAP_SYS_ADMIN'] }, kind: 'nested-namespace', severity: 'fatal', message: /a net namespace other than/ },
  { name: 'a nested pid namespace', options: { args: shell('unshare -p --fork sleep 1000 & sleep 0.3'), capabilities: ['CAP_SYS_ADMIN'] }, kind: 'nested-namespace', severity: 'fatal', message: /a pid namespace other than/ },
  { name: 'a large deleted file', options: { args: shell('exec 5>/tmp/big; head -c 3000000 /dev/zero >&5; rm /tmp/big') }, kind: 'deleted-file', severity: 'fatal', message: /the deleted file \/tmp\/big of 2\.\d+ MiB open/ },
  { name: 'a multipath TCP socket', options: { args: python('s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); s.bind(("127.0.0.1", 4000)); s.listen()') }, kind: 'socket', severity: 'fatal', message: /a socket of protocol MPTCP open/ },
  { name: 'a traced process', options: { args: perl('my $child = fork; if (!$child) { sleep 1 while 1 } syscall(101, 0x4206, $child, 0, 0) == 0 or die "ptrace: $!"'), capabilities: ['CAP_SYS_PTRACE'] }, kind: 'traced', severity: 'fatal', message: /is traced by pid \d+ \(perl\)/ },
  { name: 'a perf event', options: { args: perl('my $attr = pack("LLQQQQQ", 1, 112, 0, 0, 0, 0, 1) . "\\0" x 64; syscall(298, $attr, 0, -1, -1, 0) >= 0 or syscall(323, 1) >= 0 or die "perf_event_open: $!"'), capabilities: ['CAP_PERFMON', 'CAP_SYS_ADMIN'], edit: (spec) => { delete spec['linux'].seccomp; } }, kind: 'descriptor', severity: 'fatal', message: /a descriptor of kind (perf_event|userfaultfd)/ },
  { name: 'the pid namespace of the node', options: { args: shell('true'), edit: dropNamespace('pid') }, kind: 'host-pid', severity: 'fatal', message: /uses the pid namespace of the node/ },
  { name: 'the network of the node', options: { args: shell('true'), edit: dropNamespace('network') }, kind: 'host-network', severity: 'warning', message: /uses the network of the node/ },
  { name: 'a file watch', options: { args: perl('my $fd = syscall(294, 0); my $path = "/root/gone\\0"; open(F, ">", "/root/gone"); syscall(254, $fd, $path, 0x100) >= 0 or die "inotify: $!"; unlink "/root/gone"') }, kind: 'file-watch', severity: 'fatal', message: /watches 1 file of the container's root \(inotify, descriptor \d\)/ },
  {
    name: 'events of a file watch',
    options: { args: perl('my $fd = syscall(294, 0); my $path = "/root\\0"; syscall(254, $fd, $path, 0x100) >= 0 or die "inotify: $!"; open(F, ">", "/root/new")') },
    kind: 'lost', severity: 'warning',
    message: /what pid \d+ \(perl.*\) has not read yet of the events of files that it watches \(inotify, descriptor \d\) is lost by a restore/,
  },
];

function addDevice(path: string, major: number, minor: number): NonNullable<ContainerOptions['edit']> {
  return (spec) => {
    spec['linux'].devices = [{ path, type: 'c', major, minor, fileMode: 0o666, uid: 0, gid: 0 }];
    spec['linux'].resources = { devices: [{ allow: true, access: 'rwm' }] };
  };
}

function dropNamespace(type: string): NonNullable<ContainerOptions['edit']> {
  return (spec) => {
    spec['linux'].namespaces = spec['linux'].namespaces.filter((entry: { type: string }) => entry.type !== type);
  };
}
