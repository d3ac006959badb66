/** Sockets whose other end, protocol or state CRIU cannot save. */
import { socketNetwork, socketProtocol, unixSockets, type UnixSocket } from '../../host/sockets.ts';
import type { Finding } from '../types.ts';
import { printable } from '../text.ts';
import { descriptorsOf, fatal, warning, who, type ProcessView, type Scene } from './findings.ts';
import { hasInetTrouble } from './host-checks.ts';
import { TCP_LISTENING, datagramSockets, otherInodes, tcpSockets, type InetSocket } from './socket-tables.ts';

interface Held {
  readonly process: ProcessView;
  readonly fd: number;
  readonly inode: number;
}

const CLOSED = '07';

const protocolHints: Readonly<Record<string, string>> = {
  MPTCP: 'switch multipath TCP off in the program (Go: GODEBUG=multipathtcp=0)',
  SCTP: 'SCTP cannot be saved: use TCP',
};

/** Sockets of one network namespace, by who holds them; each inode once. */
function heldByNetwork(scene: Scene): Map<string, Held[]> {
  const seen = new Set<number>();
  const networks = new Map<string, Held[]>();
  for (const { process, fd, target } of descriptorsOf(scene, (name) => name.startsWith('socket:['))) {
    const inode = Number(target.slice('socket:['.length, -1));
    if (seen.has(inode)) continue;
    seen.add(inode);
    const network = process.namespaces.net ?? '';
    networks.set(network, [...(networks.get(network) ?? []), { process, fd, inode }]);
  }
  return networks;
}

function checkUnix({ process, fd }: Held, socket: UnixSocket, peer: UnixSocket | undefined, scene: Scene): Finding[] {
  const name = socket.name ?? peer?.name;
  const what = `${who(process)} is connected by a UNIX ${socket.type} socket${name === undefined ? '' : ` (${printable(name)})`}, descriptor ${fd}, with a process outside the container`;
  if (socket.type !== 'datagram') {
    const hint = fd <= 2 ? 'start the container with pipes or files as its standard descriptors, not sockets' : 'close that connection before a checkpoint: CRIU saves a UNIX stream only with both ends';
    return [fatal('external-unix-socket', what, hint, process)];
  }
  if (scene.flags.extUnixSk) return [];
  return [fatal('external-unix-socket', what, 'use --ext-unix-sk if that socket can be found under the same path after the restore', process)];
}

function checkTcp(held: readonly { at: Held; socket: InetSocket }[], scene: Scene): Finding[] {
  const findings: Finding[] = [];
  const connected = held.filter(({ socket }) => socket.state !== TCP_LISTENING && socket.state !== CLOSED);
  const first = connected[0];
  if (first !== undefined && !scene.flags.tcpEstablished) {
    const { at, socket } = first;
    findings.push(fatal('tcp-established', `${who(at.process)} has the TCP connection ${socket.local} to ${socket.remote} open, descriptor ${at.fd}${connected.length > 1 ? `, and there are ${connected.length - 1} more` : ''}`, 'use --tcp-established to save connections, or close them first', at.process));
  }
  return findings;
}

/** Protocols that CRIU saves, as the kernel names them; each also with "v6" at its end. */
const SAVED_PROTOCOLS = /^(TCP|UDP|UDP-Lite|UDPLITE|RAW|PING|UNIX|UNIX-STREAM|NETLINK|PACKET)(v6)?$/;

/**
 * `known`: the socket stands in a table of the container's network. One that is not there is unbound, or its connection was
 * refused, was reset or has ended: CRIU saves those, too. Only its namespace tells whether it was made somewhere else.
 */
function checkProtocol({ process, fd }: Held, known: boolean, scene: Scene): Finding[] {
  const protocol = socketProtocol(process.pid, fd);
  if (protocol !== undefined && !SAVED_PROTOCOLS.test(protocol)) {
    return [fatal('socket', `${who(process)} has a socket of protocol ${printable(protocol)} open, descriptor ${fd}, which CRIU cannot save`, protocolHints[protocol.replace(/v6$/, '')] ?? 'let the program close it before a checkpoint', process)];
  }
  if (known || protocol === undefined) return [];
  const network = socketNetwork(process.pid, fd);
  if (network === undefined || scene.tree.processes.some(({ namespaces }) => namespaces.net === network)) return [];
  return [fatal('foreign-socket', `descriptor ${fd} of ${who(process)} is a socket (${protocol}) made outside the container's network namespace`, 'start the container without handing it sockets of the node', process)];
}

/** UNIX sockets of a namespace by inode; undefined when the kernel does not tell. */
function unixByInode(pid: number): Map<number, UnixSocket> | undefined {
  try {
    return new Map(unixSockets(pid).map((socket) => [socket.inode, socket]));
  } catch {
    return undefined;
  }
}

function checkNetwork(held: readonly Held[], everywhere: ReadonlySet<number>, scene: Scene): Finding[] {
  const pid = held[0]!.process.pid;
  const unix = unixByInode(pid);
  if (unix === undefined) return [warning('sockets', 'the kernel does not tell the ends of UNIX sockets (no unix_diag)', 'sockets connected to the outside are seen by the dump only')];
  const findings: Finding[] = [];
  const others: Held[] = [];
  for (const at of held) {
    const socket = unix.get(at.inode);
    if (socket === undefined) others.push(at);
    else if (socket.peer !== undefined && !everywhere.has(socket.peer)) findings.push(...checkUnix(at, socket, unix.get(socket.peer), scene));
  }
  if (others.length === 0) return findings;
  const tcp = tcpSockets(pid);
  const tcpByInode = new Map(tcp.map((socket) => [socket.inode, socket]));
  const datagrams = new Set(datagramSockets(pid).map(({ inode }) => inode));
  const known = otherInodes(pid);
  const heldTcp = others.flatMap((at) => {
    const socket = tcpByInode.get(at.inode);
    return socket === undefined ? [] : [{ at, socket }];
  });
  const inet = others.find(({ inode }) => tcpByInode.has(inode) || datagrams.has(inode));
  if (inet !== undefined && hasInetTrouble(scene)) {
    findings.push(fatal('criu', `criu ${scene.toolchain.criu.text} cannot dump the internet socket of ${who(inet.process)}, descriptor ${inet.fd}, on kernel ${scene.toolchain.kernel}`, 'install criu 4.2 or newer', inet.process));
  }
  findings.push(...checkTcp(heldTcp, scene));
  findings.push(...others.flatMap((at) => checkProtocol(at, tcpByInode.has(at.inode) || datagrams.has(at.inode) || known.has(at.inode), scene)));
  return findings;
}

export function checkSockets(scene: Scene): Finding[] {
  const networks = heldByNetwork(scene);
  const everywhere = new Set([...networks.values()].flat().map(({ inode }) => inode));
  return [...networks.values()].flatMap((held) => checkNetwork(held, everywhere, scene));
}
