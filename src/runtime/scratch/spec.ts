/** The config.json of a rehearsal, out of that of the container: the same tasks, but nothing of it is shared with anybody. */
import { join } from 'node:path';
import { CRIU_CONFIG_ANNOTATION } from '../bundle/restore-spec.ts';
import type { Limits } from '../put-back/limits.ts';
import type { OciSpec } from '../types.ts';

/** Whose network the container uses: its own, which CRIU makes anew; one that it joined; or that of the node. */
export type NetworkKind = 'own' | 'joined' | 'node';

type Namespaces = NonNullable<NonNullable<OciSpec['linux']>['namespaces']>;

export function networkKind(spec: OciSpec): NetworkKind {
  const entry = spec.linux?.namespaces?.find(({ type }) => type === 'network');
  if (entry === undefined) return 'node';
  return entry.path === undefined || entry.path === '' ? 'own' : 'joined';
}

/** A joined network is replaced by the scratch one; every other namespace that was joined is made anew, out of the images. */
function scratchNamespaces(namespaces: Namespaces, network: string): Namespaces {
  return namespaces.map(({ type, path }) => (type === 'network' && path !== undefined && path !== '' ? { type, path: network } : { type }));
}

export interface ScratchSpecChanges {
  readonly root: string;
  /** The CRIU configuration file of every restore. */
  readonly criuConfig: string;
  readonly cgroupsPath: string;
  /** Where the scratch network namespace is found. */
  readonly network: string;
  /** Bind sources by mount destination. */
  readonly sources: ReadonlyMap<string, string>;
}

/** Enough for criu to give a task its real-time policy, which the kernel refuses where a cgroup may have none of it. */
const REAL_TIME_SHARE = 1000;

/** The container has its part of the node's real-time processor time while it stands; there need not be twice that. */
function littleRealTime({ realtimeRuntime: runtime, realtimePeriod: period = 1_000_000, ...cpu }: Cpu): Cpu {
  if (runtime === undefined) return cpu;
  if (runtime <= 0) return { ...cpu, realtimeRuntime: runtime };
  const share = Math.max(1, Math.floor(period / REAL_TIME_SHARE));
  return { ...cpu, realtimePeriod: period, realtimeRuntime: Math.min(runtime, share) };
}

interface Cpu extends Readonly<Record<string, unknown>> {
  readonly realtimeRuntime?: number;
  readonly realtimePeriod?: number;
}

/** Without those of which the place has a part of its own. */
export function limitsInPlace(limits: Limits): Limits {
  return Object.fromEntries(Object.entries(limits).filter(([file]) => !file.startsWith('cpu.rt_')));
}

/**
 * Limits stay as they are: a restore would meet them, too. Only those of processor time go, since the container stands
 * frozen meanwhile. Hooks ran when the container was made, and a CRIU configuration of the user's could run anything as root.
 */
export function scratchSpec(spec: OciSpec, { root, criuConfig, cgroupsPath, network, sources }: ScratchSpecChanges): OciSpec {
  const { hooks: _hooks, annotations, mounts, linux, ...rest } = spec;
  const resources = linux?.['resources'] as { readonly cpu?: Cpu } | undefined;
  const { quota: _quota, period: _period, burst: _burst, ...cpu } = resources?.cpu ?? {};
  return {
    ...rest,
    root: { ...spec.root, path: root },
    annotations: { ...annotations, [CRIU_CONFIG_ANNOTATION]: criuConfig },
    ...(mounts === undefined ? {} : { mounts: mounts.map((mount) => ({ ...mount, ...(sources.has(mount.destination) ? { source: sources.get(mount.destination)! } : {}) })) }),
    linux: {
      ...linux, cgroupsPath,
      ...(resources === undefined ? {} : {
        resources: { ...resources, ...(resources.cpu === undefined ? {} : { cpu: littleRealTime(cpu) }) },
      }),
      ...(linux?.namespaces === undefined ? {} : { namespaces: scratchNamespaces(linux.namespaces, network) }),
    },
  };
}

/** Why the tasks of such a container cannot be rebuilt beside it. */
export function whyNoScratch(spec: OciSpec): string | undefined {
  const pid = spec.linux?.namespaces?.find(({ type }) => type === 'pid');
  if (pid === undefined) return 'the container uses the pid namespace of the node: its pids are taken while it stands still';
  if (pid.path !== undefined && pid.path !== '') return 'the container joined the pid namespace of another one: its pids are taken while it stands still';
  return undefined;
}

/** Below the directory of a rehearsal. */
export const scratchNetwork = (directory: string): string => join(directory, 'network');
