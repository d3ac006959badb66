/**
 * A copy of the addresses and routes of a network namespace, on interfaces that lead nowhere: connections and listening
 * sockets can be put in place there, and nothing that is sent from there reaches anybody.
 */
import { run } from '../../host/process.ts';

interface Address {
  readonly family: string;
  readonly local: string;
  readonly prefixlen: number;
  /** Of a point-to-point link: the other end. */
  readonly address?: string;
}

export interface Interface {
  readonly ifname: string;
  readonly mtu?: number;
  readonly addr_info?: readonly Address[];
}

const TIMEOUT_MS = 5000;
/** As the kernel takes it: no blank, no slash; nothing that ip would read as something else. */
const NAME = /^[^\s/:;|&"'\\@]{1,15}$/;

/** Commands for `ip -force -batch`, which goes on after one that fails. Only what a socket needs to be bound or connected again: addresses, and a way to everywhere. */
export function networkCommands(interfaces: readonly Interface[]): string {
  const lines = ['link set lo up'];
  const usable = interfaces.filter(({ ifname }) => NAME.test(ifname) && !ifname.startsWith('-'));
  for (const [index, { ifname, mtu, addr_info: addresses = [] }] of usable.entries()) {
    if (ifname !== 'lo') {
      // A kernel without dummies has pairs: the other end is in there, too. What was made before is not made again.
      lines.push(`link add ${ifname} type dummy`, `link add ${ifname} type veth peer name stasis-${index}`, `link set stasis-${index} up`);
      lines.push(...(mtu === undefined ? [] : [`link set ${ifname} mtu ${mtu}`]), `link set ${ifname} up`);
    }
    for (const { family, local, prefixlen, address } of addresses) {
      if (ifname === 'lo' && (local === '127.0.0.1' || local === '::1')) continue;
      if (!/^[0-9a-fA-F.:]+$/.test(local)) continue;
      const ends = address !== undefined && /^[0-9a-fA-F.:]+$/.test(address) ? `${local} peer ${address}/${prefixlen}` : `${local}/${prefixlen}`;
      lines.push(`addr add ${ends} dev ${ifname}${family === 'inet6' ? ' nodad' : ''}`);
    }
  }
  const way = usable.find(({ ifname }) => ifname !== 'lo')?.ifname;
  if (way !== undefined) lines.push(`route add default dev ${way}`, `-6 route add default dev ${way}`);
  return `${lines.join('\n')}\n`;
}

/** Of the network namespace that a process is in. */
export async function readNetwork(pid: number, { signal }: { signal: AbortSignal | undefined }): Promise<readonly Interface[]> {
  const { status, stdout, stderr } = await run('nsenter', ['-t', String(pid), '-n', 'ip', '-json', 'address', 'show'], { signal, timeoutMs: TIMEOUT_MS });
  if (status !== 0) throw new Error(`the addresses of the container could not be read: ${stderr}`);
  const value: unknown = stdout.trim() === '' ? [] : JSON.parse(stdout);
  return Array.isArray(value) ? (value as Interface[]).filter((entry) => typeof entry.ifname === 'string') : [];
}
