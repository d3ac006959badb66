/**
 * Who is at the other end of a loopback connection: the socket, asked for by its addresses with sock_diag(7), and whether a
 * process has it. One look-up in the kernel's table, however many sockets there are.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { Netlink } from './netlink.ts';
import { sessionLeader } from './session.ts';

const AF_INET = 2;
const IPPROTO_TCP = 6;
const SOCK_DIAG_BY_FAMILY = 20;
const LOOPBACK = 0x7f000001;
/** inet_diag_req_v2 and inet_diag_msg of linux/inet_diag.h. */
const REQUEST = 56;
const ANSWER = 72;
const [SOURCE_PORT, DESTINATION_PORT, SOURCE, DESTINATION, COOKIE, INODE] = [4, 6, 8, 24, 44, 68] as const;

/** The inode of the socket that connected from 127.0.0.1:`peerPort` to 127.0.0.1:`port`; undefined when it is gone. */
export function loopbackPeerInode(peerPort: number, port: number): number | undefined {
  using netlink = Netlink.open('sock-diag');
  const body = netlink.ask(SOCK_DIAG_BY_FAMILY, question(peerPort, port));
  if (body === undefined || body.length < ANSWER) return undefined;
  // Without such a connection the kernel may answer with whoever listens on the port.
  if (body.readUInt16BE(SOURCE_PORT) !== peerPort || body.readUInt16BE(DESTINATION_PORT) !== port) return undefined;
  const inode = body.readUInt32LE(INODE);
  return inode === 0 ? undefined : inode;
}

function question(peerPort: number, port: number): Buffer {
  const body = Buffer.alloc(REQUEST);
  body.writeUInt8(AF_INET, 0);
  body.writeUInt8(IPPROTO_TCP, 1);
  body.writeUInt32LE(0xffffffff, 4);
  // The identity of the socket follows the four bytes of states.
  body.writeUInt16BE(peerPort, SOURCE_PORT + 4);
  body.writeUInt16BE(port, DESTINATION_PORT + 4);
  body.writeUInt32BE(LOOPBACK, SOURCE + 4);
  body.writeUInt32BE(LOOPBACK, DESTINATION + 4);
  body.fill(0xff, COOKIE + 4, COOKIE + 12);
  return body;
}

export function processHoldsSocket(pid: number, inode: number): boolean {
  return descriptorsOf(pid).includes(`socket:[${inode}]`);
}

/** Whether a process or one of those that it has started, and they, has the socket: as many looks as they have descriptors. */
export function treeHoldsSocket(pid: number, inode: number): boolean {
  const pids = [pid];
  for (let at = 0; at < pids.length && at < MAX_PROCESSES; at += 1) {
    if (processHoldsSocket(pids[at]!, inode)) return true;
    pids.push(...childrenOf(pids[at]!));
  }
  return false;
}

/** Whether the runtime of this session, criu, or what these have started has the socket. */
export function sessionHoldsSocket(sessionFile: string, inode: number): boolean {
  const leader = sessionLeader(sessionFile);
  return leader !== undefined && treeHoldsSocket(leader, inode);
}

/** A runtime, criu and its helpers are a handful. */
const MAX_PROCESSES = 1000;

function descriptorsOf(pid: number): string[] {
  return names(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      return '';
    }
  });
}

/** proc_tid_children(5): every kernel that can checkpoint has it. */
function childrenOf(pid: number): number[] {
  return names(`/proc/${pid}/task`).flatMap((tid) => {
    try {
      return readFileSync(`/proc/${pid}/task/${tid}/children`, 'latin1').split(' ').filter((text) => text !== '').map(Number);
    } catch {
      return [];
    }
  });
}

function names(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
