/**
 * The interfaces, addresses, routes and rules of a network namespace, in canonical words (rtnetlink(7)). Synchronous.
 */
import { Netlink, attributesOf } from './netlink.ts';

/** RTM_GET… of linux/rtnetlink.h, and the size of the fixed part of what answers. */
const GET = {
  links: { type: 18, size: 16 }, addresses: { type: 22, size: 8 }, routes: { type: 26, size: 12 },
  rules: { type: 34, size: 12 },
} as const;

const AF_INET = 2;
const AF_INET6 = 10;
const IFF_UP = 1;
const IFF_LOOPBACK = 8;
const SCOPE_LINK = 253;
const PROTOCOL_KERNEL = 2;
const TABLE_LOCAL = 255;
const RTM_F_CLONED = 0x200;
/** Whether its interface has a carrier is no part of a route. */
const ROUTE_STATE = 0x1 | 0x10 | 0x40 | 0x4000;
/** RTNH_F_DEAD, _OFFLOAD, _LINKDOWN, _UNRESOLVED and _TRAP of one hop. */
const HOP_STATE = 0x1 | 0x8 | 0x10 | 0x20 | 0x40;

export interface NetworkTables {
  readonly links: readonly string[];
  readonly addresses: readonly string[];
  readonly routes: readonly string[];
  readonly rules: readonly string[];
}

type Attributes = ReadonlyMap<number, Buffer>;
interface Message {
  readonly head: Buffer;
  readonly attributes: Attributes;
}

function dump(netlink: Netlink, { type, size }: (typeof GET)[keyof typeof GET]): Message[] {
  const bodies = netlink.dump(type, Buffer.alloc(16)).filter((body) => body.length >= size);
  return bodies.map((body) => ({ head: body.subarray(0, size), attributes: attributesOf(body.subarray(size)) }));
}

const text = (value: Buffer | undefined): string => value?.toString('latin1').replace(/\0.*$/s, '') ?? '';
const number = (value: Buffer | undefined): number => (
  value === undefined || value.length < 4 ? 0 : value.readUInt32LE(0)
);

function address(value: Buffer | undefined): string {
  if (value === undefined) return '';
  if (value.length === 4) return value.join('.');
  const groups = Array.from({ length: value.length >> 1 }, (_, index) => value.readUInt16BE(2 * index).toString(16));
  return groups.join(':').replace(/(?:^|:)0(?::0)+(?::|$)/, '::');
}

/** The attributes that have no words of their own, so that none is passed over. */
function rest(attributes: Attributes, known: readonly number[]): string[] {
  return [...attributes].filter(([number_]) => !known.includes(number_)).sort(([a], [b]) => a - b).map(
    ([number_, value]) => `#${number_}=${value.toString('hex')}`
  );
}

function words(...parts: (string | readonly string[])[]): string {
  return parts.flat().filter(Boolean).join(' ');
}

/** The MAC of loopback, counters and queues say nothing about what was configured. */
function link({ head, attributes }: Message, names: ReadonlyMap<number, string>): string {
  const flags = head.readUInt32LE(8);
  const kind = text(attributesOf(attributes.get(18) ?? Buffer.alloc(0)).get(1));
  const master = attributes.has(10) ? `master ${names.get(number(attributes.get(10))) ?? ''}` : '';
  const mac = (flags & IFF_LOOPBACK) === 0 ? attributes.get(1)?.toString('hex') ?? '' : '';
  return words(
    text(attributes.get(3)), kind, (flags & IFF_UP) === 0 ? 'down' : 'up', `mtu ${number(attributes.get(4))}`, mac,
    master,
  );
}

/** The kernel makes link-local addresses of IPv6 by itself, when it likes to. */
function addressOf({ head, attributes }: Message, names: ReadonlyMap<number, string>): string[] {
  const [family, prefix, , scope] = head;
  if (family === AF_INET6 && scope === SCOPE_LINK) return [];
  const local = attributes.get(2);
  const peer = local !== undefined && attributes.get(1)?.equals(local) === false ? `peer ${address(attributes.get(1))}`
    : '';
  return [words(
    names.get(head.readUInt32LE(4)) ?? '', `${address(local ?? attributes.get(1))}/${prefix}`, peer, `scope ${scope}`,
    text(attributes.get(3)),
  )];
}

/** The hops of a route over several, without their state (struct rtnexthop: length, flags, weight, interface). */
function hops(value: Buffer): string {
  const bytes = Buffer.from(value);
  for (let at = 0; at + 8 <= bytes.length;) {
    bytes[at + 2]! &= ~HOP_STATE;
    const length = bytes.readUInt16LE(at);
    if (length < 8) break;
    at += (length + 3) & ~3;
  }
  return bytes.toString('hex');
}

/** Those that the kernel adds for an address, it adds again. */
function route({ head, attributes }: Message, names: ReadonlyMap<number, string>): string[] {
  const [family = 0, length, sourceLength, service, small = 0, protocol, scope, type] = head;
  const flags = head.readUInt32LE(8);
  const table = attributes.has(15) ? number(attributes.get(15)) : small;
  if (
    ![AF_INET, AF_INET6].includes(family) || protocol === PROTOCOL_KERNEL || table === TABLE_LOCAL
      || (flags & RTM_F_CLONED) !== 0
  ) return [];
  return [words(
    `${family === AF_INET ? 4 : 6} ${attributes.has(1) ? address(attributes.get(1)) : 'default'}/${length}`,
    `table ${table} type ${type} protocol ${protocol} scope ${scope}`,
    attributes.has(2) ? `from ${address(attributes.get(2))}/${sourceLength}` : '',
    service === 0 ? '' : `tos ${service}`, attributes.has(5) ? `via ${address(attributes.get(5))}` : '',
    attributes.has(4) ? `dev ${names.get(number(attributes.get(4))) ?? ''}` : '',
    attributes.has(7) ? `src ${address(attributes.get(7))}` : '',
    attributes.has(6) ? `metric ${number(attributes.get(6))}` : '',
    (flags & ~ROUTE_STATE) === 0 ? '' : `flags ${flags & ~ROUTE_STATE}`,
    // 12: counters and the time that is left; 20: always there for IPv6, with its usual value.
    attributes.has(9) ? `hops ${hops(attributes.get(9)!)}` : '',
    rest(attributes, [1, 2, 4, 5, 6, 7, 9, 12, 15, 20]),
  )];
}

function rule({ head, attributes }: Message): string[] {
  const [family = 0, toLength, fromLength, service, small = 0, , , action] = head;
  if (![AF_INET, AF_INET6].includes(family)) return [];
  return [words(
    `${family === AF_INET ? 4 : 6} ${number(attributes.get(6))}:`,
    `from ${attributes.has(2) ? `${address(attributes.get(2))}/${fromLength}` : 'all'}`,
    attributes.has(1) ? `to ${address(attributes.get(1))}/${toLength}` : '',
    service === 0 ? '' : `tos ${service}`,
    `action ${action} table ${attributes.has(15) ? number(attributes.get(15)) : small}`,
    head.readUInt32LE(8) === 0 ? '' : `flags ${head.readUInt32LE(8)}`, rest(attributes, [1, 2, 6, 15]),
  )];
}

/** Of the network namespace of a process. Throws when it is gone. */
export function readNetworkTables(pid: number): NetworkTables {
  using netlink = Netlink.open('route', pid);
  const links = dump(netlink, GET.links);
  const names = new Map(links.map(({ head, attributes }) => [head.readInt32LE(4), text(attributes.get(3))]));
  return {
    links: links.map((message) => link(message, names)).sort(),
    addresses: dump(netlink, GET.addresses).flatMap((message) => addressOf(message, names)).sort(),
    routes: dump(netlink, GET.routes).flatMap((message) => route(message, names)).sort(),
    rules: dump(netlink, GET.rules).flatMap((message) => rule(message)).sort(),
  };
}
