/** Whether a network namespace is as the kernel makes it: the loopback interface and nothing else. Synchronous. */
import { readFileSync } from 'node:fs';
import { insideNamespaces } from './in-namespaces.ts';
import { Netlink } from './netlink.ts';
import { readNetworkTables } from './route-tables.ts';

/** RTM_GETADDR of linux/rtnetlink.h; NFT_MSG_GETTABLE of NFNL_SUBSYS_NFTABLES in linux/netfilter/. */
const GET_ADDRESSES = 22;
const GET_TABLES = 0x0a01;

/** Of a new namespace, in the words of readNetworkTables. A kernel with others has none that is plain. */
const RULES = [
  '4 0: from all action 1 table 255', '4 32766: from all action 1 table 254', '4 32767: from all action 1 table 253',
  '6 0: from all action 1 table 255', '6 32766: from all action 1 table 254',
].map((rule) => `${rule} #14=ffffffff #21=02`).join('\n');
const ADDRESSES = ['lo 127.0.0.1/8 scope 254 lo', 'lo ::1/128 scope 254'];

/** What its loopback interface is, with no address but those that the kernel gives it; undefined: there is more. */
export function plainNetwork(pid: number): { readonly up: boolean; readonly mtu: number } | undefined {
  const { links, addresses, routes, rules } = readNetworkTables(pid);
  const [, state = '', mtu = ''] = /^lo (up|down) mtu (\d+)$/.exec(links.join('\n')) ?? [];
  const up = state === 'up';
  const expected = up ? ADDRESSES : [];
  const plain = state !== '' && routes.length === 0 && rules.join('\n') === RULES
    && addresses.join('\n') === expected.join('\n') && count(pid, 'route', GET_ADDRESSES) === expected.length
    && count(pid, 'netfilter', GET_TABLES) === 0;
  return plain ? { up, mtu: Number(mtu) } : undefined;
}

function count(pid: number, protocol: 'route' | 'netfilter', type: number): number {
  using netlink = Netlink.open(protocol, pid);
  return netlink.dump(type, Buffer.alloc(16)).length;
}

/** Settings of the network namespace of a process, by paths below /proc/sys: of several lines the last. */
export function settingsInside(pid: number, paths: Iterable<string>): Map<string, string> {
  return insideNamespaces(pid, ['net'], () => new Map([...paths].flatMap((path): [string, string][] => {
    const value = lastLine(`/proc/sys/${path}`);
    return value === undefined ? [] : [[path, value]];
  })));
}

function lastLine(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').split('\n').findLast((line) => line !== '');
  } catch {
    return undefined;
  }
}
