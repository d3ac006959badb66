/** What CRIU's error lines mean, for restores, and for both directions. The texts matched are those of CRIU 3.15 to 4.2. */
import type { Cause } from './cause.ts';

export const restoreCauses: readonly Cause[] = [
  // Sockets.
  { match: /Connected TCP socket in image/, kind: 'tcp-established', message: 'the checkpoint holds open TCP connections', hint: 'use --tcp-established to bring them back, or --tcp-close to close them' },
  { match: /Need to set the --tcp-close options/, kind: 'tcp-close', message: 'the checkpoint was made with its TCP connections closed', hint: 'use --tcp-close' },
  { match: /Can't bind inet socket.*Address already in use/, kind: 'address', message: 'a port of the container is taken here', hint: 'stop the program that listens on it (is the old container still there?)' },
  { match: /Can't bind inet socket.*Cannot assign requested address/, kind: 'address', message: 'an address that the container listened on does not exist here', hint: 'give the new network the old address, or use --tcp-close for connections' },
  { match: /Can't connect inet socket back/, kind: 'address', message: 'a TCP connection cannot be brought back in this network', hint: 'the old address and route must exist here; use --tcp-close to close connections instead' },
  { match: /Can't (?:bind|connect) .*unix socket.*|unix: Can't (?:bind|connect).*/, kind: 'unix-socket', message: 'a UNIX socket cannot be brought back', hint: 'the directory of its path must exist, and no file may be in its place' },
  // Mounts and files.
  { match: /No mapping for (\S+) mountpoint/, kind: 'mount', message: 'the bundle has no mount for $1', hint: 'give the new container the same mount destinations as the old one' },
  { match: /Can't mount at (\S+?):? (.*)/, kind: 'mount', message: 'nothing can be mounted at $1: $2', hint: 'the mount point must exist in the root file system' },
  { match: /(?:Failed|Unable|Can't) (?:to )?(?:open|mount|bind).*mount.*?(\/\S+).*No such file or directory/i, kind: 'mount', message: 'the mount point or source $1 does not exist', hint: 'restore the root file system and the volumes first' },
  { match: /move_mount.*(?:failed|Invalid|not supported)|MOVE_MOUNT_SET_GROUP/i, kind: 'kernel', message: 'this kernel cannot rebuild the mounts in the new way', hint: 'use kernel 5.15 or newer' },
  { match: /File (\S+) has bad size (\d+) \(expect (\d+)\)/, kind: 'file-changed', message: 'the file $1 has $2 bytes, the checkpoint expects $3', hint: 'restore on the same image and with the files of the checkpoint: the file was changed since' },
  { match: /File (\S+) has bad mode (\S+)(?: \(expect (\S+)\))?/, kind: 'file-changed', message: 'the file $1 has other permissions than at the checkpoint', hint: 'restore on the same image and with the files of the checkpoint' },
  { match: /(?:File (\S+) has bad build-id|[Bb]uild-?[Ii][Dd].*(?:mismatch|differ))/, kind: 'file-changed', message: 'a program or library is not the one of the checkpoint ($1)', hint: 'restore on the same image: an update replaced the file' },
  { match: /Can't open file (\S+) on restore|Can't open (?:file|dir|regular file) (\S+?):? No such file|File (\S+) (?:does not|doesn't) exist|Can't open root's rootfs (\S+)/, kind: 'file-missing', message: 'the file $1$2$3$4, which was open, does not exist', hint: 'restore the root file system and the volumes as they were' },
  { match: /Can't (?:create|open|link) (?:ghost|remap).*?(\/\S+)/i, kind: 'deleted-file', message: 'the deleted but open file $1 cannot be made again', hint: 'its file system must be there and writable' },
  { match: /No entry for reg-file-ID/, kind: 'program', message: 'a program that was started from a memory file cannot be started again', hint: 'start it from a file of the container before the next checkpoint' },
  { match: /prctl\(PR_SET_MM, PR_SET_MM_MAP\) failed with -13/, kind: 'program', message: 'a program of the container may not be executed', hint: 'give its file the execute permission back (chmod +x), and mount its file system without noexec' },
  { match: /No tun device for file (\S+?)$/, kind: 'tun', message: 'the network device $1 (tun) cannot be made again', hint: 'end the VPN or tunnel before a checkpoint, or run it outside the container' },
  { match: /Sysv shmem (\S+) with (?:tail hole|a hole|misordered attach chunks)/, kind: 'shared-memory', message: 'a SysV shared memory segment was mapped in part only', hint: 'let the program attach it as a whole (shmat), or detach it, before the next checkpoint' },
  { match: /^network of the namespace: (.*)$/, kind: 'network', message: 'the addresses, routes and rules of the container\'s own network namespace cannot be brought back: $1', hint: 'are ip, nft and the kernel modules of its interfaces on this node?' },
  { match: /Script (\S+) exited with -1$/, kind: 'limit', message: 'a helper of criu ($1) could not be started', hint: 'is the limit on processes of the container (pids.max) reached? a restore needs room for four more' },
  { match: /Can't find a session leader for (\d+)|Can't figure out which sid \((\d+) or/, kind: 'session', message: 'process $1$2 belongs to a session whose leader has ended, and CRIU cannot put it back there', hint: 'let the program that leads the session live on, or start it by one that stays (setsid --wait, an init); end what was left behind by a daemon' },
  { match: /Unable to reopen the pipe (\S+): No such file/, kind: 'mount', message: 'a pipe cannot be opened again, because the container has no /proc', hint: 'let the container keep /proc mounted' },
  // Processes and namespaces.
  { match: /Pid (\d+) do not match expected (\d+)|Can't fork for (\d+): File exists/, kind: 'pid', message: 'pid $2$3 is taken', hint: 'restore into a pid namespace of its own' },
  { match: /process tree can only be restored in a new pid namespace/, kind: 'pid', message: 'the checkpoint needs a pid namespace of its own', hint: 'give the new container a pid namespace' },
  { match: /ns_last_pid.*(?:Read-only file system|Permission denied)|Can't set .*last_pid|clone3.*set_tid.*(?:EPERM|not permitted)/, kind: 'permission', message: 'the pids of the checkpoint cannot be chosen', hint: 'the agent needs CAP_SYS_ADMIN (or CAP_CHECKPOINT_RESTORE) and a writable /proc' },
  { match: /Can't fork for (\d+): (.*)/, kind: 'pid', message: 'process $1 cannot be made: $2', hint: 'is a limit on processes (pids.max) reached?' },
  { match: /Found slave peer index (\d+) without correspond master peer|tty: (?:Can't|Unable).*/, kind: 'tty', message: 'the checkpoint holds a terminal, which cannot be brought back', hint: 'start the container without a terminal (no -t) before the checkpoint' },
  { match: /Unable to find an external (net|pid)ns: (\S+)/, kind: 'namespace', message: 'the bundle names no $1 namespace, the checkpointed container had one from outside', hint: 'give the new container a $1 namespace with a path' },
  { match: /inherit-fd.*|No (?:inherit(?:ed)?|external).*fd.*(\S+)|Unknown (?:fd|external).*pipe:\[(\d+)\]/i, kind: 'stdio', message: 'a standard descriptor of the container could not be handed over', hint: 'the container\'s output was a pipe: the restore must give it one' },
  // Node.
  { match: /CPU instruction capabilities do not match run time|FPU feature required by image (\S+)? ?is not supported|CPU xsave size mismatch|Can't restore .*xsave|CPU .*(?:not match|mismatch)/, kind: 'cpu', message: 'this processor lacks what the checkpointed program may use', hint: 'restore on a node with the same processor or a newer one of its family' },
  { match: /Missing required plugin: (\S+)/, kind: 'plugin', message: 'the checkpoint needs the CRIU plugin $1', hint: 'install it on this node' },
  { match: /(?:apparmor|AppArmor|selinux|SELinux|lsm).*(?:not found|No such|can't|Can't|doesn't|Unable|invalid)/, kind: 'security-module', message: 'the security profile of the checkpoint cannot be applied here', hint: 'load the same AppArmor profile or SELinux policy on this node' },
  { match: /Unable to mount the cgroup|Can't move \d+ into|Cgroup dir (\S+) doesn't exist|Can't make cgroup dir|cg: Failed writing (\S+)/, kind: 'cgroup', message: 'the cgroups of the checkpoint cannot be made here', hint: 'let the runtime place the processes: for crun, put the line manage-cgroups=ignore into /etc/criu/crun.conf' },
  // Images.
  { match: /Magic doesn't match for (\S+)|Not supported images version (\d+)|Unknown magic/, kind: 'images', message: 'an image file ($1$2) is not one of this criu', hint: 'restore with the criu that made the checkpoint, or a newer one' },
  { match: /Unable to (?:open|read) (?:image|img).*?(\S+\.img)|No (\S+) image|Can't open (?:image )?(\S+\.img)/i, kind: 'images', message: 'an image file ($1$2$3) cannot be read', hint: 'the checkpoint is not whole: stasis verify names the damage' },
  { match: /Missing (\S+) in parent pagemap|No parent for snapshot pagemap/, kind: 'images', message: 'the parent of an incremental checkpoint is missing', hint: 'restore the whole chain' },
  { match: /Unexpected EOF|Can't read .*page.*|Can't restore page/i, kind: 'images', message: 'the memory pages end too early', hint: 'the checkpoint is not whole: stasis verify names the damage' },
  // Lazy restores.
  { match: /connect to (?:lazy-pages\.socket|lazy pages).*failed/i, kind: 'lazy', message: 'the server of lazy pages does not run', hint: 'restore without lazy pages' },
  { match: /Remote side closed connection|Lazy pages transfer .*FAILED/i, kind: 'lazy', message: 'the source of the memory pages went away', hint: 'restore again' },
  { match: /Lazy pages are not (?:permitted|available)|userfaultfd.*(?:not permitted|not available)/i, kind: 'lazy', message: 'this kernel does not allow lazy pages', hint: 'restore without lazy pages, or allow userfaultfd' },
  { match: /No space left on device/, kind: 'space', message: 'a file system is full', hint: 'free space where the root file system, the volumes and the images are' },
  { match: /Disk quota exceeded/, kind: 'space', message: 'a quota is used up', hint: 'raise the quota of the root file system' },
  { match: /Cannot allocate memory|Can't allocate .*memory|Can't (?:mmap|mremap).*memory|\boom\b/i, kind: 'memory', message: 'memory ran out', hint: 'free memory on the node, or raise the memory limit of the new container: criu itself counts towards it during a restore' },
  { match: /Task (\d+) (?:exited|killed|died)|(?:Child|Task) .*(?:exited|killed by signal|died).*|(\d+) (?:exited, status=|killed by signal)/, kind: 'killed', message: 'a process died while it was brought back', hint: 'was it killed for memory? look at the kernel log and the limits of the container' },
];

/** The node itself; the same in both directions. */
export const commonCauses: readonly Cause[] = [
  { match: /vdso: Unexpected rt vDSO area bounds|Failed to fill self vdso symtable/, kind: 'kernel', message: 'this criu is too old for this kernel', hint: 'install criu 4.2 or newer: kernels from 6.13 on need at least 4.1' },
  { match: /Could not initialize kernel features detection/, kind: 'kernel', message: 'criu could not find out what this kernel can do', hint: 'run criu check; remove /run/criu.kdat if criu or the kernel was replaced' },
  { match: /CRIU needs? to have the CAP_SYS_ADMIN|CAP_CHECKPOINT_RESTORE|You need to be root/, kind: 'permission', message: 'criu lacks privileges', hint: 'run the agent as root with CAP_SYS_ADMIN (privileged)' },
  { match: /Can't exec (?:\()?(\S+?)\)?(?::| ).*|Can't run (\S+)|(\S+): (?:command )?not found|Can't find (tar|iptables|nft|ip)\b/, kind: 'tool', message: 'criu could not run $1$2$3$4', hint: 'install it on the node, on the agent\'s PATH (criu needs tar and, for network locks, nftables)' },
  { match: /(?:tar|gzip).*(?:exited|returned|status)|Can't (?:dump|restore) tmpfs content/i, kind: 'tmpfs', message: 'the contents of a tmpfs could not be saved or brought back', hint: 'are tar and gzip installed on the node?' },
  { match: /Read-only file system/, kind: 'read-only', message: 'a file system that criu must write to is read-only', hint: 'mount /proc and the staging directory writable for the agent' },
  { match: /Too many open files/, kind: 'limit', message: 'criu ran out of descriptors', hint: 'raise the limit of open files of the agent (LimitNOFILE)' },
  { match: /Permission denied|Operation not permitted/, kind: 'permission', message: 'criu was denied something it needs', hint: 'run the agent privileged; look for AppArmor, SELinux or seccomp denials in the kernel log' },
];
