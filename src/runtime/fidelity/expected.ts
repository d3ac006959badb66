/**
 * What a container of a bundle may be at most: the other side of the comparison where nobody vouches for the images. It is
 * held against the result, whatever the images claimed and whatever was judged of them before.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { mountOf, readMountinfo, type Mount } from '../../host/mountinfo.ts';
import type { OciSpec } from '../types.ts';
import { valueOf } from './compare.ts';
import type { Difference, FidelityRecord } from './types.ts';

/** By number (linux/capability.h). */
const CAPABILITIES = [
  'CHOWN', 'DAC_OVERRIDE', 'DAC_READ_SEARCH', 'FOWNER', 'FSETID', 'KILL', 'SETGID', 'SETUID', 'SETPCAP', 'LINUX_IMMUTABLE', 'NET_BIND_SERVICE', 'NET_BROADCAST', 'NET_ADMIN', 'NET_RAW',
  'IPC_LOCK', 'IPC_OWNER', 'SYS_MODULE', 'SYS_RAWIO', 'SYS_CHROOT', 'SYS_PTRACE', 'SYS_PACCT', 'SYS_ADMIN', 'SYS_BOOT', 'SYS_NICE', 'SYS_RESOURCE', 'SYS_TIME', 'SYS_TTY_CONFIG', 'MKNOD',
  'LEASE', 'AUDIT_WRITE', 'AUDIT_CONTROL', 'SETFCAP', 'MAC_OVERRIDE', 'MAC_ADMIN', 'SYSLOG', 'WAKE_ALARM', 'BLOCK_SUSPEND', 'AUDIT_READ', 'PERFMON', 'BPF', 'CHECKPOINT_RESTORE',
];

/** The parts of config.json's process that grant something. */
interface Program {
  readonly capabilities?: Readonly<Record<string, readonly string[] | undefined>>;
  readonly noNewPrivileges?: boolean;
}

/** config.json's words for namespaces, and those of /proc/PID/ns. */
const NAMESPACE_NAMES: Readonly<Record<string, string>> = { pid: 'pid', network: 'net', ipc: 'ipc', uts: 'uts', mount: 'mnt', user: 'user', cgroup: 'cgroup', time: 'time' };

/** Options of a mount that take something away from the container. */
const RESTRICTIONS = ['ro', 'nosuid', 'nodev', 'noexec'] as const;

function mask(names: readonly string[] = []): bigint {
  return names.reduce((all, name) => {
    const number = CAPABILITIES.indexOf(name.replace(/^CAP_/, ''));
    return number < 0 ? all : all | (1n << BigInt(number));
  }, 0n);
}

/** `pid`: the container's first process, by its number on the node. In what it differs from what the bundle grants. */
export function unlike(spec: OciSpec, is: FidelityRecord, pid: number): Difference[] {
  const mounts = readMountinfo(pid);
  const root = `/proc/${pid}/root`;
  return [...privileges(spec, is), ...namespaces(spec, is), ...specMounts(spec, mounts), ...cgroupMounts(spec, mounts), ...protectedPaths(spec, mounts, root)];
}

function* privileges({ process, linux }: OciSpec, is: FidelityRecord): Generator<Difference> {
  const { capabilities = {}, noNewPrivileges } = (process ?? {}) as Program;
  const all = mask(Object.values(capabilities).flatMap((set) => set ?? []));
  const bounding = mask(capabilities['bounding']);
  for (const subject of [...is.tasks, ...is.threads]) {
    for (const set of ['inheritable', 'permitted', 'effective', 'bounding', 'ambient']) {
      const attribute = `capabilities-${set}`;
      const value = valueOf(is, attribute, subject) ?? '';
      const most = set === 'bounding' ? bounding : all;
      if (value === '' || (BigInt(`0x${value}`) & ~most) !== 0n) yield { attribute, subject, was: most.toString(16).padStart(16, '0'), is: value };
    }
    if (noNewPrivileges === true && valueOf(is, 'no-new-privileges', subject) !== '1') yield { attribute: 'no-new-privileges', subject, was: '1', is: valueOf(is, 'no-new-privileges', subject) };
    if (linux?.['seccomp'] === undefined) continue;
    if (!['1', '2'].includes(valueOf(is, 'seccomp', subject) ?? '')) yield { attribute: 'seccomp', subject, was: '2', is: valueOf(is, 'seccomp', subject) };
  }
}

function* namespaces({ linux }: OciSpec, is: FidelityRecord): Generator<Difference> {
  for (const { type, path } of linux?.namespaces ?? []) {
    const name = NAMESPACE_NAMES[type];
    if (name === undefined || (path ?? '') !== '') continue;
    const attribute = `namespace-${name}`;
    for (const subject of is.tasks) if (valueOf(is, attribute, subject) === 'node') yield { attribute, subject, was: 'of its own', is: 'node' };
  }
}

function has(mount: Mount, option: string): boolean {
  return mount.options.includes(option) || (option === 'ro' && mount.superOptions.includes('ro'));
}

function clean(path: string): string {
  return path.length > 1 ? path.replace(/\/+$/, '') : path;
}

/** Every mount at a mount point of the bundle, however many are stacked there, is at most what the bundle says. */
function* specMounts({ mounts = [], root }: OciSpec, found: readonly Mount[]): Generator<Difference> {
  if (root?.readonly === true) for (const mount of found.filter(({ mountPoint }) => mountPoint === '/')) if (!has(mount, 'ro')) yield { attribute: 'mount-options', subject: '/', was: 'ro', is: mount.options.join(',') };
  const last = new Map(mounts.map((mount) => [clean(mount.destination), mount]));
  for (const [destination, { type, options = [] }] of last) {
    for (const mount of found.filter(({ mountPoint }) => mountPoint === destination)) {
      // Of cgroup v1 that is a writable tmpfs of the container's own, with the controllers below it.
      if (type === 'cgroup' && mount.fsType === 'tmpfs') continue;
      const lacking = RESTRICTIONS.filter((option) => options.includes(option) && !has(mount, option));
      if (lacking.length > 0) yield { attribute: 'mount-options', subject: destination, was: options.join(','), is: mount.options.join(',') };
    }
  }
}

/** The controllers of cgroup v1 are mounts below the one that the bundle names. */
function* cgroupMounts({ mounts = [] }: OciSpec, found: readonly Mount[]): Generator<Difference> {
  const granted = mounts.filter(({ type }) => type === 'cgroup' || type === 'cgroup2');
  for (const mount of found.filter(({ fsType }) => fsType === 'cgroup' || fsType === 'cgroup2')) {
    const by = granted.find(({ destination }) => mount.mountPoint === clean(destination) || mount.mountPoint.startsWith(`${clean(destination)}/`));
    // A bind mount of a directory may bring cgroups with it; then its own options were judged.
    const bound = mounts.some(({ destination, type }) => type !== 'cgroup' && type !== 'cgroup2' && (mount.mountPoint === clean(destination) || mount.mountPoint.startsWith(`${clean(destination)}/`)));
    if (by === undefined && !bound) yield { attribute: 'mount', subject: mount.mountPoint, was: undefined, is: mount.fsType };
    else if (by?.options?.includes('ro') === true && !has(mount, 'ro')) yield { attribute: 'mount-options', subject: mount.mountPoint, was: by.options.join(','), is: mount.options.join(',') };
  }
}

function strings(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item): item is string => typeof item === 'string') : [];
}

/** Runtimes pass over paths that do not exist. */
function* protectedPaths({ linux }: OciSpec, found: readonly Mount[], root: string): Generator<Difference> {
  for (const path of strings(linux?.['maskedPaths']).map(clean)) {
    if (existsSync(join(root, path)) && !found.some(({ mountPoint }) => mountPoint === path)) yield { attribute: 'mount', subject: path, was: 'masked', is: undefined };
  }
  for (const path of strings(linux?.['readonlyPaths']).map(clean)) {
    const mount = mountOf(found, path);
    if (existsSync(join(root, path)) && mount !== undefined && !has(mount, 'ro')) yield { attribute: 'mount-options', subject: path, was: 'ro', is: mount.options.join(',') };
  }
}
