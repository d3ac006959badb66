/** Who the threads of imported images may be, and what they may do and take: no more than the program of the bundle could. */
import type { ImagePrivileges, ThreadPrivileges } from '../../image/criu/index.ts';
import type { OciSpec } from '../../runtime/types.ts';

/** By number (linux/capability.h). */
const capabilities = [
  'CHOWN', 'DAC_OVERRIDE', 'DAC_READ_SEARCH', 'FOWNER', 'FSETID', 'KILL', 'SETGID', 'SETUID', 'SETPCAP', 'LINUX_IMMUTABLE', 'NET_BIND_SERVICE', 'NET_BROADCAST', 'NET_ADMIN', 'NET_RAW',
  'IPC_LOCK', 'IPC_OWNER', 'SYS_MODULE', 'SYS_RAWIO', 'SYS_CHROOT', 'SYS_PTRACE', 'SYS_PACCT', 'SYS_ADMIN', 'SYS_BOOT', 'SYS_NICE', 'SYS_RESOURCE', 'SYS_TIME', 'SYS_TTY_CONFIG', 'MKNOD',
  'LEASE', 'AUDIT_WRITE', 'AUDIT_CONTROL', 'SETFCAP', 'MAC_OVERRIDE', 'MAC_ADMIN', 'SYSLOG', 'WAKE_ALARM', 'BLOCK_SUSPEND', 'AUDIT_READ', 'PERFMON', 'BPF', 'CHECKPOINT_RESTORE',
].map((name) => `CAP_${name}`);

/** By number (asm-generic/resource.h). */
const resources = ['CPU', 'FSIZE', 'DATA', 'STACK', 'CORE', 'RSS', 'NPROC', 'NOFILE', 'MEMLOCK', 'AS', 'LOCKS', 'SIGPENDING', 'MSGQUEUE', 'NICE', 'RTPRIO', 'RTTIME'].map((name) => `RLIMIT_${name}`);

/** The parts of config.json's process that grant something. */
interface Program {
  readonly user?: { readonly uid?: number; readonly gid?: number; readonly additionalGids?: readonly number[] };
  readonly capabilities?: Readonly<Record<string, readonly string[] | undefined>>;
  readonly noNewPrivileges?: boolean;
  readonly apparmorProfile?: string;
  readonly selinuxLabel?: string;
  readonly rlimits?: readonly { readonly type: string; readonly hard: number }[];
  readonly oomScoreAdj?: number;
  readonly scheduler?: unknown;
}

export function* credentialReasons({ threads }: ImagePrivileges, { process, linux }: OciSpec): Generator<string> {
  const program = (process ?? {}) as Program;
  const filtered = linux?.['seccomp'] !== undefined;
  const noNew = program.noNewPrivileges === true;
  for (const thread of threads) {
    const extra = extraCapabilities(thread, program);
    if (extra !== 0n) yield `${thread.image} has ${names(extra)}`;
    if (filtered && !thread.seccomp) yield `${thread.image} has no seccomp filter`;
    if (noNew && !thread.noNewPrivileges) yield `${thread.image} may gain privileges`;
    yield* identity(thread, program);
    yield* label(thread, program);
    yield* resourcesOf(thread, program);
  }
}

/** Whoever cannot gain privileges never gets what is only in the bounding set. */
function granted({ capabilities: sets = {}, noNewPrivileges }: Program, { bounding }: { bounding: boolean }): bigint {
  return mask(Object.entries(sets).flatMap(([name, set]) => (name !== 'bounding' || (bounding && noNewPrivileges !== true) ? (set ?? []) : [])));
}

function extraCapabilities(thread: ThreadPrivileges, program: Program): bigint {
  return (thread.held & ~granted(program, { bounding: true })) | (thread.bounding & ~mask(program.capabilities?.['bounding'] ?? []));
}

function mask(list: readonly string[]): bigint {
  return list.reduce((all, name) => (capabilities.includes(name) ? all | (1n << BigInt(capabilities.indexOf(name))) : all), 0n);
}

const may = (program: Program, capability: string): boolean => (granted(program, { bounding: true }) & mask([capability])) !== 0n;

function names(set: bigint): string {
  const list = capabilities.filter((_, i) => (set & (1n << BigInt(i))) !== 0n);
  return set >> BigInt(capabilities.length) === 0n ? list.join(', ') : [...list, 'capabilities without a name'].join(', ');
}

/** A program can change its user and groups only with a capability, or by a program that has one. */
function* identity({ image, users, groups }: ThreadPrivileges, program: Program): Generator<string> {
  const { uid = 0, gid = 0, additionalGids = [] } = program.user ?? {};
  const user = users.find((one) => one !== uid);
  if (user !== undefined && !may(program, 'CAP_SETUID')) yield `${image} is user ${user}, the bundle's is ${uid}`;
  const group = groups.find((one) => one !== gid && !additionalGids.includes(one));
  if (group !== undefined && !may(program, 'CAP_SETGID')) yield `${image} is in group ${group}`;
}

function* label({ image, securityLabel }: ThreadPrivileges, { apparmorProfile = '', selinuxLabel = '' }: Program): Generator<string> {
  const wanted = apparmorProfile === '' ? selinuxLabel : apparmorProfile;
  if (wanted !== '' && securityLabel !== wanted) yield `${image} runs as ${JSON.stringify(securityLabel.slice(0, 100))}, the bundle says ${JSON.stringify(wanted)}`;
}

function* resourcesOf({ image, limits = [], oomScoreAdjustment, nice, realtime }: ThreadPrivileges, program: Program): Generator<string> {
  if (!may(program, 'CAP_SYS_RESOURCE')) {
    for (const { type, hard } of program.rlimits ?? []) {
      const limit = limits[resources.indexOf(type)];
      // JSON's numbers have 53 bits; what is beyond is "unlimited".
      if (limit !== undefined && Number(limit) > hard) yield `${image} has a ${type} of ${Number(limit) > Number.MAX_SAFE_INTEGER ? 'unlimited' : limit}, the bundle's is ${hard}`;
    }
    if (oomScoreAdjustment !== undefined && oomScoreAdjustment < (program.oomScoreAdj ?? 0)) yield `${image} has an OOM score of ${oomScoreAdjustment}`;
  }
  if (!may(program, 'CAP_SYS_NICE')) {
    // What a program may ask for later. Other limits that the bundle leaves out are those of the engine, whatever they are there.
    for (const type of ['RLIMIT_NICE', 'RLIMIT_RTPRIO']) {
      const limit = limits[resources.indexOf(type)] ?? 0n;
      if (limit > 0n && !(program.rlimits ?? []).some((rlimit) => rlimit.type === type)) yield `${image} has a ${type} of ${limit}`;
    }
  }
  if (!may(program, 'CAP_SYS_NICE') && program.scheduler === undefined && (realtime || nice < 0)) yield `${image} goes before others: ${realtime ? 'a real-time scheduler' : `nice ${nice}`}`;
}
