/**
 * What a record needs to know beside the first process: where the container's cgroup is, and which namespaces are its
 * own.
 */
import { readNamespaces } from '../../host/proc.ts';
import { cgroupPlaces, type CgroupPlace } from '../cgroup.ts';
import { comesBackWhole, type SavedNetwork } from '../put-back/network.ts';
import type { OciSpec } from '../types.ts';

export interface Surroundings {
  readonly cgroups: readonly CgroupPlace[];
  /** Whether limits are compared: those of a bundle that a caller gave are the caller's. */
  readonly limits: boolean;
  /** Namespaces that the runtime made for the container alone. What a shared one is like is the matter of others. */
  readonly own: { readonly uts: boolean; readonly ipc: boolean; readonly net: boolean };
  /** Whether the interfaces of its own network come back: one with an end outside does not. */
  readonly interfaces: boolean;
  /** Below /proc/sys, of its own network: those that somebody has changed. */
  readonly settings: readonly string[];
}

interface Options {
  readonly spec: OciSpec;
  /** Directory of its freezer. */
  readonly freezer: string | undefined;
  /** A caller gave the bundle. */
  readonly given: boolean;
  readonly network: SavedNetwork | undefined;
}

const NODE = 1;

/** The same at a checkpoint and at its restore. `network`: as the checkpoint saved it. */
export function surroundingsOf(pid: number, { spec, freezer, given, network }: Options): Surroundings {
  const [its, nodes] = [readNamespaces(pid), readNamespaces(NODE)];
  const own = (type: string, name: 'uts' | 'ipc' | 'net'): boolean => its[name] !== nodes[name]
    && (spec.linux?.namespaces?.some((one) => one.type === type && !one.path) ?? false);
  return {
    cgroups: cgroupPlaces(pid, freezer), limits: !given,
    own: { uts: own('uts', 'uts'), ipc: own('ipc', 'ipc'), net: network !== undefined && own('network', 'net') },
    interfaces: network !== undefined && comesBackWhole(network),
    settings: given && spec.linux?.['sysctl'] !== undefined ? [] : Object.keys(network?.sysctls ?? {}).sort(),
  };
}
