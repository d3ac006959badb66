/** Looks at every process of a container once; the checks then work on what was seen. */
import { setTimeout as delay } from 'node:timers/promises';
import { cgroupProcesses } from '../../host/cgroup-walk.ts';
import { listDescriptors, listPids, readNamespaces, readProcLink, readProcSlow, readStat, readStatus, type ProcStat } from '../../host/proc.ts';
import type { Container } from '../types.ts';
import type { Mapping, ProcessTree, ProcessView } from './findings.ts';

/** Beyond these a container is still checkpointed, only not looked at in every corner. */
const MAX_EXAMINED = 1024;
const MAX_DESCRIPTORS = 16_384;
const MAX_MAPS_BYTES = 8 * 1024 * 1024;
/** Disk I/O puts a process in state D for moments; only one that stays there is left unread. */
const STUCK_LOOKS = 3;
const STUCK_PAUSE_MS = 5;

/** Splits the processes of the cgroup (of the whole node when it is unknown) into the tree below `init` and others. */
function splitTree(container: Container): { inside: ProcStat[]; strangers: ProcStat[] } {
  const inCgroup = new Set(container.freezer === undefined ? [] : cgroupProcesses(container.freezer.directory));
  const pids = inCgroup.size > 0 ? inCgroup : new Set(listPids());
  pids.add(container.pid);
  const stats = new Map([...pids].flatMap((pid) => {
    const stat = readStat(pid);
    return stat === undefined ? [] : [[pid, stat] as const];
  }));
  const member = new Map<number, boolean>([[container.pid, true]]);
  const isMember = (pid: number): boolean => {
    const known = member.get(pid);
    if (known !== undefined) return known;
    // Against a loop of parents, which only pids used anew between two reads can make.
    member.set(pid, false);
    const stat = stats.get(pid);
    const result = stat !== undefined && isMember(stat.ppid);
    member.set(pid, result);
    return result;
  };
  const inside: ProcStat[] = [];
  const strangers: ProcStat[] = [];
  for (const stat of stats.values()) {
    if (isMember(stat.pid)) inside.push(stat);
    else if (inCgroup.has(stat.pid)) strangers.push(stat);
  }
  inside.sort((a, b) => Number(b.pid === container.pid) - Number(a.pid === container.pid) || a.pid - b.pid);
  return { inside, strangers };
}

function kibibytes(value: string | undefined): number {
  return Number.parseInt(value ?? '0', 10) * 1024 || 0;
}

/** Lines of /proc/PID/maps that have a name: "7f00-7f01 rw-s 00000000 00:01 1024 /memfd:x (deleted)". */
export function parseMaps(text: string): Mapping[] {
  const mappings: Mapping[] = [];
  for (const match of text.matchAll(/^([0-9a-f]+)-([0-9a-f]+) ...([sp]) \S+ \S+ (\d+) +(\S.*)$/gm)) {
    const [, start, end, mode, inode, name] = match;
    const from = BigInt(`0x${start}`);
    mappings.push({ start: from, length: Number(BigInt(`0x${end}`) - from), sharedMapping: mode === 's', inode: Number(inode), name: name ?? '' });
  }
  return mappings;
}

/** In a v1 freezer every task is in state D, and that is all there is to it. */
async function settled(stat: ProcStat, paused: boolean): Promise<ProcStat> {
  if (paused && stat.state === 'D') return { ...stat, state: 'S' };
  let latest = stat;
  for (let look = 1; latest.state === 'D' && look < STUCK_LOOKS; look++) {
    await delay(STUCK_PAUSE_MS);
    latest = readStat(stat.pid) ?? latest;
  }
  return latest;
}

async function view(first: ProcStat, paused: boolean): Promise<ProcessView> {
  const stat = await settled(first, paused);
  const status = readStatus(stat.pid);
  const innerPids = (status?.get('NSpid') ?? '').split(/\s+/);
  // Reading the maps of a stuck process could block a thread for as long as it is stuck.
  const maps = stat.state === 'D' || stat.state === 'Z' ? undefined : await readProcSlow(stat.pid, 'maps', MAX_MAPS_BYTES);
  return {
    ...stat,
    innerPid: Number(innerPids.at(-1)) || stat.pid,
    tracer: Number(status?.get('TracerPid') ?? 0),
    status: status ?? new Map<string, string>(),
    anonymous: kibibytes(status?.get('RssAnon')),
    shared: kibibytes(status?.get('RssShmem')),
    swapped: kibibytes(status?.get('VmSwap')),
    directory: readProcLink(stat.pid, 'cwd'),
    descriptors: listDescriptors(stat.pid, MAX_DESCRIPTORS),
    infos: new Map<number, string | undefined>(),
    namespaces: readNamespaces(stat.pid),
    mappings: maps === undefined ? [] : parseMaps(maps),
  };
}

export async function collect(container: Container, { signal }: { signal: AbortSignal | undefined }): Promise<ProcessTree> {
  const { inside, strangers } = splitTree(container);
  const processes: ProcessView[] = [];
  for (const stat of inside.slice(0, MAX_EXAMINED)) {
    signal?.throwIfAborted();
    processes.push(await view(stat, container.status === 'paused'));
  }
  return { processes, strangers, unexamined: Math.max(0, inside.length - MAX_EXAMINED) };
}
