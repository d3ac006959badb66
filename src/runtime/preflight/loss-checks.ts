/** What CRIU leaves out without a word: multicast memberships, parts of networks, attributes of files in memory. */
import { closeSync, constants, readdirSync } from 'node:fs';
import { readNetworkExtras, type NetworkExtras } from '../../host/network-extras.ts';
import { readProc } from '../../host/proc.ts';
import { readNetworkTables } from '../../host/route-tables.ts';
import { attributesOf, statOpen, withinRoot } from '../../host/still-files.ts';
import { O_PATH, isGone, openConfined } from '../../host/tree-calls.ts';
import type { Finding } from '../types.ts';
import { isBindMount } from '../spec.ts';
import { printable } from '../text.ts';
import { TAR_ATTRIBUTES } from '../toolchain.ts';
import { fatal, lost, type ProcessView, type Scene } from './findings.ts';

/** Groups that the kernel joins by itself: all hosts, all routers, all snoopers (of a bridge), solicited nodes. */
const KERNEL_GROUPS = /^(224\.0\.0\.([12]|106)|ff0[1-5]:0:0:0:0:0:0:([12]|6a)|ff02:0:0:0:0:1:ff.*)$/;

/** /proc/net/igmp: a line for each device, "1\tlo        :     1      V3", then its groups, "\t\t\t\t010000E0     1 0:00000000\t\t0". */
export function parseIgmp(text: string): string[] {
  let device = '';
  return text.split('\n').flatMap((line) => {
    device = /^\d+\s+(\S+)\s*:/.exec(line)?.[1] ?? device;
    const group = /^\s+([0-9A-F]{8})\s/.exec(line)?.[1];
    if (group === undefined) return [];
    const bytes = (group.match(/../g) ?? []).map((byte) => Number.parseInt(byte, 16)).toReversed();
    return KERNEL_GROUPS.test(bytes.join('.')) ? [] : [`${bytes.join('.')} (${device})`];
  });
}

/** /proc/net/igmp6: "1    lo              ff020000000000000000000000000001     1 0000000C 0". */
export function parseIgmp6(text: string): string[] {
  return [...text.matchAll(/^\d+\s+(\S+)\s+([0-9a-f]{32})\s/gm)].flatMap(([, device = '', hex = '']) => {
    const address = (hex.match(/.{4}/g) ?? []).map((group) => Number.parseInt(group, 16).toString(16)).join(':');
    return KERNEL_GROUPS.test(address) ? [] : [`${address} (${device})`];
  });
}

/** The first process of a container whose network is its own, made by the runtime: one with a path stays, and others may be in it. */
function ownNetwork({ container, tree, own }: Scene): ProcessView | undefined {
  const [init] = tree.processes;
  const given = container.spec.linux?.namespaces?.some(({ type, path }) => type === 'network' && path !== undefined && path !== '') === true;
  return init === undefined || init.namespaces.net === own.net || given ? undefined : init;
}

/** Devices that the kernel makes in every network where their module is loaded. */
const KERNEL_DEVICES = /^(lo|tunl0|gre0|gretap0|erspan0|ip_vti0|ip6_vti0|sit0|ip6tnl0|ip6gre0)$/;
/** Kinds that a restore makes again; the rest has another end somewhere. */
const MADE_AGAIN = /^(dummy|ifb|bridge|vlan)$/;

interface Interface {
  readonly name: string;
  /** "veth"; empty for hardware, and where the kernel does not tell. */
  readonly kind: string;
}

function interfacesOf(pid: number): Interface[] {
  try {
    return readNetworkTables(pid).links.map((line) => line.split(' ')).map(
      ([name = '', kind = '']) => ({ name, kind })
    );
  } catch {
    return [...(readProc(pid, 'net/dev') ?? '').matchAll(/^\s*(\S+?):/gm)].map(([, name = '']) => ({ name, kind: '' }));
  }
}

/**
 * Many come back (put-back/network.ts). One with another end or hardware outside does not, and then neither do
 * addresses and routes of the others.
 */
export function checkNetworkDevices(scene: Scene): Finding[] {
  const init = ownNetwork(scene);
  if (init === undefined) return [];
  const interfaces = interfacesOf(init.pid).filter(({ name }) => !KERNEL_DEVICES.test(name));
  const hint = 'give the container a network namespace with a path (as engines do), in which interfaces stay';
  if (scene.container.at.runtime === 'crun') return ofCrun(interfaces, hint);
  const gone = interfaces.filter(({ kind }) => !MADE_AGAIN.test(kind));
  if (gone.length === 0) return [];
  const others = interfaces.length > gone.length ? ', and with it every other interface,' : '';
  return [lost(
    `the network interface ${several(gone)} in the container's own network${others} with its addresses and routes`,
    `${hint}; or restore into a bundle of yours (stasis restore --bundle) whose createRuntime hook makes it again `
    + '(runc runs it then, too), with --allow-difference for what the hook makes',
  )];
}

/**
 * crun has CRIU save the network namespace, which runc leaves out. CRIU makes a pair of veth anew, its other end on the
 * node.
 */
function ofCrun(interfaces: readonly Interface[], hint: string): Finding[] {
  const unknown = interfaces.filter(({ kind }) => kind !== '' && !CRIU_KINDS.has(kind));
  if (unknown.length > 0) return [fatal(
    'link', `the network interface ${several(unknown)} is of a kind that CRIU does not know`,
    `${hint}, or delete the interface before a checkpoint; with runc such interfaces are none of CRIU's business`,
  )];
  const pairs = interfaces.filter(({ kind }) => kind !== 'bridge');
  return pairs.length === 0 ? [] : [lost(
    `what the other end of the network interface ${several(pairs)} was connected to, and with it the addresses and `
    + 'routes of every interface,', `${hint}; or connect the new other end, which a restore leaves on the node`,
  )];
}

const CRIU_KINDS: ReadonlySet<string> = new Set(['veth', 'tun', 'bridge', 'macvlan', 'gre', 'sit']);

function several(interfaces: readonly Interface[]): string {
  const more = interfaces.length > 3 ? ` and ${interfaces.length - 3} more` : '';
  const words = interfaces.slice(0, 3).map(({ name, kind }) => (
    `${printable(name)} (${kind === '' ? 'of the node' : printable(kind)})`
  ));
  return `${words.join(', ')}${more}`;
}

/** What a restore makes again is in put-back/network.ts. */
export function checkNetworkExtras(scene: Scene): Finding[] {
  const init = ownNetwork(scene);
  if (init === undefined) return [];
  const { neighbours, queueing, nextHops, ipsec } = readExtras(init.pid);
  const own = 'the container\'s own network';
  const path = 'give the container a network namespace with a path (as engines do)';
  const hint = `let the program set it up again after a restore, or ${path}`;
  const findings: Finding[] = [];
  if (nextHops > 0) findings.push(fatal(
    'network',
    `${own} has ${nextHops} next hop object${nextHops === 1 ? '' : 's'} (ip nexthop), which a restore cannot bring `
      + 'back',
    `write the next hops into the routes themselves and delete the objects, or ${path}`,
  ));
  if (neighbours > 0) findings.push(lost(
    `what somebody has written into the table of neighbours of ${own} (${neighbours}, ip neigh)`, hint,
  ));
  if (queueing.length > 0) findings.push(
    lost(`the queueing in ${own} (tc: ${queueing.map(printable).join(', ')})`, hint),
  );
  if (ipsec > 0) findings.push(lost(`the IPsec set-up of ${own} (ip xfrm: ${ipsec} policies and states)`, hint));
  return findings;
}

function readExtras(pid: number): NetworkExtras {
  try {
    return readNetworkExtras(pid);
  } catch {
    return { neighbours: 0, queueing: [], nextHops: 0, ipsec: 0 };
  }
}

export function checkMulticast(scene: Scene): Finding[] {
  const init = ownNetwork(scene);
  if (init === undefined) return [];
  const groups = [...parseIgmp(readProc(init.pid, 'net/igmp') ?? ''), ...parseIgmp6(readProc(init.pid, 'net/igmp6') ?? '')];
  if (groups.length === 0) return [];
  const more = groups.length > 3 ? ` and ${groups.length - 3} more` : '';
  return [lost(`the membership of the container in the multicast group ${groups.slice(0, 3).map(printable).join(', ')}${more}`, 'let the program join again after a restore, or restart it: until then it does not hear the group')];
}

/** Entries that are looked at in all file systems in memory together; one costs some ten microseconds. */
const MAX_ENTRIES = 512;
/** Set by the kernel from its policy. */
const OF_POLICY = 'security.selinux';

/** The first file below an open directory that has extended attributes, as a path below it. Neither links nor mounts are followed. */
function findAttributes(root: number, budget: { left: number }): string | undefined {
  const waiting = ['.'];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const fd = openConfined(root, Buffer.from(path), O_PATH | constants.O_NOFOLLOW, 0);
    try {
      if (attributesOf(fd).some((name) => name !== OF_POLICY)) return path.slice(1);
      if (((statOpen(fd)?.mode ?? 0) & constants.S_IFMT) !== constants.S_IFDIR) continue;
      for (const name of readdirSync(`/proc/self/fd/${fd}`)) {
        budget.left -= 1;
        if (budget.left < 0) return undefined;
        waiting.push(`${path}/${name}`);
      }
    } finally {
      closeSync(fd);
    }
  }
  return undefined;
}

/** A file that came and went, or lies on another mount, is no reason to stop. */
function attributesBelow(root: number, budget: { left: number }): string | undefined {
  try {
    return findAttributes(root, budget);
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

/**
 * Mounted by the container or by its runtime, not bound from the node: CRIU packs these with tar, and not every tar
 * keeps attributes.
 */
export function checkFileAttributes({ container, mounts, toolchain }: Scene): Finding[] {
  if (toolchain.features[TAR_ATTRIBUTES] === true) return [];
  const bound = new Set((container.spec.mounts ?? []).filter(isBindMount).map(({ destination }) => destination));
  const budget = { left: MAX_ENTRIES };
  return mounts.filter(({ fsType, root, mountPoint }) => fsType === 'tmpfs' && root === '/' && mountPoint !== '/' && !bound.has(mountPoint)).flatMap(({ id, mountPoint }) => {
    const found = withinRoot(container.pid, mountPoint, (fd) => (statOpen(fd)?.mountId === id ? attributesBelow(fd, budget) : undefined));
    return found === undefined ? [] : [lost(
      `what stands beside the files of ${printable(mountPoint)} (extended attributes, ACLs, file capabilities, as of `
      + `${printable(mountPoint + found)})`,
      'install GNU tar with support for extended attributes and ACLs, which criu packs a tmpfs with; or keep such '
      + 'files on the root file system or on a volume',
    )];
  });
}
