/** Boxes seen from the machine: starting them, finding their processes, and whatever one left behind. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

export const repository = resolve(import.meta.dirname, '../../..');
const script = join(repository, 'scripts/box');
const environment = process.env;
export const cache = environment['STASIS_CACHE'] ?? join(environment['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'stasis');

export interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

let count = 0;
export function uniqueName(): string {
  count += 1;
  return `t${process.pid}-${count}`;
}

/** Runs a box to its end. `wrapper` is put before the script ("setpriv", …). */
export function runBox(args: readonly string[], wrapper: readonly string[] = []): Ended {
  const [file = '', ...rest] = [...wrapper, script, ...args];
  const result = spawnSync(file, rest, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 120_000 });
  return { status: result.status ?? -1, stdout: result.stdout, stderr: result.stderr };
}

export interface RunningBox {
  readonly name: string;
  readonly child: ChildProcess;
  /** Pids on the machine: the script, its unshare, the box's process 1, its janitor. */
  readonly script: number;
  readonly unshare: number;
  readonly init: number;
  readonly janitor: number;
}

/**
 * Starts a box that leaves as much behind as it can when nobody cleans: a daemon in a session of its own, a frozen
 * cgroup with a process, mounts, files. Returns when all that is there.
 */
export async function startMessyBox(name: string, options: readonly string[] = []): Promise<RunningBox> {
  const mess = `
    setsid sleep ${marker(name)} &
    if [ -e /sys/fs/cgroup/freezer ]; then f=/sys/fs/cgroup/freezer/frozen; else f=/sys/fs/cgroup/frozen; fi
    mkdir -p $f/deeper
    sleep ${marker(name)} & echo $! > $f/deeper/cgroup.procs
    if [ -e $f/freezer.state ]; then echo FROZEN > $f/freezer.state; else echo 1 > $f/cgroup.freeze; fi
    mkdir -p /srv/a/{lower,upper,work,merged} && mount -t overlay overlay -o lowerdir=/srv/a/lower,upperdir=/srv/a/upper,workdir=/srv/a/work /srv/a/merged
    touch /srv/a/merged/file /etc/mess; mount -t tmpfs tmpfs /mnt
    echo ready; sleep ${marker(name)}`;
  return startBox(name, mess, options);
}

/** Starts a box whose command prints a line when it is ready. */
export async function startBox(name: string, command: string, options: readonly string[] = []): Promise<RunningBox> {
  const child = spawn(script, ['--name', name, ...options, '--', 'bash', '-c', command], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data', { signal: AbortSignal.timeout(60_000) });
  const pid = real(child.pid);
  const unshare = real(childrenOf(pid).find((p) => readProc(String(p), 'comm').trim() === 'unshare'));
  return { name, child, script: pid, unshare, init: real(childrenOf(unshare)[0]), janitor: real(childrenOf(pid).find((p) => p !== unshare)) };
}

/** What of a box is still on the machine, one line each; empty when it is gone. */
export function leftovers(name: string): string[] {
  const found: string[] = [];
  const id = `stasis-box-${name}`;
  for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
    const [, directory = '', type = ''] = line.split(' ');
    if ((type === 'cgroup' || type === 'cgroup2') && existsSync(join(directory, id))) found.push(`cgroup ${directory}/${id}`);
    if (directory.includes(id)) found.push(`mount ${directory}`);
  }
  for (const pid of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    if (readProc(pid, 'cmdline').includes(marker(name))) found.push(`process ${pid}`);
  }
  if (existsSync(join(cache, 'boxes', id))) found.push(`data ${id}`);
  return found;
}

/** Waits until nothing of the box is left; returns what is after `seconds`. */
export async function leftoversAfter(name: string, seconds: number): Promise<string[]> {
  for (let tick = 0; tick < seconds * 20 && leftovers(name).length > 0; tick++) await delay(50);
  return leftovers(name);
}

/** A number of seconds to sleep by which the box's processes are found. */
function marker(name: string): string {
  const [first = '0', second = '0'] = name.slice(1).split('-');
  return `98${first}.${second}`;
}

export function childrenOf(pid: number): number[] {
  return readProc(`${pid}/task/${pid}`, 'children').split(' ').filter((text) => text !== '').map(Number);
}

/** These pids are sent signals: -1 would be everybody. */
function real(pid: number | undefined): number {
  if (pid === undefined || pid <= 1) throw new Error('a process of the box is not where it should be');
  return pid;
}

function readProc(directory: string, file: string): string {
  try {
    return readFileSync(`/proc/${directory}/${file}`, 'utf8');
  } catch {
    return '';
  }
}
