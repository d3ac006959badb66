/** Inet sockets out of files.img (images/sk-inet.proto), for people to see which connections a checkpoint holds. */
import { WireReader } from './wire.ts';

const FD_TYPE_INETSK = 4;
const FAMILY_INET6 = 10;
const TCP_CLOSE = 7;
const TCP_LISTEN = 10;
const IPPROTO_TCP = 6;
const IPPROTO_UDP = 17;

export interface InetSocket {
  readonly protocol: 'tcp' | 'udp' | 'other';
  readonly state: 'established' | 'listening' | 'closed';
  /** "10.0.0.7:6379", "[::1]:80". */
  readonly source: string;
  readonly destination: string;
}

/** The socket of one file_entry, if it is one. */
export function decodeInetSocket(fileEntry: Uint8Array): InetSocket | undefined {
  const reader = new WireReader(fileEntry, 'files.img');
  let type = 0;
  let socket: Uint8Array | undefined;
  while (reader.next()) {
    if (reader.field === 1) type = reader.uint();
    else if (reader.field === 4) socket = reader.bytes();
  }
  return type === FD_TYPE_INETSK && socket !== undefined ? decodeSocket(socket) : undefined;
}

function decodeSocket(message: Uint8Array): InetSocket {
  const reader = new WireReader(message, 'an inet socket of files.img');
  let [family, protocol, state, sourcePort, destinationPort] = [0, 0, 0, 0, 0];
  const source: number[] = [];
  const destination: number[] = [];
  while (reader.next()) {
    if (reader.field === 3) family = reader.uint();
    else if (reader.field === 5) protocol = reader.uint();
    else if (reader.field === 6) state = reader.uint();
    else if (reader.field === 7) sourcePort = reader.uint();
    else if (reader.field === 8) destinationPort = reader.uint();
    else if (reader.field === 11) source.push(...reader.uints());
    else if (reader.field === 12) destination.push(...reader.uints());
  }
  return {
    protocol: protocol === IPPROTO_TCP ? 'tcp' : protocol === IPPROTO_UDP ? 'udp' : 'other',
    state: state === TCP_LISTEN ? 'listening' : state === TCP_CLOSE ? 'closed' : 'established',
    source: `${formatAddress(family, source)}:${sourcePort}`,
    destination: `${formatAddress(family, destination)}:${destinationPort}`,
  };
}

/** Each word holds four address bytes in network order, read as a little-endian number. */
function formatAddress(family: number, words: readonly number[]): string {
  const bytes = words.slice(0, 4).flatMap((word) => [word & 255, (word >>> 8) & 255, (word >>> 16) & 255, (word >>> 24) & 255]);
  if (family !== FAMILY_INET6) return bytes.slice(0, 4).join('.');
  const groups: string[] = [];
  for (let i = 0; i + 1 < bytes.length; i += 2) groups.push((((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0)).toString(16));
  const text = groups.join(':');
  return `[${text.replace(/(^|:)0(:0)+(:|$)/, '::')}]`;
}
