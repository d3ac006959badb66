/**
 * What a network namespace has beside interfaces, addresses, routes, rules and packet filters: neighbours that
 * somebody has written, queueing, next hop objects, IPsec (rtnetlink(7), linux/xfrm.h). Synchronous.
 */
import { Netlink, attributesOf } from './netlink.ts';
import { readProc } from './proc.ts';

/** RTM_GET… of linux/rtnetlink.h. */
const [GET_NEIGHBOURS, GET_QUEUEING, GET_NEXT_HOPS] = [30, 38, 106];
/** XFRM_MSG_GETSA and XFRM_MSG_GETPOLICY of linux/xfrm.h. */
const [GET_STATES, GET_POLICIES] = [0x12, 0x15];
const [AF_INET, AF_INET6] = [2, 10];
const NUD_PERMANENT = 0x80;
const NTF_PROXY = 8;
const TCA_KIND = 1;
const NETLINK_XFRM = '6';

export interface NetworkExtras {
  /** Neighbours that are there for good, and those that are answered for. */
  readonly neighbours: number;
  /** Kinds of queueing disciplines that somebody has set: "htb". */
  readonly queueing: readonly string[];
  readonly nextHops: number;
  /** Policies and states. */
  readonly ipsec: number;
}

function neighbours(netlink: Netlink): number {
  const proxies = Buffer.alloc(12);
  proxies.writeUInt8(NTF_PROXY, 10);
  const of = (request: Buffer): Buffer[] => netlink.dump(GET_NEIGHBOURS, request).filter(
    (body) => body.length >= 12 && [AF_INET, AF_INET6].includes(body[0]!)
  );
  const permanent = of(Buffer.alloc(12)).filter((body) => (body.readUInt16LE(8) & NUD_PERMANENT) !== 0);
  return permanent.length + of(proxies).length;
}

/** Those that the kernel chooses have no handle. */
function queueing(netlink: Netlink): string[] {
  const all = netlink.dump(GET_QUEUEING, Buffer.alloc(20)).filter((body) => body.length >= 20);
  const set = all.filter((body) => body.readUInt32LE(8) !== 0).map(
    (body) => attributesOf(body.subarray(20)).get(TCA_KIND)
  );
  return [...new Set(set.map((kind) => kind?.toString('latin1').replace(/\0.*$/s, '') ?? ''))];
}

/** The kernel loads its module for whom opens a socket of it: only where it is there already. */
function ipsec(pid: number): number {
  const there = (readProc(pid, 'net/netlink') ?? '').split('\n').some((line) => line.split(/\s+/)[1] === NETLINK_XFRM);
  if (!there) return 0;
  return [GET_STATES, GET_POLICIES].reduce((sum, type) => {
    using netlink = Netlink.open('xfrm', pid);
    return sum + netlink.dump(type, Buffer.alloc(0)).length;
  }, 0);
}

/** Of the network namespace of a process. Throws when it is gone. */
export function readNetworkExtras(pid: number): NetworkExtras {
  using netlink = Netlink.open('route', pid);
  return {
    neighbours: neighbours(netlink), queueing: queueing(netlink),
    nextHops: netlink.dump(GET_NEXT_HOPS, Buffer.alloc(8)).length, ipsec: ipsec(pid),
  };
}
