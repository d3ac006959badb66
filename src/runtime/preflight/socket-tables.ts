/** The socket tables of a network namespace: /proc/PID/net/tcp and its neighbours (proc_net(5)). */
import { readProc } from '../../host/proc.ts';

export interface InetSocket {
  readonly inode: number;
  /** "10.0.0.1:80", "[::1]:80". */
  readonly local: string;
  readonly remote: string;
  readonly localPort: number;
  /** Two hexadecimal digits of the kernel's TCP states: 01 established, 07 closed, 0A listening. */
  readonly state: string;
  /** Bytes that nobody has read, with what the kernel needs to keep them. */
  readonly unread: number;
}

export const TCP_LISTENING = '0A';
export const TCP_ESTABLISHED = '01';

/** Addresses are written as 32-bit words in the byte order of the machine. */
function address(hex: string): string {
  const words = hex.match(/.{8}/g) ?? [];
  const bytes = words.flatMap((word) => (word.match(/../g) ?? []).reverse().map((byte) => Number.parseInt(byte, 16)));
  if (bytes.length === 4) return bytes.join('.');
  if (bytes.slice(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff) return bytes.slice(12).join('.');
  const groups = Array.from({ length: 8 }, (_, index) => (((bytes[2 * index] ?? 0) << 8) | (bytes[2 * index + 1] ?? 0)).toString(16));
  return `[${groups.join(':').replace(/(?:^|:)0(?::0)+(?::|$)/, '::')}]`;
}

function endpoint(text: string): { text: string; port: number } {
  const [hex = '', port = ''] = text.split(':');
  const number = Number.parseInt(port, 16);
  return { text: `${address(hex)}:${number}`, port: number };
}

export function parseInetTable(text: string): InetSocket[] {
  return text.split('\n').slice(1).flatMap((line) => {
    const fields = line.trim().split(/\s+/);
    if (fields.length < 10) return [];
    const local = endpoint(fields[1] ?? '');
    return [{
      inode: Number(fields[9]), local: local.text, localPort: local.port, remote: endpoint(fields[2] ?? '').text,
      state: fields[3] ?? '', unread: Number.parseInt(fields[4]?.split(':')[1] ?? '0', 16),
    }];
  });
}

export function tcpSockets(pid: number): InetSocket[] {
  return ['net/tcp', 'net/tcp6'].flatMap((file) => parseInetTable(readProc(pid, file) ?? ''));
}

const DATAGRAMS = ['udp', 'udp6', 'udplite', 'udplite6', 'raw', 'raw6', 'icmp', 'icmp6'].map((name) => `net/${name}`);

/** The other inet sockets that CRIU can save. */
export function datagramSockets(pid: number): InetSocket[] {
  return DATAGRAMS.flatMap((file) => parseInetTable(readProc(pid, file) ?? ''));
}

/** Inodes of netlink and packet sockets: the last column of both tables. */
export function otherInodes(pid: number): Set<number> {
  const inodes = ['net/netlink', 'net/packet'].flatMap((file) => (readProc(pid, file) ?? '').split('\n').slice(1).map((line) => Number(line.trim().split(/\s+/).at(-1))));
  return new Set(inodes);
}
