/**
 * Mounts that CRIU cannot make inside a user namespace, and that the runtimes do not tell it to take from outside: cgroups, whose
 * namespace criu makes as root of the node, and the devices that crun takes from the node. They are external mounts
 * (criu(8), --external mnt), named by what they show, so that a restore needs to know no more than the name.
 */
import { basename, join } from 'node:path';
import type { Mount } from '../../host/mountinfo.ts';
import type { OciSpec } from '../types.ts';
import { isBindMount } from '../spec.ts';

/** Those that the OCI runtime specification gives to every container. */
const DEVICES = ['null', 'zero', 'full', 'random', 'urandom', 'tty'];

const NOT_CONTROLLERS = /^(rw|ro|xattr|noprefix|clone_children|nsdelegate|memory_.*|release_agent=.*|favordynmods|cpuset_v2_mode)$/;

/** Of a cgroup mount, the same on every node. */
export function cgroupKey({ fsType, superOptions }: Mount): string {
  const controllers = fsType === 'cgroup2' ? ['unified'] : superOptions.filter((option) => !NOT_CONTROLLERS.test(option)).sort();
  return `stasis-cgroup-${controllers.join('+').replaceAll(/[^a-z0-9_+=]/g, '_')}`;
}

function ownUserNamespace(spec: OciSpec): boolean {
  return spec.linux?.namespaces?.some(({ type, path }) => type === 'user' && !path) ?? false;
}

function known(spec: OciSpec, destination: string): boolean {
  return spec.mounts?.some((mount) => mount.destination === destination && isBindMount(mount)) ?? false;
}

function lines(externals: readonly (readonly [string, string])[]): string {
  return externals.map(([key, value]) => `external mnt[${key}]:${value}\n`).join('');
}

/** Lines for the configuration file of a dump. `mounts`: those that the container's first process sees. */
export function externalsOfDump(spec: OciSpec, mounts: readonly Mount[]): string {
  if (!ownUserNamespace(spec)) return '';
  return lines(mounts.flatMap((mount): [string, string][] => {
    if (mount.fsType.startsWith('cgroup') && /^[\w/.=,-]+$/.test(mount.mountPoint)) return [[mount.mountPoint, cgroupKey(mount)]];
    const device = basename(mount.mountPoint);
    const ofNode = mount.mountPoint === `/dev/${device}` && mount.root === `/${device}` && DEVICES.includes(device);
    return ofNode && !known(spec, mount.mountPoint) ? [[mount.mountPoint, `stasis-device-${device}`]] : [];
  }));
}

/**
 * Of version 1 runc names the cgroups that it is in itself, at a restore those of the node. `places`: directory of the
 * container in each hierarchy, by where that is mounted.
 */
export function cgroupsOfRunc(spec: OciSpec, places: ReadonlyMap<string, string>): string {
  const mounts = (spec.mounts ?? []).filter(({ type }) => type === 'cgroup');
  return lines(mounts.flatMap(({ destination }) => [...places].filter(([, directory]) => !/[\s"]/.test(directory)).map(
    ([mountPoint, directory]) => [join(destination, basename(mountPoint)), directory] as const,
  )));
}

/** Lines for the configuration file of a restore. `cgroups`: directory of the container in each hierarchy, by its key. */
export function externalsOfRestore(spec: OciSpec, cgroups: ReadonlyMap<string, string>): string {
  if (!ownUserNamespace(spec)) return '';
  return lines([...[...cgroups].filter(([, directory]) => !/[\s"]/.test(directory)), ...DEVICES.map((device) => [`stasis-device-${device}`, `/dev/${device}`] as const)]);
}
