/**
 * What is on its way just now and cannot be saved: unread answers and datagrams, connections that nobody has accepted.
 * It passes by itself, so it counts only when it is still there after a moment.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { readProc } from '../../host/proc.ts';
import { unixSockets } from '../../host/sockets.ts';
import type { Finding } from '../types.ts';
import { printable } from '../text.ts';
import { TCP_ESTABLISHED, TCP_LISTENING, datagramSockets, tcpSockets } from './socket-tables.ts';
import { descriptorsOf, fatal, lost, who, type ProcessView, type Scene } from './findings.ts';

const LOOKS = 3;
const PAUSE_MS = 20;

export const AGAIN = 'try again in a moment; if it stays, let the program read, accept or close what waits there';

interface Held {
  readonly process: ProcessView;
  readonly fd: number;
}

/** Sockets of one network namespace by inode, each with the first who holds it. */
function heldSockets(scene: Scene): Map<string, Map<number, Held>> {
  const networks = new Map<string, Map<number, Held>>();
  for (const { process, fd, target } of descriptorsOf(scene, (name) => name.startsWith('socket:['))) {
    const network = process.namespaces.net ?? '';
    const held = networks.get(network) ?? new Map<number, Held>();
    networks.set(network, held);
    const inode = Number(target.slice('socket:['.length, -1));
    if (!held.has(inode)) held.set(inode, { process, fd });
  }
  return networks;
}

/** A connection that waits is saved, but not the bytes that its maker has sent, and not one that its maker has closed. */
function unixWaiting(pid: number, held: ReadonlyMap<number, Held>): Map<string, Finding> {
  const found = new Map<string, Finding>();
  let all;
  try {
    all = new Map(unixSockets(pid).map((socket) => [socket.inode, socket]));
  } catch {
    return found;
  }
  for (const [inode, at] of held) {
    const socket = all.get(inode);
    if (socket?.state !== 'listening') continue;
    const closed = socket.waiting.filter((maker) => maker === 0).length;
    const written = socket.waiting.filter((maker) => (all.get(maker)?.unread ?? 0) > 0).length;
    if (closed + written === 0) continue;
    const name = socket.name === undefined ? '' : ` (${printable(socket.name)})`;
    const what = [written > 0 ? `${written} with data` : '', closed > 0 ? `${closed} closed again` : ''].filter(Boolean).join(', ');
    found.set(`unix ${inode}`, fatal('in-flight', `connections to the UNIX socket of ${who(at.process)}${name}, descriptor ${at.fd}, were not accepted yet (${what})`, AGAIN, at.process));
  }
  return found;
}

/** A TCP connection that nobody has accepted has no inode yet. */
function tcpWaiting(pid: number, held: ReadonlyMap<number, Held>): Map<string, Finding> {
  const all = tcpSockets(pid);
  const found = new Map<string, Finding>();
  for (const { inode, localPort } of all.filter(({ state }) => state === TCP_LISTENING)) {
    const at = held.get(inode);
    if (at === undefined) continue;
    for (const { local, remote } of all.filter(
      (socket) => socket.inode === 0 && socket.state === TCP_ESTABLISHED && socket.localPort === localPort
    )) {
      found.set(`tcp ${local} ${remote}`, fatal(
        'in-flight',
        `the connection from ${remote} to port ${localPort} of ${who(at.process)}, descriptor ${at.fd}, was not `
        + 'accepted yet', `${AGAIN}; --tcp-skip-in-flight leaves such connections out`, at.process,
      ));
    }
  }
  return found;
}

/** /proc/net/netlink: "sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode". */
function netlinkWaiting(pid: number, held: ReadonlyMap<number, Held>): Map<string, Finding> {
  const found = new Map<string, Finding>();
  for (const line of (readProc(pid, 'net/netlink') ?? '').split('\n').slice(1)) {
    const fields = line.trim().split(/\s+/);
    const at = held.get(Number(fields.at(-1)));
    if (at === undefined || Number(fields[4]) === 0) continue;
    found.set(`netlink ${fields.at(-1)}`, fatal('in-flight', `a netlink socket of ${who(at.process)}, descriptor ${at.fd}, holds answers that were not read yet`, AGAIN, at.process));
  }
  return found;
}

/** Who sends datagrams must be ready to lose some; who waits for their answers should know. */
function datagramsWaiting(pid: number, held: ReadonlyMap<number, Held>): Map<string, Finding> {
  const waiting = datagramSockets(pid).filter(({ unread }) => unread > 0);
  return new Map(waiting.flatMap(({ inode, local }): [string, Finding][] => {
    const at = held.get(inode);
    return at === undefined ? [] : [[`datagrams ${inode}`, lost(
      `what the socket of ${who(at.process)} at ${local}, descriptor ${at.fd}, has received and nobody has read`,
      'let the program read it first; what is sent again after a restore arrives', at.process,
    )]];
  }));
}

function look(scene: Scene): Map<string, Finding> {
  const found = [...heldSockets(scene).values()].flatMap((held) => {
    const { pid } = [...held.values()][0]!.process;
    return [...unixWaiting(pid, held), ...netlinkWaiting(pid, held), ...datagramsWaiting(pid, held), ...(
      scene.flags.tcpSkipInFlight === true ? [] : tcpWaiting(pid, held)
    )];
  });
  return new Map(found);
}

export async function checkWaiting(scene: Scene): Promise<Finding[]> {
  let found = look(scene);
  for (let done = 1; done < LOOKS && found.size > 0; done++) {
    await delay(PAUSE_MS);
    const again = look(scene);
    found = new Map([...found].filter(([key]) => again.has(key)));
  }
  return [...found.values()];
}
