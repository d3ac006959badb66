/** Tables of nftables in a network namespace that may have no process of ours, nor any process at all (ip-netns(8)). */
import { readlinkSync, statSync } from 'node:fs';
import { StasisError } from '../core/errors.ts';
import { readMountinfo } from './mountinfo.ts';
import { listPids } from './proc.ts';
import { run } from './process.ts';

const TIMEOUT_MS = 10_000;

/** A connection over TCP, as seen from this side: addresses without brackets, ports. */
export interface BlockedConnection {
  readonly local: string;
  readonly localPort: number;
  readonly remote: string;
  readonly remotePort: number;
}

/** "net:[4026531840]"; undefined when the process is gone. */
export function networkOf(pid: number | 'self'): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return undefined;
  }
}

/** The network namespace that a path of a config.json leads to; undefined where it leads nowhere. */
export function networkAt(path: string): string | undefined {
  try {
    return `net:[${statSync(path).ino}]`;
  } catch {
    return undefined;
  }
}

/** A path by which a network namespace can be entered; undefined when it is gone. */
export function findNetwork(id: string): string | undefined {
  if (networkOf('self') === id) return '/proc/self/ns/net';
  // Processes come and go; a mount stays.
  for (const [mounts, root] of [['self', ''], [1, '/proc/1/root']] as const) {
    const path = readMountinfo(mounts).find(({ fsType, root: name }) => fsType === 'nsfs' && name === id)?.mountPoint;
    if (path !== undefined && networkAt(`${root}${path}`) === id) return `${root}${path}`;
  }
  const pid = listPids().find((candidate) => networkOf(candidate) === id);
  return pid === undefined ? undefined : `/proc/${pid}/ns/net`;
}

export async function hasTable(network: string, table: string): Promise<boolean> {
  return (await inNetwork(network, ['nft', 'list', 'table', 'inet', table])).status === 0;
}

/** Takes a table away; one that is not there is fine. */
export async function removeTable(network: string, table: string): Promise<void> {
  // Made first, because nft refuses to delete what is not there.
  await change(network, `add table inet ${table}\ndelete table inet ${table}\n`);
}

/**
 * Puts a table that drops what comes for these connections or goes out from them, and nothing else, in the place of whatever table has that
 * name: at once, so that nothing comes through in between. Packets with the mark `passMark` pass.
 */
export async function blockConnections(network: string, table: string, connections: readonly BlockedConnection[], passMark: number): Promise<void> {
  const [sets, incoming, outgoing]: [string[], string[], string[]] = [[], [], []];
  for (const [family, type] of [['ip', 'ipv4_addr'], ['ip6', 'ipv6_addr']] as const) {
    const elements = connections.filter(({ local }) => local.includes(':') === (family === 'ip6'))
      .map(({ local, localPort, remote, remotePort }) => `${remote} . ${remotePort} . ${local} . ${localPort}`);
    if (elements.length === 0) continue;
    sets.push(`set ${family}_connections { type ${type} . inet_service . ${type} . inet_service; elements = { ${[...new Set(elements)].join(', ')} }; }`);
    incoming.push(`${family} saddr . tcp sport . ${family} daddr . tcp dport @${family}_connections drop`);
    outgoing.push(`${family} daddr . tcp dport . ${family} saddr . tcp sport @${family}_connections drop`);
  }
  const chains = [['input', incoming], ['output', outgoing]] as const;
  const written = chains.map(([hook, rules]) => `chain ${hook} { type filter hook ${hook} priority filter; policy accept; meta mark ${passMark} accept; ${rules.join('; ')}; }`);
  await change(network, `add table inet ${table}\ndelete table inet ${table}\ntable inet ${table} {\n${[...sets, ...written].join('\n')}\n}\n`);
}

async function change(network: string, rules: string): Promise<void> {
  const { status, stderr } = await inNetwork(network, ['nft', '-f', '-'], rules);
  if (status === 0) return;
  throw new StasisError('HOST_UNSUPPORTED', `nft failed in the network namespace ${network}: ${stderr.split('\n', 1)[0] ?? ''}`, { hint: '"nft list ruleset" there shows its rules' });
}

function inNetwork(network: string, command: readonly string[], input?: string): ReturnType<typeof run> {
  return run('nsenter', [`--net=${network}`, ...command], { signal: undefined, timeoutMs: TIMEOUT_MS, ...(input === undefined ? {} : { input }) });
}
