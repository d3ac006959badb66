/**
 * System calls about tasks that Node.js does not offer: affinity, I/O priority, what two tasks share, and whether there
 * is Landlock.
 */
import { check, libc } from './libc.ts';

const raw = {
  affinity: libc.func('int sched_setaffinity(int tid, size_t size, const void* mask)'),
  landlock: libc.func('long syscall(long number, const void* attributes, size_t size, uint32_t flags)'),
  kcmp: libc.func('long syscall(long number, int pid1, int pid2, int type, unsigned long idx1, unsigned long idx2)'),
  ioprio: libc.func('long syscall(long number, int which, int who, int value)'),
};

const SYS_LANDLOCK_CREATE_RULESET = 444;
const LANDLOCK_CREATE_RULESET_VERSION = 1;
const [SYS_IOPRIO_SET, SYS_IOPRIO_GET] = process.arch === 'arm64' ? [30, 31] : [251, 252];
const IOPRIO_WHO_PROCESS = 1;

/** `mask`: hexadecimal words of 32 bits, the highest first, between commas, as Cpus_allowed of /proc/TID/status. */
export function setAffinity(tid: number, mask: string): void {
  const words = mask.split(',').map((word) => Number.parseInt(word, 16)).reverse();
  const bytes = Buffer.alloc(Math.ceil(words.length / 2) * 8);
  words.forEach((word, index) => bytes.writeUInt32LE(word, index * 4));
  check(raw.affinity(tid, bytes.length, bytes) as number, 'sched_setaffinity');
}

/** Class and level as the kernel packs them; 0: none was set. */
export function ioPriority(tid: number): number {
  return check(raw.ioprio(SYS_IOPRIO_GET, IOPRIO_WHO_PROCESS, tid, 0) as number, 'ioprio_get');
}

export function setIoPriority(tid: number, value: number): void {
  check(raw.ioprio(SYS_IOPRIO_SET, IOPRIO_WHO_PROCESS, tid, value) as number, 'ioprio_set');
}

const SYS_KCMP = process.arch === 'arm64' ? 272 : 312;
const KCMP = { memory: 1, descriptors: 2, places: 3 } as const;

/**
 * Whether two tasks have one address space, one table of descriptors, or one root, working directory and umask
 * (kcmp(2)).
 * Undefined: one of them is gone, or the kernel does not tell.
 */
export function share(what: keyof typeof KCMP, one: number, other: number): boolean | undefined {
  const result = raw.kcmp(SYS_KCMP, one, other, KCMP[what], 0, 0) as number;
  return result < 0 ? undefined : result === 0;
}

/** Of the kernel's interface; below 1 where it has none, or was started without. */
export function landlockVersion(): number {
  return raw.landlock(SYS_LANDLOCK_CREATE_RULESET, null, 0, LANDLOCK_CREATE_RULESET_VERSION) as number;
}
