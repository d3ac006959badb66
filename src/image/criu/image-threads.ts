/** What core-TID.img gives to a thread: who it is, what it may, how much it may take (images/core.proto, creds.proto of CRIU). */
import { onlyOnce } from './wire.ts';

export interface ThreadPrivileges {
  /** The image that says so. */
  readonly image: string;
  /** Ended, and not yet waited for: it never runs again. */
  readonly dead: boolean;
  /** Real, effective, saved and that for files, without repetitions. */
  readonly users: readonly number[];
  /** Those four of the group, and the additional ones. */
  readonly groups: readonly number[];
  /** All capability sets together, but for the bounding set, and that one: bit n is capability n. */
  readonly held: bigint;
  readonly bounding: bigint;
  readonly seccomp: boolean;
  /** 0 none, 1 strict, 2 filter: of the thread itself. */
  readonly mode: number;
  /** Number of its filter in seccomp.img. */
  readonly filter: number | undefined;
  readonly noNewPrivileges: boolean;
  /** AppArmor profile or SELinux label, empty for none. */
  readonly securityLabel: string;
  /** Hard limits by number of the resource; undefined for those that share their process's. */
  readonly limits: readonly bigint[] | undefined;
  readonly oomScoreAdjustment: number | undefined;
  readonly nice: number;
  /** SCHED_FIFO, SCHED_RR or SCHED_DEADLINE. */
  readonly realtime: boolean;
}

const SECCOMP_FILTER = 2;
const TASK_DEAD = 2;
const TASK_ZOMBIE = 6;
/** linux/sched.h */
const REALTIME_POLICIES = new Set([1, 2, 6]);
/** Fields of creds_entry that CRIU 4 added. */
const NO_NEW_PRIVS = 18;
const AMBIENT = 19;

type Task = Pick<ThreadPrivileges, 'dead' | 'limits' | 'oomScoreAdjustment'>;
type Credentials = Pick<ThreadPrivileges, 'users' | 'groups' | 'held' | 'bounding' | 'noNewPrivileges' | 'securityLabel'>;

/** Throws OBJECT_CORRUPT. */
export function readThread(message: Uint8Array, image: string): ThreadPrivileges {
  let [task, thread] = [new Uint8Array(0), new Uint8Array(0)] as [Uint8Array, Uint8Array];
  for (const reader of onlyOnce(message, image)) {
    if (reader.field === 3) task = reader.bytes();
    else if (reader.field === 5) thread = reader.bytes();
  }
  let credentials: Uint8Array = new Uint8Array(0);
  let [mode, nice, policy] = [0, 0, 0];
  let filter: number | undefined;
  for (const reader of onlyOnce(thread, image)) {
    if (reader.field === 3) nice = zigzag(reader.uint32());
    else if (reader.field === 4) policy = reader.uint32();
    else if (reader.field === 10) credentials = reader.bytes();
    else if (reader.field === 11) mode = reader.uint32();
    else if (reader.field === 12) filter = reader.uint32();
  }
  return { image, ...readTask(task, image), ...readCredentials(credentials, image), seccomp: mode === SECCOMP_FILTER, mode, filter, nice, realtime: REALTIME_POLICIES.has(policy) };
}

function zigzag(value: number): number {
  return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
}

function readTask(message: Uint8Array, image: string): Task {
  let state = 0;
  let limits: bigint[] | undefined;
  let oomScoreAdjustment: number | undefined;
  for (const reader of onlyOnce(message, image, 15)) {
    if (reader.field === 1) state = reader.uint32();
    else if (reader.field === 8) limits = readLimits(reader.bytes(), image);
    else if (reader.field === 14) oomScoreAdjustment = reader.int();
  }
  return { dead: state === TASK_DEAD || state === TASK_ZOMBIE, limits, oomScoreAdjustment };
}

function readLimits(message: Uint8Array, image: string): bigint[] {
  const limits: bigint[] = [];
  for (const all of onlyOnce(message, image, 1)) {
    if (all.field !== 1) continue;
    let hard = 0n;
    for (const one of onlyOnce(all.bytes(), image)) if (one.field === 2) hard = one.uint64();
    limits.push(hard);
  }
  return limits;
}

function readCredentials(message: Uint8Array, image: string): Credentials {
  const [users, groups] = [new Set<number>(), new Set<number>()];
  const sets = new Map<number, number[]>();
  let [noNewPrivileges, securityLabel] = [false, ''];
  for (const reader of onlyOnce(message, image, 9, 10, 11, 12, 14, 16, AMBIENT)) {
    const { field } = reader;
    if (field >= 1 && field <= 8) (field % 2 === 1 ? users : groups).add(reader.uint32());
    else if ((field >= 9 && field <= 12) || field === AMBIENT) sets.set(field, [...(sets.get(field) ?? []), ...reader.uints()]);
    else if (field === 14) for (const group of reader.uints()) groups.add(group);
    else if (field === 15) securityLabel = reader.text();
    else if (field === NO_NEW_PRIVS) noNewPrivileges = reader.uint32() !== 0;
  }
  const held = [9, 10, 11, AMBIENT].reduce((all, field) => all | mask(sets.get(field) ?? []), 0n);
  return { users: [...users], groups: [...groups], held, bounding: mask(sets.get(12) ?? []), noNewPrivileges, securityLabel };
}

function mask(words: readonly number[]): bigint {
  return words.reduce((all, word, i) => all | (BigInt(word) << BigInt(32 * i)), 0n);
}
