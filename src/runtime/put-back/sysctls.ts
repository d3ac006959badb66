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

/** Which setting of an interface, and of which interface: "all" sets it for each of them. */
function setting(path: string): { readonly name: string; readonly of: string } | undefined {
  const [, family, of, name] = /^net\/(ipv[46]\/conf)\/([^/]+)\/(.+)$/.exec(path) ?? [];
  return of === undefined ? undefined : { name: `${family} ${name}`, of };
}

/** What differs from a new namespace, or will when what differs is set, and what config.json asks for. */
export function changedSysctls(now: ReadonlyMap<string, string>, fresh: ReadonlyMap<string, string>, spec: OciSpec): Sysctls {
  const asked = new Set(Object.keys((spec.linux?.['sysctl'] ?? {}) as Record<string, string>).map(key));
  const changed = [...now].filter(([path, value]) => fresh.get(path) !== value || asked.has(path));
  const ofAll = new Set(changed.flatMap(([path]) => (setting(path)?.of === 'all' ? setting(path)!.name : [])));
  return Object.fromEntries([...now].filter(([path, value]) => fresh.get(path) !== value || asked.has(path) || ofAll.has(setting(path)?.name ?? '')));
}
