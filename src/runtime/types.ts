/** What Stasis needs of a container runtime, and what it knows of a container. */
import type { ContainerId } from '../core/ids.ts';

export type RuntimeName = 'runc' | 'crun';

/**
 * A runtime binary with one of its state directories ("/run/runc", "/run/crun"). Where containers are looked for, a
 * "*" in the last part stands for any name: "/run/containerd/runc/*".
 */
export interface RuntimeRoot {
  readonly runtime: RuntimeName;
  /** Path of the binary. */
  readonly binary: string;
  /** The `--root` of that binary. */
  readonly root: string;
}

export type ContainerStatus = 'created' | 'running' | 'paused' | 'stopped';

/** The parts of an OCI config.json that Stasis reads; everything else is carried along untouched. */
export interface OciSpec {
  readonly root?: { readonly path: string; readonly readonly?: boolean };
  readonly hostname?: string;
  readonly process?: { readonly terminal?: boolean; readonly args?: readonly string[]; readonly cwd?: string };
  readonly mounts?: readonly { readonly destination: string; readonly type?: string; readonly source?: string; readonly options?: readonly string[] }[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly linux?: {
    readonly cgroupsPath?: string;
    readonly namespaces?: readonly { readonly type: string; readonly path?: string }[];
    readonly [key: string]: unknown;
  };
  readonly [key: string]: unknown;
}

export interface Container {
  readonly id: ContainerId;
  readonly at: RuntimeRoot;
  readonly status: ContainerStatus;
  /** Host pid of the container's first process, and its start time in clock ticks (/proc/PID/stat field 22). 0 when stopped. */
  readonly pid: number;
  readonly pidStart: number;
  readonly bundle: string;
  readonly createdMs: number;
  readonly spec: OciSpec;
  /** containerd, podman, cri-o, or plain when nobody of these made it. */
  readonly manager: 'plain' | 'containerd' | 'podman' | 'cri-o';
  /** Name a person would use: podman's or Kubernetes' container name, else the id. */
  readonly name: string;
  /** The image that its manager made it from, where the manager tells. */
  readonly image?: { readonly name: string; readonly id?: string };
  /** Absolute directory of the container's cgroup on this node: in the v1 freezer hierarchy, or in the v2 one. */
  readonly freezer: { readonly version: 1 | 2; readonly directory: string } | undefined;
  readonly rootfs: Rootfs;
  /** What its standard descriptors 0, 1 and 2 were when it was looked at, as /proc names them. */
  readonly standard?: readonly string[];
}

/** How the container's root file system is made, read from its own mountinfo. */
export type Rootfs =
  | { readonly kind: 'overlay'; readonly merged: string; readonly lower: readonly string[]; readonly upper: string; readonly work: string; readonly options: readonly string[] }
  | { readonly kind: 'plain'; readonly path: string };

/** One reason why a checkpoint would fail or lose something. `fatal` ones refuse it. */
export interface Finding {
  readonly severity: 'fatal' | 'warning';
  /** Stable word: io_uring, device, external-unix-socket, nested-namespace, tty, kernel, criu, memory, space, traced, … */
  readonly kind: string;
  /** What is wrong, in which process ("pid 7 (redis-server) uses io_uring, descriptor 12"). */
  readonly message: string;
  readonly hint: string;
  readonly pid?: number;
}

export interface MemoryEstimate {
  /** Private and shared resident bytes of all processes: about what a dump will hold. */
  readonly bytes: number;
  /** Of these, what is shared or in files in memory: a restore has it in place before anything runs. */
  readonly shared: number;
  readonly processes: number;
}

/** A mount in memory that CRIU leaves out because it is a bind mount (/dev/shm of podman, an emptyDir): Stasis saves its files. */
export interface Volume {
  /** Mount point inside the container. */
  readonly destination: string;
  /** Directory on the node. */
  readonly source: string;
  readonly fstype: string;
}

/** Options in the words of mountinfo (proc_pid_mountinfo(5)). */
export interface VolumeMount {
  /** nosuid, nodev, noexec: those that the container's mount has. */
  readonly flags: readonly string[];
  /** Of the file system: "size=65536k", "nr_inodes=1024", "mode=700", "uid=1000". */
  readonly options: readonly string[];
}

/** A directory of the node in which criu may make a name: `directory` below `root`, "." for itself. */
export interface NamelessPlace {
  readonly root: string;
  readonly directory: string;
}

export interface Verdict {
  readonly checkpointable: boolean;
  readonly findings: readonly Finding[];
  readonly memory: MemoryEstimate;
  readonly volumes: readonly Volume[];
  /** What the container is made of, sorted: another list calls for another rehearsal. */
  readonly shape: readonly string[];
  /** Paths in the container's root of watched files, which CRIU must be told: CriuConfigOptions.watched. */
  readonly watched?: readonly string[];
  /** Where names of criu's may be left when it is killed, beside the trees that are saved. */
  readonly nameless?: readonly NamelessPlace[];
}

/** Options of one checkpoint; names follow podman. */
export interface CheckpointFlags {
  readonly leaveRunning: boolean;
  readonly tcpEstablished: boolean;
  readonly fileLocks: boolean;
  readonly extUnixSk: boolean;
  readonly shellJob: boolean;
  /** Leave out TCP connections that nobody has accepted yet: their peers see a reset. */
  readonly tcpSkipInFlight?: boolean;
}

export interface DumpRequest {
  readonly container: Container;
  readonly flags: CheckpointFlags;
  /** Existing private directories (0700): images, and CRIU's log and statistics. */
  readonly imageDir: string;
  readonly workDir: string;
  /** "127.0.0.1:port" of a page server: memory goes there instead of the image directory (runc only). */
  readonly pageServer: string | undefined;
  /** Path of a CRIU configuration file for this operation (see criu-config.ts), given by CRIU_CONFIG_FILE. */
  readonly criuConfig: string;
  /** Goes into the environment of the runtime and its hooks, for whoever reads their logs; processes are found by their session. */
  readonly operationId: string;
  /** Only memory is written, and the container goes on: a round before the dump. */
  readonly preDump?: boolean;
  /** The image directory of the round before, relative to this one ("../pre-1"): pages that did not change since are left out. */
  readonly parent?: string | undefined;
  /** Where the post-dump hook meets the guard; in the environment as STASIS_GUARD_DIR. */
  readonly guardDirectory?: string;
}

export interface DumpResult {
  /** CRIU's statistics (absent when the post-dump hook refused). */
  readonly statsPath: string;
  readonly logPath: string;
  /**
   * The tasks go on although the caller did not ask for it: runc before 1.2 would throw the container away even when
   * its dump failed, so it is told to leave it, and the caller kills and removes it after the commit.
   */
  readonly leftRunning: boolean;
}

export interface DumpStats {
  readonly freezingUs: number;
  readonly frozenUs: number;
  readonly memdumpUs: number;
  readonly memwriteUs: number;
  readonly pagesScanned: number;
  readonly pagesWritten: number;
  readonly pagesLazy: number;
}

export interface RestoreRequest {
  readonly at: RuntimeRoot;
  readonly id: ContainerId;
  readonly bundle: string;
  readonly imageDir: string;
  readonly workDir: string;
  readonly flags: { readonly tcpEstablished: boolean; readonly tcpClose: boolean; readonly fileLocks: boolean; readonly extUnixSk: boolean; readonly shellJob: boolean };
  readonly criuConfig: string;
  readonly operationId: string;
  readonly pidFile: string;
  /** Where the container's stdout and stderr go when they were pipes: files that a small pump process appends to. */
  readonly stdout: string;
  readonly stderr: string;
  /** What stasis-network brings back in the container's own network namespace. */
  readonly networkDirectory?: string | undefined;
  /** The saved container had a cgroup namespace of its own: so has the restored one, whatever its bundle says. */
  readonly cgroupNamespace?: boolean;
  /** Leave pages that may come later to a criu lazy-pages that waits in the same working directory (runc only). */
  readonly lazyPages?: boolean;
  /** A stranger wrote the images. */
  readonly imported?: boolean;
  /** Of a RestoreGate; given when criuConfig names deploy/libexec/stasis-restore-hook. */
  readonly gateDirectory?: string;
}

/** Versions and abilities of what is installed; probed once, cached by the agent. */
export interface Toolchain {
  readonly criu: { readonly version: readonly [number, number, number]; readonly text: string };
  readonly kernel: string;
  readonly runtimes: readonly { readonly name: RuntimeName; readonly binary: string; readonly version: string; readonly versionNumbers: readonly [number, number, number] }[];
  /**
   * `criu check --feature` results by name; bpf_maps: whether criu was built to save BPF maps; tar_attributes: whether
   * tar keeps what stands beside files.
   */
  readonly features: Readonly<Record<string, boolean>>;
  /** The result of plain `criu check`: empty when "Looks good". */
  readonly problems: readonly string[];
}
