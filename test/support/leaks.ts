/**
 * Every test file leaves the box as it found it. scripts/test loads this module into the process of each file (--import); it
 * looks at the box when the file begins and when its tests and their clean-up are over, and fails the file when there is more.
 * Files run one after the other, so what is more is the file's.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';
import { cgroupTree } from '../../src/host/cgroup-walk.ts';
import { readMountinfo } from '../../src/host/mountinfo.ts';
import { listPids, readProc, readStat } from '../../src/host/proc.ts';

/** Parents that engines and the agent keep for the next container. */
const KEPT = /\/(libpod_parent|libpod_parent\/conmon|default|stasis|stasis-guards)$/;

/** What is there, each thing by a key that no later thing gets, with words for people. */
export type Box = ReadonlyMap<string, string>;

/** Killed processes are collected, and pumps end after their containers, within this time. */
const SETTLE_MS = 3000;
const POLL_MS = 20;

function processes(): [string, string][] {
  return listPids().flatMap((pid): [string, string][] => {
    const stat = readStat(pid);
    // Children of this process are Node's to collect, and it does so when there is no event loop to do it either.
    if (stat === undefined || pid === process.pid || (stat.ppid === process.pid && 'ZX'.includes(stat.state))) return [];
    const line = readProc(pid, 'cmdline')?.replaceAll('\0', ' ').trim().slice(0, 200) ?? '';
    const words = 'ZX'.includes(stat.state) ? `child of ${stat.ppid} that nobody has collected` : `state ${stat.state}, parent ${stat.ppid}, session ${stat.session}: ${line}`;
    return [[`process ${pid} ${stat.startTime}`, `process ${pid} (${stat.comm}), ${words}`]];
  });
}

function mountsAndCgroups(): [string, string][] {
  // ip(8) makes that one with the first namespace, for good.
  const mounts = readMountinfo('self').filter(({ mountPoint }) => mountPoint !== '/run/netns');
  const hierarchies = mounts.filter(({ fsType, mountPoint }) => fsType.startsWith('cgroup') && mountPoint.startsWith('/sys/fs/cgroup'));
  return [
    ...mounts.map(({ id, mountPoint, fsType, source }): [string, string] => [`mount ${id} ${mountPoint}`, `mount of ${fsType} (${source}) at ${mountPoint}`]),
    ...hierarchies.flatMap(({ mountPoint }) => cgroupTree(mountPoint)).filter((directory) => !KEPT.test(directory.toString())).map((directory): [string, string] => [`cgroup ${directory.toString('latin1')}`, `cgroup ${directory.toString()}`]),
  ];
}

function listed(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

/** CRIU's packet filters and anybody else's, in this network namespace. */
function filters(): [string, string][] {
  const { stdout, status } = spawnSync('nft', ['list', 'tables'], { encoding: 'utf8' });
  return status === 0 ? stdout.split('\n').filter((line) => line !== '').map((line) => [`filter ${line}`, `packet filter: ${line}`]) : [];
}

export function lookAround(): Box {
  const namespaces = listed('/run/netns').map((name): [string, string] => [`namespace ${name}`, `network namespace ${name}`]);
  return new Map([...mountsAndCgroups(), ...namespaces, ...filters(), ...processes()]);
}

/** What is there now and was not then; it gets time to go away. */
export function leftSince(before: Box): string[] {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  const more = (): string[] => [...lookAround()].flatMap(([key, words]) => (before.has(key) ? [] : [words]));
  let left = more();
  for (const until = performance.now() + SETTLE_MS; left.length > 0 && performance.now() < until; left = more()) Atomics.wait(pause, 0, 0, POLL_MS);
  return left;
}

function watch(): void {
  const before = lookAround();
  // Not a hook of node:test: the file's own hooks, which clean up, may come after it.
  process.on('exit', () => {
    const left = leftSince(before);
    if (left.length === 0) return;
    process.exitCode = 1;
    // oxlint-disable-next-line no-console
    console.error(`this file left behind:\n${left.map((words) => `  ${words}`).join('\n')}`);
  });
}

// The process of a file: not the runner, whose child it is, nor its workers, nor a file that only uses what is exported here.
// oxlint-disable-next-line node/no-process-env
if (process.env['NODE_TEST_CONTEXT'] !== undefined && isMainThread && process.execArgv.some((word) => word.endsWith('/support/leaks.js'))) watch();
