/**
 * Images of a stranger's may only bring back what the operator's bundle grants: CRIU itself would give the processes
 * whatever capabilities, mounts and namespaces the images name.
 */
import { existsSync } from 'node:fs';
import { StasisError } from '../../core/errors.ts';
import type { ImagePrivileges, NamespaceName } from '../../image/criu/index.ts';
import type { OciSpec } from '../../runtime/types.ts';

/** By number (linux/capability.h). */
const capabilities = [
  'CHOWN', 'DAC_OVERRIDE', 'DAC_READ_SEARCH', 'FOWNER', 'FSETID', 'KILL', 'SETGID', 'SETUID', 'SETPCAP', 'LINUX_IMMUTABLE', 'NET_BIND_SERVICE', 'NET_BROADCAST', 'NET_ADMIN', 'NET_RAW',
  'IPC_LOCK', 'IPC_OWNER', 'SYS_MODULE', 'SYS_RAWIO', 'SYS_CHROOT', 'SYS_PTRACE', 'SYS_PACCT', 'SYS_ADMIN', 'SYS_BOOT', 'SYS_NICE', 'SYS_RESOURCE', 'SYS_TIME', 'SYS_TTY_CONFIG', 'MKNOD',
  'LEASE', 'AUDIT_WRITE', 'AUDIT_CONTROL', 'SETFCAP', 'MAC_OVERRIDE', 'MAC_ADMIN', 'SYSLOG', 'WAKE_ALARM', 'BLOCK_SUSPEND', 'AUDIT_READ', 'PERFMON', 'BPF', 'CHECKPOINT_RESTORE',
].map((name) => `CAP_${name}`);

type Capabilities = Readonly<Record<string, readonly string[] | undefined>>;

/** Throws RESTORE_INCOMPATIBLE with everything that the images have and the bundle does not grant. */
export function requireGranted(images: ImagePrivileges, bundle: OciSpec): void {
  const reasons = [...new Set([...credentials(images, bundle), ...mounts(images, bundle), ...namespaces(images, bundle)])];
  if (reasons.length === 0) return;
  throw new StasisError('RESTORE_INCOMPATIBLE', `the imported images ask for more than the bundle grants: ${reasons.slice(0, 5).join('; ')}${reasons.length > 5 ? `; and ${reasons.length - 5} more` : ''}`, {
    hint: 'give a bundle that grants it, if the container shall have it; else do not restore this archive', details: { reasons: reasons.length },
  });
}

function* credentials({ threads }: ImagePrivileges, { process: program, linux }: OciSpec): Generator<string> {
  const granted = (program as { readonly capabilities?: Capabilities } | undefined)?.capabilities ?? {};
  const allowed = mask(Object.values(granted).flatMap((set) => set ?? []));
  const bounding = mask(granted['bounding'] ?? []);
  const filtered = linux?.['seccomp'] !== undefined;
  const noNew = (program as { readonly noNewPrivileges?: boolean } | undefined)?.noNewPrivileges === true;
  for (const thread of threads) {
    const extra = (thread.held & ~allowed) | (thread.bounding & ~bounding);
    if (extra !== 0n) yield `${thread.image} has ${names(extra)}`;
    if (filtered && !thread.seccomp) yield `${thread.image} has no seccomp filter`;
    if (noNew && !thread.noNewPrivileges) yield `${thread.image} may gain privileges`;
  }
}

function mask(names: readonly string[]): bigint {
  return names.reduce((all, name) => (capabilities.includes(name) ? all | (1n << BigInt(capabilities.indexOf(name))) : all), 0n);
}

function names(set: bigint): string {
  const list = capabilities.filter((_, i) => (set & (1n << BigInt(i))) !== 0n);
  return set >> BigInt(capabilities.length) === 0n ? list.join(', ') : [...list, 'capabilities without a name'].join(', ');
}

function* mounts(images: ImagePrivileges, bundle: OciSpec): Generator<string> {
  const granted = new Map((bundle.mounts ?? []).map((mount) => [mount.destination.replace(/(?<=.)\/+$/, ''), mount]));
  const hidden = paths(bundle, 'maskedPaths');
  const readOnly = paths(bundle, 'readonlyPaths');
  for (const mount of images.mounts) {
    const { mountpoint, type } = mount;
    if (mount.plugin) yield `${mountpoint} is mounted by a plugin`;
    // The root and bind mounts: their sources come from the bundle.
    if (mountpoint === '/' || mount.external || hidden.has(mountpoint) || readOnly.has(mountpoint)) continue;
    const given = granted.get(mountpoint);
    // runc mounts the controllers of cgroup version 1 below the one place that the bundle names.
    if (given === undefined && (type === 'cgroup' || type === 'tmpfs') && mountpoint.startsWith('/sys/fs/cgroup/') && granted.has('/sys/fs/cgroup')) continue;
    if (given === undefined) yield `it mounts ${type} at ${printable(mountpoint)}`;
    else if (!sameType(type, given.type ?? '')) yield `it mounts ${type} at ${printable(mountpoint)}, the bundle ${given.type}`;
    // The tmpfs that holds the controllers of cgroup version 1 has nothing but mount points.
    else if ((given.options ?? []).includes('ro') && !mount.readOnly && mountpoint !== '/sys/fs/cgroup') yield `${printable(mountpoint)} is writable`;
  }
  const mounted = new Set(images.mounts.map(({ mountpoint }) => mountpoint));
  const writable = new Set(images.mounts.filter((mount) => !mount.readOnly).map(({ mountpoint }) => mountpoint));
  for (const path of hidden) if (!mounted.has(path) && existsSync(path)) yield `${path} is not masked`;
  for (const path of readOnly) if ((!mounted.has(path) || writable.has(path)) && existsSync(path)) yield `${path} is not read-only`;
}

/** Only what lies in file systems of the kernel: elsewhere the image of the container decides what there is to be masked. */
function paths({ linux }: OciSpec, key: 'maskedPaths' | 'readonlyPaths'): Set<string> {
  const list = linux?.[key];
  return new Set(Array.isArray(list) ? list.filter((path): path is string => typeof path === 'string' && /^\/(proc|sys)\//.test(path)) : []);
}

/** A cgroup mount is of the version that the node has. */
function sameType(image: string, given: string): boolean {
  if (given === 'cgroup' || given === 'cgroup2') return image === 'cgroup' || image === 'cgroup2' || image === 'tmpfs';
  return image === given;
}

const ociNames: Readonly<Record<NamespaceName, string>> = { pid: 'pid', network: 'network', ipc: 'ipc', uts: 'uts', mount: 'mount', user: 'user', cgroup: 'cgroup' };

function* namespaces(images: ImagePrivileges, { linux }: OciSpec): Generator<string> {
  const wanted = new Set((linux?.namespaces ?? []).map(({ type }) => type));
  for (const [name, oci] of Object.entries(ociNames)) {
    if (wanted.has(oci) && !images.namespaces.has(name as NamespaceName)) yield `its processes have no ${name} namespace of their own`;
  }
}

function printable(text: string): string {
  return JSON.stringify(text.slice(0, 200)).replaceAll(/[\p{Cf}\p{Cs}]/gu, '?');
}
