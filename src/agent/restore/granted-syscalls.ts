/**
 * Filters of system calls in imported images: CRIU installs them as they are, so they must stop what the bundle's profile
 * stops. Compared for the calls that change more than the container itself; numbers from the kernel's tables.
 */
import { auditArchitectures, passes } from '../../image/criu/index.ts';
import type { ImagePrivileges } from '../../image/criu/index.ts';
import type { OciSpec } from '../../runtime/types.ts';

/** x86_64 and arm64; undefined where there is none. */
const calls: Readonly<Record<string, readonly [number, number | undefined]>> = {
  pivot_root: [155, 41], acct: [163, 89], settimeofday: [164, 170], mount: [165, 40], umount2: [166, 39], swapon: [167, 224], swapoff: [168, 225], reboot: [169, 142],
  iopl: [172, undefined], ioperm: [173, undefined], init_module: [175, 105], delete_module: [176, 106], quotactl: [179, 60], clock_settime: [227, 112], kexec_load: [246, 104],
  add_key: [248, 217], request_key: [249, 218], keyctl: [250, 219], unshare: [272, 97], perf_event_open: [298, 241], fanotify_init: [300, 262], open_by_handle_at: [304, 265],
  setns: [308, 268], process_vm_readv: [310, 270], process_vm_writev: [311, 271], finit_module: [313, 273], kexec_file_load: [320, 294], bpf: [321, 280], userfaultfd: [323, 282],
  ptrace: [101, 117], syslog: [103, 116], io_uring_setup: [425, 425], open_tree: [428, 428], move_mount: [429, 429], fsopen: [430, 430], fsconfig: [431, 431], fsmount: [432, 432],
  fspick: [433, 433], mount_setattr: [442, 442],
};

interface Profile {
  readonly defaultAction?: string;
  readonly syscalls?: readonly { readonly names?: readonly string[]; readonly action?: string; readonly args?: readonly unknown[] }[];
}

/** Actions after which the call goes ahead, or may. */
const passing = new Set(['SCMP_ACT_ALLOW', 'SCMP_ACT_LOG', 'SCMP_ACT_TRACE', 'SCMP_ACT_NOTIFY']);

export function* filterReasons({ threads, filters }: ImagePrivileges, { linux }: OciSpec): Generator<string> {
  const profile = linux?.['seccomp'] as Profile | undefined;
  const architecture = auditArchitectures[process.arch];
  if (profile === undefined || architecture === undefined) return;
  const stopped = Object.entries(calls).filter(([name]) => isStopped(profile, name));
  const judged = new Map<number, string[]>();
  for (const { image, filter } of threads) {
    if (filter === undefined) {
      yield `${image} has no seccomp filter`;
      continue;
    }
    const free = judged.get(filter) ?? stopped.filter(([, numbers]) => {
      const number = numbers[process.arch === 'x64' ? 0 : 1];
      return number !== undefined && chain(filters, filter).every((program) => passes(program, architecture, number));
    }).map(([name]) => name);
    judged.set(filter, free);
    if (free.length > 0) yield `the seccomp filter of ${image} lets ${free.slice(0, 4).join(', ')} pass`;
  }
}

function isStopped({ defaultAction = '', syscalls = [] }: Profile, name: string): boolean {
  const rules = syscalls.filter(({ names = [] }) => names.includes(name));
  if (rules.some(({ action = '' }) => passing.has(action))) return false;
  return !passing.has(defaultAction) || rules.some(({ args = [] }) => args.length === 0);
}

/** A filter and all that were installed before it. */
function chain(filters: ImagePrivileges['filters'], last: number): Uint8Array[] {
  const programs: Uint8Array[] = [];
  const seen = new Set<number>();
  for (let at: number | undefined = last; at !== undefined && !seen.has(at); at = filters[at]?.previous) {
    seen.add(at);
    const filter = filters[at];
    if (filter !== undefined) programs.push(filter.program);
  }
  return programs;
}
