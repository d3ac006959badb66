/** Settings below /proc/sys/net of a network namespace of the container's own: such a one comes back new. */
import type { OciSpec } from '../types.ts';

/** By path below /proc/sys ("net/ipv4/ip_forward"). */
export type Sysctls = Readonly<Record<string, string>>;

const PREFIX = '/proc/sys/';

/** Lines of `stasis-network sysctls`. */
export function parseSysctls(text: string): ReadonlyMap<string, string> {
  return new Map(text.split('\n').flatMap((line): [string, string][] => {
    const colon = line.indexOf(':');
    return line.startsWith(PREFIX) && colon > 0 ? [[line.slice(PREFIX.length, colon), line.slice(colon + 1)]] : [];
  }));
}

function key(name: string): string {
  // sysctl(8): a name with "/" has it for a separator, else ".".
  return name.includes('/') ? name : name.replaceAll('.', '/');
}

const FAMILIES = ['net/ipv4/', 'net/ipv6/'] as const;

/** What differs from a new namespace, and what config.json asks for. */
export function changedSysctls(now: ReadonlyMap<string, string>, fresh: ReadonlyMap<string, string>, spec: OciSpec): Sysctls {
  const asked = new Set(Object.keys((spec.linux?.['sysctl'] ?? {}) as Record<string, string>).map(key));
  const changed = [...now].filter(([path, value]) => fresh.get(path) !== value || asked.has(path));
  // Those of interfaces set each other ("all" sets each, forwarding sets redirects): with one of a family go all.
  const together = FAMILIES.filter(
    (family) => changed.some(([path]) => path === `${family}ip_forward` || path.startsWith(`${family}conf/`))
  ).map((family) => `${family}conf/`);
  return Object.fromEntries([...now].filter(
    ([path, value]) => fresh.get(path) !== value || asked.has(path)
      || together.some((family) => path.startsWith(family))
  ));
}

/** Without those of interfaces that do not come back. */
export function withoutInterfaces(sysctls: Sysctls, gone: ReadonlySet<string>): Sysctls {
  return Object.fromEntries(Object.entries(sysctls).filter(
    ([path]) => !gone.has(/^net\/ipv[46]\/(?:conf|neigh)\/([^/]+)\//.exec(path)?.[1] ?? '')
  ));
}
