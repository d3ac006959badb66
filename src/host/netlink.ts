/** Asking the kernel over netlink(7), in the network namespace of this process or of another one. Synchronous. */
import { insideNamespaces } from './in-namespaces.ts';
import { libc, systemError } from './libc.ts';

const raw = {
  socket: libc.func('int socket(int domain, int type, int protocol)'),
  send: libc.func('int64_t send(int fd, const void* buffer, size_t size, int flags)'),
  recv: libc.func('int64_t recv(int fd, void* buffer, size_t size, int flags)'),
  close: libc.func('int close(int fd)'),
};

const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 0o2000003;
const MSG_DONTWAIT = 0x40;
const NLM_F_REQUEST = 0x1;
const NLM_F_REQUEST_DUMP = 0x301;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
/** Of a nlmsghdr of linux/netlink.h. */
const HEADER = 16;
/** The kernel sends at most half of it at once. */
const BUFFER_BYTES = 64 * 1024;
/** NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_XFRM and NETLINK_NETFILTER. */
const PROTOCOLS = { route: 0, 'sock-diag': 4, xfrm: 6, netfilter: 12 } as const;

export class Netlink implements Disposable {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** `pid`: a process in whose network namespace it is asked. Throws when that is gone, or has no such protocol. */
  static open(protocol: keyof typeof PROTOCOLS, pid?: number): Netlink {
    const open = (): number => {
      const fd = raw.socket(AF_NETLINK, SOCK_RAW_CLOEXEC, PROTOCOLS[protocol]) as number;
      if (fd < 0) throw systemError('socket');
      return fd;
    };
    return new Netlink(pid === undefined ? open() : insideNamespaces(pid, ['net'], open));
  }

  /** The body of the only answer; undefined when the kernel answers with anything else. */
  ask(type: number, body: Buffer): Buffer | undefined {
    this.#send(type, NLM_F_REQUEST, body);
    // The kernel has answered before send() returns.
    const answer = this.#receive(0);
    return answer.length >= HEADER && answer.readUInt16LE(4) === type ? answer.subarray(HEADER) : undefined;
  }

  /** The bodies of all that the kernel has of this kind. */
  dump(type: number, body: Buffer): Buffer[] {
    this.#send(type, NLM_F_REQUEST_DUMP, body);
    const bodies: Buffer[] = [];
    for (;;) {
      const datagram = this.#receive(MSG_DONTWAIT);
      if (datagram.length === 0 || takeBodies(datagram, bodies)) return bodies;
    }
  }

  #send(type: number, flags: number, body: Buffer): void {
    const header = Buffer.alloc(HEADER);
    header.writeUInt32LE(HEADER + body.length, 0);
    header.writeUInt16LE(type, 4);
    header.writeUInt16LE(flags, 6);
    header.writeUInt32LE(1, 8);
    const message = Buffer.concat([header, body]);
    if (raw.send(this.#fd, message, message.length, 0) < 0) throw systemError('send');
  }

  #receive(flags: number): Buffer {
    const buffer = Buffer.allocUnsafe(BUFFER_BYTES);
    const length = Number(raw.recv(this.#fd, buffer, buffer.length, flags));
    if (length < 0) throw systemError('recv');
    return buffer.subarray(0, length);
  }

  [Symbol.dispose](): void {
    raw.close(this.#fd);
  }
}

/** True when the datagram is the last one. */
function takeBodies(datagram: Buffer, bodies: Buffer[]): boolean {
  for (let at = 0; at + HEADER <= datagram.length; ) {
    const length = datagram.readUInt32LE(at);
    const type = datagram.readUInt16LE(at + 4);
    if (type === NLMSG_DONE || length < HEADER) return true;
    if (type === NLMSG_ERROR) throw new Error(`netlink refused: errno ${-datagram.readInt32LE(at + HEADER)}`);
    bodies.push(datagram.subarray(at + HEADER, at + length));
    at += (length + 3) & ~3;
  }
  return false;
}

/** Values by their kinds: what follows the fixed part of a body (struct nlattr). Of two of a kind the last. */
export function attributesOf(bytes: Buffer): Map<number, Buffer> {
  const found = new Map<number, Buffer>();
  for (let at = 0; at + 4 <= bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    if (length < 4) break;
    found.set(bytes.readUInt16LE(at + 2) & 0x3fff, bytes.subarray(at + 4, at + length));
    at += (length + 3) & ~3;
  }
  return found;
}
