/** What makes up a network namespace of the container's own, read and brought back by deploy/libexec/stasis-network. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { plainNetwork, settingsInside } from '../../host/plain-network.ts';
import { run } from '../../host/process.ts';
import { printable } from '../text.ts';
import type { OciSpec } from '../types.ts';
import { changedSysctls, parseSysctls, withoutInterfaces, type Sysctls } from './sysctls.ts';

export interface SavedNetwork {
  /** As `ip` and `nft` save them, base64, by the names of stasis-network. */
  readonly parts: Readonly<Record<string, string>>;
  /** Lines for ip(8) -batch: they make the links, and set them up. */
  readonly links: readonly string[];
  readonly up: readonly string[];
  readonly sysctls: Sysctls;
}

export interface NetworkReading {
  /** Absent when it could not be read. */
  readonly network?: SavedNetwork;
  /** In plain words, what a restore will not bring back. */
  readonly lost: readonly string[];
}

interface Link {
  readonly ifindex: number;
  readonly ifname: string;
  readonly flags: readonly string[];
  readonly mtu: number;
  readonly address?: string;
  readonly txqlen?: number;
  readonly group?: string;
  readonly link?: string;
  readonly master?: string;
  readonly linkinfo?: { readonly info_kind?: string; readonly info_data?: Readonly<Record<string, unknown>> };
}

const PARTS = ['addresses', 'routes4', 'routes6', 'rules4', 'rules6', 'nft'];
const MAX_BYTES = 512 * 1024;
const TIMEOUT_MS = 10_000;
const USUAL_QUEUE = 1000;
const NAME = /^[A-Za-z0-9_.@-]{1,15}$/;
const ADDRESS = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/;

/** Options of a bridge and what a new one has. Only others are named: a kernel without an option refuses its name. */
const BRIDGE: Readonly<Record<string, number>> = {
  stp_state: 0, vlan_filtering: 0, forward_delay: 1500, hello_time: 200, max_age: 2000,
  ageing_time: 30_000, priority: 32_768,
};

/** What can be set of any interface, where it is not as in a new one. */
function settingsOf({ flags, txqlen = USUAL_QUEUE, group = 'default' }: Link): string[] {
  return [
    ...(txqlen === USUAL_QUEUE ? [] : [`txqueuelen ${txqlen}`]),
    ...(group !== 'default' && NAME.test(group) ? [`group ${group}`] : []),
    ...(flags.includes('PROMISC') ? ['promisc on'] : []), ...(flags.includes('ALLMULTI') ? ['allmulticast on'] : []),
  ];
}

/** The words that make a link of this kind; undefined: it cannot be made without something outside the namespace. */
function typeWords({ linkinfo, link }: Link): string | undefined {
  const { info_kind: kind, info_data: data = {} } = linkinfo ?? {};
  if (kind === 'dummy' || kind === 'ifb') return `type ${kind}`;
  if (kind === 'bridge') return ['type bridge', ...Object.entries(BRIDGE).flatMap(([name, usual]) => (
    data[name] === undefined || data[name] === usual ? [] : [`${name} ${Number(data[name])}`]
  ))].join(' ');
  if (kind === 'vlan' && link !== undefined && NAME.test(link)) return `type vlan id ${Number(data['id'])}`;
  return undefined;
}

function linesOf(links: readonly Link[]): Pick<SavedNetwork, 'links' | 'up'> & { lost: string[] } {
  const [made, up, lost]: [string[], string[], string[]] = [[], [], []];
  for (const link of links) {
    const { ifname: name, ifindex, mtu, address = '' } = link;
    const loopback = link.flags.includes('LOOPBACK');
    const type = typeWords(link);
    if (!loopback && (type === undefined || !NAME.test(name))) {
      lost.push(`the network interface ${printable(name)} (${printable(link.linkinfo?.info_kind ?? 'of the node')}): it has another end, or hardware, outside the container's network namespace`);
      continue;
    }
    const parent = type?.startsWith('type vlan') === true ? `link ${link.link} ` : '';
    if (loopback) made.push(`link set lo mtu ${mtu}`);
    else made.push(`link add ${parent}name ${name} index ${ifindex} ${ADDRESS.test(address) ? `address ${address} ` : ''}mtu ${mtu} ${type}`);
    const settings = settingsOf(link);
    if (settings.length > 0) made.push(`link set ${name} ${settings.join(' ')}`);
    if (link.master !== undefined && NAME.test(link.master)) made.push(`link set ${name} master ${link.master}`);
    if (link.flags.includes('UP') !== loopback) up.push(`link set ${name} ${loopback ? 'down' : 'up'}`);
  }
  return { links: made, up, lost };
}

/** Whether its interfaces, addresses, routes and rules come back: the loopback interface is in each list of links. */
export function comesBackWhole({ links }: SavedNetwork): boolean {
  return links.length > 0;
}

function parse(stdout: string): Map<string, string> {
  return new Map(stdout.split('\n').flatMap((line): [string, string][] => {
    const [name = '', value = ''] = line.split(' ', 2);
    return value === '' ? [] : [[name, value]];
  }));
}

let fresh: ReadonlyMap<string, string> | undefined;

/** What this kernel gives to a new namespace; asked once. */
async function defaults(program: string, signal: AbortSignal | undefined): Promise<ReadonlyMap<string, string>> {
  return (fresh ??= parseSysctls((await run('unshare', ['--net', program, 'sysctls'], { signal, timeoutMs: TIMEOUT_MS })).stdout));
}

/** Most have nothing but the loopback interface: thirty programs less. Undefined: it has more, or cannot be asked. */
function readPlain(pid: number, spec: OciSpec, fresh: ReadonlyMap<string, string>): SavedNetwork | undefined {
  try {
    const lo = plainNetwork(pid);
    if (lo === undefined) return undefined;
    const sysctls = changedSysctls(settingsInside(pid, fresh.keys()), fresh, spec);
    return { parts: {}, links: [`link set lo mtu ${lo.mtu}`], up: lo.up ? [] : ['link set lo down'], sysctls };
  } catch {
    return undefined;
  }
}

/** Reads the network namespace of a process. `program`: path of stasis-network. */
export async function readNetwork(pid: number, spec: OciSpec, program: string, signal: AbortSignal | undefined): Promise<NetworkReading> {
  const plain = readPlain(pid, spec, await defaults(program, signal));
  if (plain !== undefined) return { network: plain, lost: [] };
  const { status, stdout, stderr } = await run('nsenter', ['-t', String(pid), '-n', program, 'save'], { signal, timeoutMs: TIMEOUT_MS });
  const saved = parse(stdout);
  const listed = saved.get('links');
  if (status !== 0 || listed === undefined || stdout.length > MAX_BYTES) {
    const why = stdout.length > MAX_BYTES ? 'it has too many addresses, routes and rules' : stderr.trim().split('\n').at(-1) ?? '';
    return { lost: [`the container's network namespace: it could not be read (${printable(why)}); are ip and nft installed on this node?`] };
  }
  const all = JSON.parse(Buffer.from(listed, 'base64').toString('utf8')) as Link[];
  const { links, up, lost } = linesOf(all);
  // Addresses and routes of a link that is not there keep each other from coming back.
  const names = lost.length > 0 ? ['nft'] : PARTS;
  const parts = Object.fromEntries(names.flatMap((name) => (saved.has(name) ? [[name, saved.get(name)!]] : [])));
  const sysctls = changedSysctls(parseSysctls(Buffer.from(saved.get('sysctls') ?? '', 'base64').toString('utf8')), await defaults(program, signal), spec);
  if (lost.length === 0) return { network: { parts, links, up, sysctls }, lost };
  return { network: { parts, links: [], up: [], sysctls: withoutInterfaces(
    sysctls, new Set(all.map(({ ifname }) => ifname).filter((name) => name !== 'lo')),
  ) }, lost };
}

/** Writes what stasis-network restores into a directory of its own. */
export function layOutNetwork(directory: string, network: SavedNetwork): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const write = (name: string, content: string | Buffer): void => writeFileSync(join(directory, name), content, { mode: 0o600 });
  write('sysctls', Object.entries(network.sysctls).map(([path, value]) => `${path} ${value}\n`).join(''));
  for (const name of PARTS) if (network.parts[name] !== undefined) write(name, Buffer.from(network.parts[name], 'base64'));
  write('links', network.links.map((line) => `${line}\n`).join(''));
  write('up', network.up.map((line) => `${line}\n`).join(''));
}

