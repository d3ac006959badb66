/**
 * What /proc does not tell about sockets: the protocol of a socket held by another process, and which UNIX
 * sockets are connected with which (sock_diag(7), the source of `ss`).
 */
import { closeSync, constants, openSync, readlinkSync } from 'node:fs';
import { endianness } from 'node:os';
import koffi from 'koffi';
import { invariant } from '../core/assert.ts';
import { errnoCode } from '../core/errors.ts';
import { insideNamespaces } from './in-namespaces.ts';
import { duplicateDescriptors } from './libc.ts';
import { Netlink, attributesOf } from './netlink.ts';
import { statOpen } from './still-files.ts';
import { O_PATH } from './tree-calls.ts';

const libc = koffi.load('libc.so.6');
const raw = {
  getxattr: libc.func('int64_t getxattr(const char* path, const char* name, void* value, size_t size)'),
  getsockopt: libc.func('int getsockopt(int fd, int level, int name, void* value, void* length)'),
  socket: libc.func('int socket(int domain, int type, int protocol)'),
  ioctl: libc.func('int ioctl(int fd, unsigned long request, int argument)'),
  close: libc.func('int close(int fd)'),
};

const SOCK_CLOEXEC = 0o2000000;
/** linux/sockios.h: a descriptor of the network namespace that a socket was made in. */
const SIOCGSKNS = 0x894c;

const SOCK_DIAG_BY_FAMILY = 20;
const AF_UNIX = 1;
/** UDIAG_SHOW_NAME, _PEER, _ICONS and _RQLEN of linux/unix_diag.h, and the attributes that answer them. */
const SHOW_WANTED = 1 | 4 | 8 | 16;
const UNIX_DIAG_NAME = 0;
const UNIX_DIAG_PEER = 2;
const UNIX_DIAG_ICONS = 3;
const UNIX_DIAG_RQLEN = 4;
const BODY = 16;

export type UnixSocketType = 'stream' | 'datagram' | 'seqpacket';

export interface UnixSocket {
  readonly inode: number;
  readonly type: UnixSocketType;
  readonly state: 'connected' | 'listening' | 'unconnected';
  /** Path, or "@name" in the abstract namespace; undefined for an unnamed one. */
  readonly name: string | undefined;
  /** Inode of the socket at the other end, undefined when there is none (any more). */
  readonly peer: number | undefined;
  /** Of a listening socket: inodes of the sockets that have connected and were not accepted, 0 for one that is closed already. */
  readonly waiting: readonly number[];
  /** Bytes that were sent and not read by the other end. Of a listening socket: the longest queue that it allows. */
  readonly unread: number;
}

/**
 * "TCP", "MPTCP", "SCTP", "UNIX-STREAM", … of a descriptor of a process; undefined when it is no socket (any more). The file is
 * held fast before it is asked, because a descriptor that became a file of a FUSE server would let the caller wait.
 */
export function socketProtocol(pid: number, fd: number): string | undefined {
  let held: number | undefined;
  try {
    held = openSync(`/proc/${pid}/fd/${fd}`, O_PATH);
    if (((statOpen(held)?.mode ?? 0) & constants.S_IFMT) !== constants.S_IFSOCK) return undefined;
    const value = Buffer.alloc(64);
    const length = Number(raw.getxattr(`/proc/self/fd/${held}`, 'system.sockprotoname', value, value.length));
    return length <= 0 ? undefined : value.toString('latin1', 0, length).replace(/\0.*$/s, '');
  } catch (error) {
    if (errnoCode(error) === undefined) throw error;
    return undefined;
  } finally {
    if (held !== undefined) closeSync(held);
  }
}

/** A number that getsockopt(2) answers for a socket of this process; undefined when it does not know the option. */
export function socketOption(fd: number, level: number, name: number): number | undefined {
  const value = Buffer.alloc(16);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(4);
  return (raw.getsockopt(fd, level, name, value, length) as number) === 0 ? value.readInt32LE(0) : undefined;
}

const answer = Buffer.alloc(16);
const answerLength = Buffer.alloc(4);

/** The first 16 bytes of whatever getsockopt(2) answers, to be compared; undefined when it knows no such option. */
export function socketValue(fd: number, level: number, name: number): string | undefined {
  answerLength.writeUInt32LE(answer.length);
  if ((raw.getsockopt(fd, level, name, answer, answerLength) as number) !== 0) return undefined;
  return answer.toString('latin1', 0, Math.min(answerLength.readUInt32LE(0), answer.length));
}

/** A new socket in the network namespace of a process; undefined when the kernel refuses it. */
export function openSocket(pid: number, domain: number, type: number, protocol: number): number | undefined {
  const fd = insideNamespaces(pid, ['net'], () => raw.socket(domain, type | SOCK_CLOEXEC, protocol) as number);
  return fd < 0 ? undefined : fd;
}

/** The same as socketOption() for an option that answers some 32-bit words; empty when the socket does not know it. */
export function socketWords(fd: number, level: number, name: number): number[] {
  const value = Buffer.alloc(256);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(value.length);
  if ((raw.getsockopt(fd, level, name, value, length) as number) !== 0) return [];
  return Array.from({ length: Math.min(length.readUInt32LE(0), value.length) >> 2 }, (_, index) => value.readUInt32LE(4 * index));
}

/**
 * The network namespace that a socket of another process was made in, as readNamespaces() writes it ("net:[4026531840]").
 * Undefined when the descriptor is gone, or the kernel does not tell. The socket is held for a moment: one that its owner
 * closes meanwhile is closed a moment later.
 */
export function socketNetwork(pid: number, fd: number): string | undefined {
  let copies: number[] = [];
  try {
    copies = duplicateDescriptors(pid, [fd]);
    const [copy] = copies;
    if (copy === undefined || ((statOpen(copy)?.mode ?? 0) & constants.S_IFMT) !== constants.S_IFSOCK) return undefined;
    const namespace = raw.ioctl(copy, SIOCGSKNS, 0) as number;
    if (namespace < 0) return undefined;
    copies.push(namespace);
    return readlinkSync(`/proc/self/fd/${namespace}`);
  } catch {
    return undefined;
  } finally {
    for (const one of copies) raw.close(one);
  }
}

/** unix_diag_req of linux/unix_diag.h. */
function question(): Buffer {
  const body = Buffer.alloc(24);
  body.writeUInt8(AF_UNIX, 0);
  body.writeUInt32LE(0xffffffff, 4);
  body.writeUInt32LE(SHOW_WANTED, 12);
  return body;
}

const types: Readonly<Record<number, UnixSocketType>> = { 1: 'stream', 2: 'datagram', 5: 'seqpacket' };
const states: Readonly<Record<number, UnixSocket['state']>> = { 1: 'connected', 10: 'listening' };

function socketName(value: Buffer): string {
  return value[0] === 0 ? `@${value.toString('utf8', 1)}` : value.toString('utf8').replace(/\0.*$/s, '');
}

/** One unix_diag_msg with its attributes. */
function parseSocket(message: Buffer): UnixSocket {
  const attributes = attributesOf(message.subarray(BODY));
  const [name, peer, icons, queue] = [
    UNIX_DIAG_NAME, UNIX_DIAG_PEER, UNIX_DIAG_ICONS, UNIX_DIAG_RQLEN,
  ].map((kind) => attributes.get(kind));
  const other = peer !== undefined && peer.length >= 4 ? peer.readUInt32LE(0) : 0;
  return {
    inode: message.readUInt32LE(4),
    type: types[message.readUInt8(1)] ?? 'stream',
    state: states[message.readUInt8(2)] ?? 'unconnected',
    name: name !== undefined && name.length > 0 ? socketName(name) : undefined,
    peer: other === 0 ? undefined : other,
    waiting: icons === undefined ? [] : Array.from(
      { length: icons.length >> 2 }, (_, index) => icons.readUInt32LE(4 * index),
    ),
    unread: queue !== undefined && queue.length >= 8 ? queue.readUInt32LE(4) : 0,
  };
}

/** The UNIX sockets made in the network namespace of `pid`. Throws when the kernel has no unix_diag or the process is gone. */
export function unixSockets(pid: number): UnixSocket[] {
  invariant(endianness() === 'LE', 'Stasis runs on little-endian machines only');
  using netlink = Netlink.open('sock-diag', pid);
  return netlink.dump(SOCK_DIAG_BY_FAMILY, question()).filter((body) => body.length >= BODY).map(parseSocket);
}
