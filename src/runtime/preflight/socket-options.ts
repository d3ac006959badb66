/**
 * Options of sockets that CRIU neither reads nor sets. They are judged by what a new socket has in the same network
 * namespace, because some defaults are settings of that namespace.
 */
import { closeSync } from 'node:fs';
import { duplicateDescriptors } from '../../host/libc.ts';
import { openSocket, socketOption, socketValue, socketWords } from '../../host/sockets.ts';
import type { Finding } from '../types.ts';
import { descriptorsOf, fatal, lost, who, type ProcessView, type Scene } from './findings.ts';
import { AGAIN } from './waiting-checks.ts';

const [SOL_SOCKET, IP, TCP, UDP, IPV6, PACKET, NETLINK] = [1, 0, 6, 17, 41, 263, 270];
const [AF_INET, AF_INET6, AF_NETLINK, AF_PACKET] = [2, 10, 16, 17];
const [SO_TYPE, SO_PROTOCOL, SO_DOMAIN] = [3, 38, 39];
const [UDP_CORK, TCP_INFO, TCP_ULP] = [1, 11, 31];
/** Words of 32 groups that a netlink socket is a member of; CRIU knows the first one. */
const NETLINK_LIST_MEMBERSHIPS = 9;
/** The first byte of tcp_info. */
const [TCP_CLOSE, TCP_LISTEN] = [7, 10];

type Options = Readonly<Record<string, number>>;

const OF_ALL: Options = {
  SO_DEBUG: 1, SO_TIMESTAMP: 29, SO_TIMESTAMPNS: 35, SO_TIMESTAMPING: 37, SO_RXQ_OVFL: 40, SO_WIFI_STATUS: 41,
  SO_PEEK_OFF: 42, SO_NOFCS: 43, SO_LOCK_FILTER: 44, SO_SELECT_ERR_QUEUE: 45, SO_BUSY_POLL: 46, SO_MAX_PACING_RATE: 47,
  SO_ZEROCOPY: 60, SO_TXTIME: 61, SO_TIMESTAMP_NEW: 63, SO_TIMESTAMPNS_NEW: 64, SO_TIMESTAMPING_NEW: 65,
  SO_PREFER_BUSY_POLL: 69, SO_BUSY_POLL_BUDGET: 70, SO_RESERVE_MEM: 73, SO_TXREHASH: 74, SO_RCVMARK: 75,
  SO_PASSPIDFD: 76, SO_RCVPRIORITY: 82, SO_PASSRIGHTS: 83,
};
/** CRIU brings it back for IP sockets only. */
const OF_LOCAL: Options = { SO_REUSEADDR: 2 };
const OF_IP: Options = {
  IP_OPTIONS: 4, IP_ROUTER_ALERT: 5, IP_RECVOPTS: 6, IP_RETOPTS: 7, IP_MTU_DISCOVER: 10,
  IP_RECVERR: 11, IP_RECVTTL: 12, IP_RECVTOS: 13,
  IP_PASSSEC: 18, IP_TRANSPARENT: 19, IP_RECVORIGDSTADDR: 20, IP_MINTTL: 21, IP_CHECKSUM: 23,
  IP_BIND_ADDRESS_NO_PORT: 24, IP_RECVFRAGSIZE: 25, IP_RECVERR_RFC4884: 26, IP_UNICAST_IF: 50, IP_LOCAL_PORT_RANGE: 51,
  IP_MULTICAST_IF: 32, IP_MULTICAST_TTL: 33, IP_MULTICAST_LOOP: 34, IP_MULTICAST_ALL: 49,
};
/** Of a socket of IPv6 CRIU forgets what packets of IPv4 are sent with. */
const OF_IP_IN_IPV6: Options = { IP_TOS: 1, IP_TTL: 2, IP_PKTINFO: 8 };
const OF_IPV6: Options = {
  IPV6_2292PKTINFO: 2, IPV6_2292HOPOPTS: 3, IPV6_2292DSTOPTS: 4, IPV6_2292RTHDR: 5, IPV6_CHECKSUM: 7,
  IPV6_2292HOPLIMIT: 8, IPV6_FLOWINFO: 11,
  IPV6_UNICAST_HOPS: 16, IPV6_ROUTER_ALERT: 22, IPV6_MTU_DISCOVER: 23, IPV6_RECVERR: 25,
  IPV6_ROUTER_ALERT_ISOLATE: 30, IPV6_RECVERR_RFC4884: 31,
  IPV6_FLOWINFO_SEND: 33, IPV6_RECVHOPLIMIT: 51, IPV6_RECVHOPOPTS: 53, IPV6_HOPOPTS: 54, IPV6_RTHDRDSTOPTS: 55,
  IPV6_RECVRTHDR: 56, IPV6_RTHDR: 57, IPV6_RECVDSTOPTS: 58, IPV6_DSTOPTS: 59, IPV6_RECVPATHMTU: 60, IPV6_DONTFRAG: 62,
  IPV6_RECVTCLASS: 66, IPV6_TCLASS: 67, IPV6_AUTOFLOWLABEL: 70, IPV6_ADDR_PREFERENCES: 72, IPV6_MINHOPCOUNT: 73,
  IPV6_RECVORIGDSTADDR: 74, IPV6_TRANSPARENT: 75, IPV6_UNICAST_IF: 76, IPV6_RECVFRAGSIZE: 77,
  IPV6_MULTICAST_IF: 17, IPV6_MULTICAST_HOPS: 18, IPV6_MULTICAST_LOOP: 19, IPV6_MULTICAST_ALL: 29,
};
const OF_TCP: Options = {
  TCP_SYNCNT: 7, TCP_LINGER2: 8, TCP_DEFER_ACCEPT: 9, TCP_CONGESTION: 13, TCP_THIN_LINEAR_TIMEOUTS: 16,
  TCP_THIN_DUPACK: 17, TCP_USER_TIMEOUT: 18, TCP_FASTOPEN: 23, TCP_NOTSENT_LOWAT: 25, TCP_SAVE_SYN: 27,
  TCP_FASTOPEN_CONNECT: 30, TCP_FASTOPEN_NO_COOKIE: 34, TCP_INQ: 36, TCP_TX_DELAY: 37, TCP_RTO_MAX_MS: 44,
};
/** Of a connection the kernel tells with them what it has come to, not what was set. */
const OF_TCP_LISTENING: Options = { TCP_MAXSEG: 2, TCP_WINDOW_CLAMP: 10 };
const OF_UDP: Options = {
  UDP_ENCAP: 100, UDP_NO_CHECK6_TX: 101, UDP_NO_CHECK6_RX: 102, UDP_SEGMENT: 103, UDP_GRO: 104,
};
const OF_NETLINK: Options = {
  NETLINK_PKTINFO: 3, NETLINK_BROADCAST_ERROR: 4, NETLINK_NO_ENOBUFS: 5, NETLINK_LISTEN_ALL_NSID: 8,
  NETLINK_CAP_ACK: 10, NETLINK_EXT_ACK: 11, NETLINK_GET_STRICT_CHK: 12,
};
const OF_PACKET: Options = { PACKET_TX_HAS_OFF: 19, PACKET_QDISC_BYPASS: 20, PACKET_IGNORE_OUTGOING: 23 };

export interface SocketKind {
  readonly domain: number;
  readonly type: number;
  readonly protocol: number;
}

/** Level and options that CRIU loses for a socket of this kind. */
export function optionsLost({ domain, protocol }: SocketKind, listening: boolean): (readonly [number, Options])[] {
  const internet = domain === AF_INET || domain === AF_INET6;
  const levels: (readonly [number, Options])[] = [[SOL_SOCKET, OF_ALL]];
  if (!internet) levels.push([SOL_SOCKET, OF_LOCAL]);
  if (domain === AF_NETLINK) levels.push([NETLINK, OF_NETLINK]);
  if (domain === AF_PACKET) levels.push([PACKET, OF_PACKET]);
  if (!internet) return levels;
  levels.push([IP, OF_IP]);
  if (domain === AF_INET6) levels.push([IP, OF_IP_IN_IPV6], [IPV6, OF_IPV6]);
  if (protocol === TCP) levels.push([TCP, OF_TCP]);
  if (protocol === TCP && listening) levels.push([TCP, OF_TCP_LISTENING]);
  if (protocol === UDP) levels.push([UDP, OF_UDP]);
  return levels;
}

/** New sockets, one of each kind, in the network namespace of a process; closed together. */
class NewSockets implements Disposable {
  readonly #pid: number;
  readonly #made = new Map<string, number | undefined>();

  constructor(pid: number) {
    this.#pid = pid;
  }

  /** Undefined when the kernel makes none of that kind for us. */
  like({ domain, type, protocol }: SocketKind): number | undefined {
    const key = `${domain} ${type} ${protocol}`;
    // With a protocol it would begin to listen to the interfaces.
    const quiet = domain === AF_PACKET ? 0 : protocol;
    if (!this.#made.has(key)) this.#made.set(key, openSocket(this.#pid, domain, type, quiet));
    return this.#made.get(key);
  }

  [Symbol.dispose](): void {
    for (const fd of this.#made.values()) if (fd !== undefined) closeSync(fd);
  }
}

function changedOptions(copy: number, kind: SocketKind, usual: NewSockets): string[] {
  const fresh = usual.like(kind);
  if (fresh === undefined) return [];
  const state = kind.protocol === TCP ? (socketOption(copy, TCP, TCP_INFO) ?? TCP_CLOSE) % 256 : TCP_CLOSE;
  const isConnected = state !== TCP_CLOSE && state !== TCP_LISTEN;
  return optionsLost(kind, state === TCP_LISTEN).flatMap(([level, options]) => Object.keys(options).filter((name) => {
    // The kernel gives a connection that it accepts those of the first packet.
    if (isConnected && name.includes('MULTICAST')) return false;
    const [now, was] = [copy, fresh].map((fd) => socketValue(fd, level, options[name]!));
    return now !== undefined && was !== undefined && now !== was;
  }));
}

/** Sockets that are asked; a copy of each is held for a moment. */
const MAX_SOCKETS = 512;

/** Whose dump or restore would fail, or break it. */
function refused(
  process: ProcessView, fd: number, copy: number, { domain, protocol }: SocketKind,
): Finding | undefined {
  const words = domain === AF_NETLINK ? socketWords(copy, NETLINK, NETLINK_LIST_MEMBERSHIPS) : [];
  if (words.slice(1).some((word) => word !== 0)) return fatal(
    'socket', `${who(process)} listens to a netlink group above 32, descriptor ${fd}`,
    'let the program leave that group, or end the monitor (ip monitor, udev)', process,
  );
  if (domain !== AF_INET && domain !== AF_INET6) return undefined;
  if (protocol === UDP && (socketOption(copy, UDP, UDP_CORK) ?? 0) !== 0) return fatal(
    'corked', `${who(process)} has a corked UDP socket open (UDP_CORK), descriptor ${fd}`,
    `${AGAIN}; a program that corks its socket for good must take UDP_CORK off`, process,
  );
  if (protocol === TCP && (socketOption(copy, TCP, TCP_ULP) ?? 0) !== 0) return fatal(
    'socket', `${who(process)} has a TCP connection with a protocol in the kernel (TLS, TCP_ULP), descriptor ${fd}`,
    'switch kernel TLS off in the program: CRIU would bring the connection back without its keys', process,
  );
  return undefined;
}

function judge(process: ProcessView, fd: number, copy: number, usual: NewSockets): Finding | undefined {
  const [domain, type, protocol] = [SO_DOMAIN, SO_TYPE, SO_PROTOCOL].map(
    (name) => socketOption(copy, SOL_SOCKET, name)
  );
  if (domain === undefined || type === undefined || protocol === undefined) return undefined;
  const kind = { domain, type, protocol };
  const bad = refused(process, fd, copy, kind);
  if (bad !== undefined) return bad;
  const changed = changedOptions(copy, kind, usual);
  return changed.length === 0 ? undefined : lost(
    `${changed.join(', ')} of the socket of ${who(process)}, descriptor ${fd},`,
    'let the program set the option again: after a restore the socket has the kernel\'s default', process,
  );
}

/** One finding for each process, kind and set of options. */
export function checkSocketOptions(scene: Scene): Finding[] {
  const [init] = scene.tree.processes;
  if (init === undefined) return [];
  using usual = new NewSockets(init.pid);
  const findings: Finding[] = [];
  const seen = new Set<string>();
  let asked = 0;
  for (const { process, fd, target } of descriptorsOf(scene, (name) => name.startsWith('socket:['))) {
    if (seen.has(target) || asked >= MAX_SOCKETS) continue;
    seen.add(target);
    asked += 1;
    let copy: number | undefined;
    try {
      [copy] = duplicateDescriptors(process.pid, [fd]);
      if (copy === undefined) continue;
      const found = judge(process, fd, copy, usual);
      const key = found?.message.replace(/descriptor \d+/, '') ?? '';
      if (found !== undefined && !seen.has(key)) findings.push(found);
      seen.add(key);
    } catch {
      // Gone, or the agent may not look: the dump tells.
    } finally {
      if (copy !== undefined) closeSync(copy);
    }
  }
  return findings;
}
