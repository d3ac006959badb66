/** Programs that do not pass, what they come to instead, and why. Everything else must pass. */
import type { RuntimeName } from '../../src/runtime/index.ts';
import type { VerdictName } from './suite.ts';

export interface Expectation {
  readonly names: readonly string[];
  readonly verdict: Exclude<VerdictName, 'pass'>;
  /** Only with this runtime, or this way of restoring; undefined: with all. */
  readonly runtime?: RuntimeName;
  readonly memory?: 'eager' | 'lazy';
  /** Of a refusal: what it says. */
  readonly says?: RegExp;
  readonly reason: string;
}

const nested = /other than the container's first process; hint: CRIU cannot save nested namespaces/;
const hidden = /open, descriptor \d+, which is hidden below another mount/;
const resource = /runs as user \d+, and the agent lacks CAP_SYS_RESOURCE/;

/** CRIU's own suite wants them to be refused, too. */
const rightly: readonly Expectation[] = [
  { names: ['overmount_dev', 'overmount_fifo', 'overmount_file', 'overmounted_file'], verdict: 'rightly-refused', says: hidden, reason: 'what is open cannot be reached by its name' },
  { names: ['pidfd_of_thread'], verdict: 'rightly-refused', says: /a pidfd of a single thread open/, reason: 'CRIU has no pidfd of threads' },
  { names: ['ptrace_sig'], verdict: 'rightly-refused', says: /is traced by pid \d+/, reason: 'a process has one tracer' },
  { names: ['sigtrap'], verdict: 'rightly-refused', says: /has a SIGTRAP waiting/, reason: 'CRIU needs that signal itself' },
  { names: ['sk-unix-listen02'], verdict: 'rightly-refused', says: /were not accepted yet \(1 with data\)/, reason: 'the data of such a connection cannot be read' },
  { names: ['sk-unix-listen03', 'sk-unix-listen04'], verdict: 'rightly-refused', says: /were not accepted yet \(1 closed again\)/, reason: 'nobody can close a connection before it is accepted' },
  { names: ['socket_udp-corked'], verdict: 'rightly-refused', says: /a corked UDP socket open/, reason: 'what is corked cannot be read' },
  { names: ['timens_for_kids'], verdict: 'rightly-refused', says: /has made a time namespace for its children/, reason: 'CRIU has one time namespace' },
  { names: ['vfork00'], verdict: 'rightly-refused', says: /waits in vfork for its child to start a program/, reason: 'the kernel stops no process there' },
  { names: ['timens_nested'], verdict: 'rightly-refused', says: nested, reason: 'CRIU has one time namespace' },
];

/** They say nothing about Stasis. */
const notHere: readonly Expectation[] = [
  { names: ['apparmor_stacking', 'autofs', 'console', 'macvlan', 'rtc', 'sit', 'vt'], verdict: 'skip', reason: 'the kernel or the machine has not what they use' },
  { names: ['cgroup00', 'cgroup01', 'cgroup02', 'cgroup03', 'cgroup_ifpriomap', 'cgroup_stray', 'cgroup_threads', 'cgroup_yard', 'cgroupns', 'cgroupv2_00', 'cgroupv2_01'], verdict: 'skip', reason: 'they mount hierarchies of cgroups, which a container may not' },
  { names: ['change_mnt_context', 'mnt_enablefs', 'mnt_ro_root', 'mnt_tracefs'], verdict: 'skip', reason: 'they mount what a container may not' },
  {
    names: ['mnt_ext_auto', 'mnt_ext_collision', 'mnt_ext_dev', 'mnt_ext_file_bind_auto', 'mnt_ext_manual', 'mnt_ext_master', 'mnt_ext_multiple', 'mnt_ext_root', 'mnt_ext_sharing', 'mnt_root_ext', 'tun_ns'],
    verdict: 'skip', reason: "they make a root file system of their own, as CRIU's suite prepares it",
  },
  { names: ['cr_veth', 'cr_veth02', 'net_lock_socket_iptables', 'net_lock_socket_iptables6', 'net_lock_socket_nftables', 'net_lock_socket_nftables6', 'netns_lock_iptables', 'netns_lock_nftables'], verdict: 'skip', reason: "they wait for a helper of CRIU's suite outside" },
  { names: ['maps09', 'maps10', 'memfd02-hugetlb', 'shm-hugetlb'], verdict: 'skip', reason: 'there are no huge pages' },
  { names: ['sched_policy00', 'vsx'], verdict: 'skip', reason: 'no real-time scheduling in a cgroup of version 1; another architecture' },
];

const refusals: readonly Expectation[] = [
  { names: ['inotify00'], verdict: 'refused', says: /watches 1 file of the container's root/, reason: 'a watched file that has been deleted has no name in the overlay by which CRIU could find it' },
  { names: ['inotify_system_nodel'], verdict: 'refused', says: /watches 1 file of the container's root/, reason: 'a symbolic link itself is watched, which CRIU would follow' },
  { names: ['session02', 'session03'], verdict: 'refused', says: /belongs to the session of pid \d+, into which it cannot be born again/, reason: 'CRIU cannot make that session again' },
  { names: ['bpf_hash', 'bpf_array'], verdict: 'refused', says: /has a BPF map open/, reason: 'this CRIU is built without support for BPF maps' },
  { names: ['netns_sub', 'netns_sub_veth', 'socket-tcp-ipt-nfconntrack', 'socket-tcp-nft-nfconntrack'], verdict: 'refused', says: nested, reason: 'processes below the first have a network namespace of their own, and a runtime keeps CRIU from saving networks' },
  { names: ['clean_mntns'], verdict: 'refused', says: /has no \/proc, and pid \d+ .* holds a pipe/, reason: 'a pipe can only be opened again below /proc' },
  { names: ['pid00', 'seccomp_filter', 'mlock_setuid', 'thread_different_uid_gid'], verdict: 'refused', says: resource, reason: 'the machines of this suite do not have that capability' },
];

const failures: readonly Expectation[] = [
  { names: ['file_locks01', 'unlink_fstat03', 'fanotify00'], verdict: 'fails', reason: 'they compare device, inode or mount numbers with those before: the restored root file system is a new overlay' },
  { names: ['inotify_system'], verdict: 'fails', reason: 'it waits for events that came before the checkpoint and were not read: CRIU leaves them out' },
  { names: ['file_lease02', 'file_lease03', 'file_lease04'], verdict: 'fails', reason: 'CRIU breaks a lease again that was being broken, and its owner is signalled a second time; so without a runtime, too' },
  { names: ['binfmt_misc'], verdict: 'fails', reason: 'the formats of the kernel belong to the node, and a runtime keeps CRIU from saving that mount' },
  { names: ['apparmor'], verdict: 'fails', reason: 'there is no AppArmor; it does not pass even when nobody touches it (--by none)' },
];

export const expectations: readonly Expectation[] = [...rightly, ...notHere, ...refusals, ...failures];
