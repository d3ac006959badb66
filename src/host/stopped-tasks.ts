/**
 * Processes that a signal has stopped (SIGSTOP, SIGTSTP, …) in a v1 freezer. criu attaches to the tasks of a frozen cgroup one by one, and
 * attaching to a stopped one waits until that takes note of it, which a frozen one cannot. So the stopped ones are set aside in a cgroup
 * that criu comes to last. When it waits there it has attached to all others, and these do not run any more although they are
 * let go: then the cgroup is thawed, and criu goes on. (Version 2 freezes tasks in another way and knows no such wait.)
 */
import { mkdirSync, opendirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errnoCode } from '../core/errors.ts';
import { cgroupProcesses, cgroupTree, processesIn } from './cgroup-walk.ts';
import { readProc, readStat, readStatus } from './proc.ts';

/** The guard knows it, too, and puts back what a dead agent had set aside. */
const ASIDE = 'stasis-stopped';
/** Names to try until one is listed behind all other cgroups: their order follows from a hash. */
const MAX_NAMES = 200;

/** Of these pids, those that a signal has stopped. */
export function stoppedOf(pids: readonly number[]): number[] {
  return pids.filter((pid) => readStat(pid)?.state === 'T');
}

/** Also of a frozen thread, which shows another state. */
export function isStopped(tid: number): boolean {
  return /\bdo_signal_stop\b/.test(readProc(tid, 'stack') ?? '');
}

export class SetAside {
  readonly #cgroup: string;
  #directory: string | undefined;
  readonly #origins = new Map<number, Buffer>();

  constructor(cgroup: string) {
    this.#cgroup = cgroup;
  }

  get isEmpty(): boolean {
    return this.#origins.size === 0;
  }

  /** Moves these processes. */
  take(pids: readonly number[]): void {
    if (pids.length === 0) return;
    const origins = new Map(cgroupTree(this.#cgroup).flatMap((directory) => processesIn(directory).map((pid) => [pid, directory] as const)));
    this.#directory ??= lastDirectory(this.#cgroup);
    for (const pid of pids) {
      if (this.#origins.has(pid) || !move(pid, Buffer.from(this.#directory))) continue;
      this.#origins.set(pid, origins.get(pid) ?? Buffer.from(this.#cgroup));
    }
  }

  /** Of the frozen cgroup: exactly the stopped ones are set aside. */
  isRight(tids: readonly number[]): boolean {
    return tids.every((tid) => isStopped(tid) === this.#origins.has(threadGroup(tid)));
  }

  /** Whether criu has attached to every process but those set aside. */
  othersTraced(pids: readonly number[]): boolean {
    return pids.every((pid) => this.#origins.has(pid) || (readStatus(pid)?.get('TracerPid') ?? '1') !== '0');
  }

  putBack(): void {
    for (const [pid, origin] of this.#origins) if (!move(pid, origin)) move(pid, Buffer.from(this.#cgroup));
    this.#origins.clear();
    if (this.#directory === undefined) return;
    // Children of a stopped process that somebody else made meanwhile.
    for (const pid of cgroupProcesses(this.#directory)) move(pid, Buffer.from(this.#cgroup));
    remove(this.#directory);
    this.#directory = undefined;
  }
}

function threadGroup(tid: number): number {
  return Number(readStatus(tid)?.get('Tgid') ?? tid);
}

/** A new cgroup that is listed after all that there are. */
function lastDirectory(cgroup: string): string {
  for (let number = 0; ; number++) {
    const name = `${ASIDE}-${number}`;
    const directory = join(cgroup, name);
    mkdirSync(directory);
    if (lastListed(cgroup) === name || number === MAX_NAMES) return directory;
    rmdirSync(directory);
  }
}

/** As the kernel lists them, which readdirSync does not. */
function lastListed(cgroup: string): string | undefined {
  using directory = opendirSync(cgroup, { encoding: 'latin1' as BufferEncoding });
  let last: string | undefined;
  for (let entry = directory.readSync(); entry !== null; entry = directory.readSync()) if (entry.isDirectory()) last = entry.name;
  return last;
}

function move(pid: number, directory: Buffer): boolean {
  try {
    writeFileSync(Buffer.concat([directory, Buffer.from('/cgroup.procs')]), String(pid));
    return true;
  } catch (error) {
    if (errnoCode(error) === 'ESRCH' || errnoCode(error) === 'ENOENT' || errnoCode(error) === 'ENODEV') return false;
    throw error;
  }
}

function remove(directory: string): void {
  try {
    rmdirSync(directory);
  } catch {
    // Gone with its container, or a process has just ended in it: an empty cgroup goes with the container.
  }
}
