/** Programs that do not pass, what they come to instead, and why. Everything else must pass. */
import type { RuntimeName } from '../../src/runtime/index.ts';
import type { VerdictName } from './suite.ts';

export interface Expectation {
  readonly names: readonly string[];
  readonly verdict: Exclude<VerdictName, 'pass' | 'rightly-refused' | 'skip'>;
  /** Only with this runtime, or this way of restoring; undefined: with all. */
  readonly runtime?: RuntimeName;
  readonly memory?: 'eager' | 'lazy';
  readonly reason: string;
}

export const expectations: readonly Expectation[] = [
  { names: ['file_locks01', 'unlink_fstat03', 'fanotify00'], verdict: 'fails', reason: 'they compare device, inode or mount numbers with those before: the restored root file system is a new overlay' },
  { names: ['inotify00'], verdict: 'refused', reason: 'a watched file that has been deleted has no name in the overlay by which CRIU could find it' },
  { names: ['inotify_system_nodel'], verdict: 'refused', reason: 'a symbolic link itself is watched, which CRIU would follow' },
  { names: ['inotify_system'], verdict: 'fails', reason: 'it waits for events that came before the checkpoint and were not read: CRIU leaves them out' },
  { names: ['session02', 'session03'], verdict: 'refused-in-dump', reason: 'the leader of a session has ended, and CRIU cannot make that session again: the rehearsal finds it' },
  { names: ['bpf_hash', 'bpf_array'], verdict: 'refused', reason: 'this CRIU is built without support for BPF maps' },
  { names: ['netns_sub', 'netns_sub_veth', 'socket-tcp-ipt-nfconntrack', 'socket-tcp-nft-nfconntrack'], verdict: 'refused', reason: 'processes below the first have a network namespace of their own, and a runtime keeps CRIU from saving networks' },
  { names: ['socket-tcp-skip-in-flight'], verdict: 'refused-in-dump', reason: 'it wants connections that wait to be accepted to be dropped: Stasis does not offer that' },
  { names: ['file_lease02', 'file_lease03', 'file_lease04'], verdict: 'fails', reason: 'CRIU breaks a lease again that was being broken, and its owner is signalled a second time' },
  { names: ['binfmt_misc'], verdict: 'fails', reason: 'the formats of the kernel belong to the node, and a runtime keeps CRIU from saving that mount' },
  { names: ['clean_mntns'], verdict: 'refused-in-dump', reason: 'a process without /proc in mounts of its own holds a pipe, which CRIU can only open again below /proc: the rehearsal finds it' },
  { names: ['pid00', 'seccomp_filter'], verdict: 'refused', reason: 'processes of other users can be saved only with CAP_SYS_RESOURCE, which the machines of this suite do not have' },
  { names: ['mlock_setuid', 'thread_different_uid_gid', 'apparmor'], verdict: 'fails', reason: 'they do not pass in such a container on such a machine even when nobody touches them (--by none)' },
];
