/** The rows of the table that are read once: limits, and what the container's own namespaces hold. */
import { readFileSync } from 'node:fs';
import { insideNamespaces } from '../../host/in-namespaces.ts';
import { readProc } from '../../host/proc.ts';
import { readNetworkTables, type NetworkTables } from '../../host/route-tables.ts';
import { parseIgmp, parseIgmp6 } from '../preflight/loss-checks.ts';
import { readLimits, type Limits } from '../put-back/limits.ts';
import type { Surroundings } from './surroundings.ts';
import type { Attribute } from './types.ts';

/** Read at one instant. */
interface ContainerState {
  readonly limits: Limits | undefined;
  readonly uts: Readonly<Record<string, string>> | undefined;
  readonly ipc: Readonly<Record<string, string>> | undefined;
  readonly settings: Readonly<Record<string, string>> | undefined;
  readonly network: NetworkTables | undefined;
  /** Multicast groups. */
  readonly groups: readonly string[] | undefined;
}

export interface ContainerAttribute extends Attribute {
  readonly read: (state: ContainerState) => string | undefined;
}

const UTS = ['kernel/hostname', 'kernel/domainname'];
const IPC = [
  'kernel/msgmax', 'kernel/msgmnb', 'kernel/msgmni', 'kernel/sem', 'kernel/shmall', 'kernel/shmmax', 'kernel/shmmni',
  'kernel/shm_rmid_forced',
  'fs/mqueue/msg_default', 'fs/mqueue/msg_max', 'fs/mqueue/msgsize_default', 'fs/mqueue/msgsize_max',
  'fs/mqueue/queues_max',
];

function settings(names: readonly string[]): Record<string, string> {
  return Object.fromEntries(names.flatMap((name): [string, string][] => {
    try {
      return [[name, readFileSync(`/proc/sys/${name}`, 'latin1').trim().replaceAll(/\s+/g, ' ')]];
    } catch {
      // This kernel has not got it.
      return [];
    }
  }));
}

function listed(values: Readonly<Record<string, string>> | undefined): string | undefined {
  return values === undefined ? undefined : joined(Object.entries(values).map(([name, value]) => `${name} = ${value}`));
}

/** A list of nothing is a value, too. */
function joined(items: readonly string[] | undefined): string | undefined {
  return items === undefined ? undefined : items.length === 0 ? 'none' : items.join('; ');
}

export function readContainer(
  pid: number, { cgroups, limits, own, interfaces, settings: changed }: Surroundings,
): ContainerState {
  const names = (['uts', 'ipc', 'net'] as const).filter((name) => own[name]);
  return {
    limits: limits ? readLimits(cgroups.flatMap(({ directory }) => directory ?? [])) : undefined,
    ...insideNamespaces(pid, names, () => ({
      uts: own.uts ? settings(UTS) : undefined, ipc: own.ipc ? settings(IPC) : undefined,
      settings: changed.length > 0 && own.net ? settings(changed) : undefined,
    })),
    network: own.net && interfaces ? readNetworkTables(pid) : undefined,
    groups: own.net ? [
      ...parseIgmp(readProc(pid, 'net/igmp') ?? ''), ...parseIgmp6(readProc(pid, 'net/igmp6') ?? ''),
    ] : undefined,
  };
}

/** Files of a controller that this node has; none: undefined. */
function limitsOf(pattern: RegExp): ContainerAttribute['read'] {
  return ({ limits }) => {
    const found = Object.entries(limits ?? {}).filter(([name]) => pattern.test(name));
    return found.length === 0 ? undefined
      : joined(found.map(([name, value]) => `${name} = ${value.replaceAll('\n', ', ')}`));
  };
}

const row = (
  name: string, meaning: string, keeper: Attribute['keeper'], read: ContainerAttribute['read'],
): ContainerAttribute => ({ name, meaning, keeper, read });

export const CONTAINER_ATTRIBUTES: readonly ContainerAttribute[] = [
  row('limits-memory', 'limits of memory of its cgroup, as they are now', 'put-back', limitsOf(/^memory\./)),
  { ...row(
    'limits-processes', 'most processes in its cgroup, as it is now', 'put-back', limitsOf(/^pids\./),
  ), afterwards: true },
  row(
    'limits-cpu', 'shares and quota of processor time of its cgroup, as they are now', 'put-back', limitsOf(/^cpu\./),
  ),
  row('limits-cpuset', 'processors and memory nodes of its cgroup, as they are now', 'put-back', limitsOf(/^cpuset\./)),
  row(
    'limits-io', 'weights and limits of input and output of its cgroup, as they are now', 'put-back',
    limitsOf(/^(io|blkio)\./),
  ),
  row('host-name', 'host and domain name of an own UTS namespace', 'kept', ({ uts }) => listed(uts)),
  row(
    'ipc-settings', 'limits of an own IPC namespace (kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*)', 'kept',
    ({ ipc }) => listed(ipc),
  ),
  row(
    'network-settings', 'settings below /proc/sys/net of an own network, those that were changed', 'put-back',
    ({ settings: values }) => listed(values),
  ),
  row('network-links', 'interfaces of an own network', 'put-back', ({ network }) => joined(network?.links)),
  row(
    'network-addresses', 'addresses of an own network, without those that the kernel makes', 'put-back',
    ({ network }) => joined(network?.addresses),
  ),
  row(
    'network-routes', 'routes of an own network, without those that the kernel makes', 'put-back',
    ({ network }) => joined(network?.routes),
  ),
  row('network-rules', 'routing rules of an own network', 'put-back', ({ network }) => joined(network?.rules)),
  { ...row('multicast', 'memberships in multicast groups', 'lost', ({ groups }) => joined(groups)), finding: 'lost' },
];
