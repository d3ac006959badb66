/**
 * Reading /proc (proc(5)). Everything here is about processes that may end at any moment: a process that is
 * gone gives `undefined` or nothing, never an exception.
 *
 * The calls are synchronous because procfs answers from memory. Files that need the memory lock of the
 * process (maps, environ, cmdline, smaps) can block behind a process in state D, so those are read
 * asynchronously, in a thread of the pool.
 */
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { errnoCode } from '../core/errors.ts';

export interface ProcStat {
  readonly pid: number;
  /** The program's name as the kernel keeps it, at most 15 bytes; chosen by the process, so not to be trusted. */
  readonly comm: string;
  /** R, S, D, T (stopped), t (traced), Z, X, I. */
  readonly state: string;
  readonly ppid: number;
  /** Process group. */
  readonly group: number;
  readonly session: number;
  /** Device number of the controlling terminal, 0 for none. */
  readonly tty: number;
  /** Process group in the foreground of that terminal, -1 for none. */
  readonly foreground: number;
  readonly threads: number;
  /** Processor time in clock ticks, with that of its children that have ended. */
  readonly ticks: number;
  /** Clock ticks since boot; with the pid it names a process for ever. */
  readonly startTime: number;
}

export interface Descriptor {
  readonly fd: number;
  /** What readlink says: a path, "socket:[1]", "pipe:[2]", "anon_inode:[eventpoll]". */
  readonly target: string;
}

export interface CgroupEntry {
  /** 0 for version 2. */
  readonly hierarchy: number;
  readonly controllers: readonly string[];
  readonly path: string;
}

const namespaceNames = ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'time', 'user', 'uts'] as const;
export type NamespaceName = (typeof namespaceNames)[number];
export type Namespaces = Readonly<Partial<Record<NamespaceName, string>>>;

const GONE: ReadonlySet<string | undefined> = new Set(['ENOENT', 'ESRCH', 'EACCES', 'EPERM', 'EINVAL', 'ENOTDIR']);

/** The result of a read, undefined when the process went away meanwhile or does not let itself be read. */
function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (GONE.has(errnoCode(error))) return undefined;
    throw error;
  }
}

/** A whole file below /proc, for instance `readProc(7, 'cgroup')`. */
export function readProc(pid: number | 'self' | 'thread-self', file: string): string | undefined {
  return unlessGone(() => readFileSync(`/proc/${pid}/${file}`, 'utf8'));
}

/** The comm field may hold blanks and brackets: the fields begin after its last ")". */
export function parseStat(text: string): ProcStat | undefined {
  const open = text.indexOf('(');
  const close = text.lastIndexOf(')');
  if (open < 0 || close < open) return undefined;
  const field = text.slice(close + 2).trim().split(' ');
  const number = (index: number): number => Number(field[index]);
  if (field.length < 20) return undefined;
  return {
    pid: Number.parseInt(text, 10),
    comm: text.slice(open + 1, close),
    state: field[0] ?? '',
    ppid: number(1),
    group: number(2),
    session: number(3),
    tty: number(4),
    foreground: number(5),
    threads: number(17),
    ticks: number(11) + number(12) + number(13) + number(14),
    startTime: number(19),
  };
}

export function readStat(pid: number): ProcStat | undefined {
  const text = readProc(pid, 'stat');
  return text === undefined ? undefined : parseStat(text);
}

/** Its threads, itself among them. */
export function listThreads(pid: number): number[] {
  return (unlessGone(() => readdirSync(`/proc/${pid}/task`)) ?? []).map(Number);
}

/** Of all its threads: each has its own. */
export function listChildren(pid: number): number[] {
  const lists = listThreads(pid).map((tid) => readProc(pid, `task/${tid}/children`) ?? '');
  return lists.flatMap((list) => list.split(' ').filter((text) => text.trim() !== '').map(Number));
}

/** The state letter of every thread, at most `limit` of them. */
export function threadStates(pid: number, limit: number): string[] {
  return listThreads(pid).slice(0, limit).flatMap((tid) => {
    const text = unlessGone(() => readFileSync(`/proc/${pid}/task/${tid}/stat`, 'utf8'));
    const stat = text === undefined ? undefined : parseStat(text);
    return stat === undefined ? [] : [stat.state];
  });
}

/** Whether this very process (not a later one with its number) exists and is not a zombie. */
export function processAlive(pid: number, startTime: number): boolean {
  const stat = pid > 0 ? readStat(pid) : undefined;
  return stat !== undefined && stat.startTime === startTime && stat.state !== 'Z' && stat.state !== 'X';
}

/** PF_EXITING of the kernel's linux/sched.h. */
const EXITING = 0x4;

/**
 * Whether this very process runs, and is not about to end: the first process of a pid namespace that was killed waits for all
 * others in it, and those can be held by whoever traces them.
 */
export function processRuns(pid: number, startTime: number): boolean {
  if (!processAlive(pid, startTime)) return false;
  // Fields after the name: state, parent, group, session, terminal, its group, flags.
  const flags = Number(readProc(pid, 'stat')?.replace(/.*\) /s, '').split(' ')[6]);
  return (flags & EXITING) === 0;
}

/** The "Name: value" lines of /proc/PID/status. */
export function readStatus(pid: number | 'self'): ReadonlyMap<string, string> | undefined {
  const text = readProc(pid, 'status');
  if (text === undefined) return undefined;
  const fields = new Map<string, string>();
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':');
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1).trim());
  }
  return fields;
}

/** Another one after each start of the node. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
}

export function listPids(): number[] {
  return readdirSync('/proc').filter((name) => /^[1-9][0-9]*$/.test(name)).map(Number);
}

/** Where a link of /proc/PID leads ("exe", "cwd", "ns/time_for_children"); undefined when it is gone or not readable. */
export function readProcLink(pid: number | 'self', link: string): string | undefined {
  return unlessGone(() => readlinkSync(`/proc/${pid}/${link}`));
}

/** At most `limit` open descriptors, in ascending order. */
export function listDescriptors(pid: number, limit: number): Descriptor[] {
  const numbers = (unlessGone(() => readdirSync(`/proc/${pid}/fd`)) ?? []).map(Number).sort((a, b) => a - b);
  return numbers.slice(0, limit).flatMap((fd) => {
    const target = unlessGone(() => readlinkSync(`/proc/${pid}/fd/${fd}`));
    return target === undefined ? [] : [{ fd, target }];
  });
}

/**
 * How a descriptor is open, by the mode of its link, which is read sooner than fdinfo; undefined when it is closed
 * meanwhile.
 */
export function descriptorAccess(pid: number, fd: number): 'read' | 'write' | 'both' | undefined {
  const mode = unlessGone(() => lstatSync(`/proc/${pid}/fd/${fd}`, { throwIfNoEntry: false }))?.mode ?? 0;
  const [reads, writes] = [(mode & 0o400) !== 0, (mode & 0o200) !== 0];
  if (reads && writes) return 'both';
  return reads ? 'read' : writes ? 'write' : undefined;
}

/** Each namespace as the kernel names it: { net: "net:[4026531840]", … }. */
export function readNamespaces(pid: number | 'self'): Namespaces {
  const found: Partial<Record<NamespaceName, string>> = {};
  for (const name of namespaceNames) {
    const target = unlessGone(() => readlinkSync(`/proc/${pid}/ns/${name}`));
    if (target !== undefined) found[name] = target;
  }
  return found;
}

export function parseCgroups(text: string): CgroupEntry[] {
  return text.split('\n').flatMap((line) => {
    const match = /^(\d+):([^:]*):(.*)$/.exec(line);
    return match === null ? [] : [{ hierarchy: Number(match[1]), controllers: (match[2] ?? '').split(','), path: match[3] ?? '' }];
  });
}

export function readCgroups(pid: number | 'self'): CgroupEntry[] {
  return parseCgroups(readProc(pid, 'cgroup') ?? '');
}

/** A file that may block (see above), cut at `limit` bytes; undefined when the process is gone. */
export async function readProcSlow(pid: number, file: string, limit: number): Promise<string | undefined> {
  try {
    await using handle = await open(`/proc/${pid}/${file}`, 'r');
    const parts: Buffer[] = [];
    for (let total = 0; total < limit; ) {
      const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafe(64 * 1024));
      if (bytesRead === 0) break;
      parts.push(buffer.subarray(0, bytesRead));
      total += bytesRead;
    }
    return Buffer.concat(parts).toString('utf8');
  } catch (error) {
    if (GONE.has(errnoCode(error))) return undefined;
    throw error;
  }
}
