/**
 * Images of a stranger's may only bring back what the operator's bundle grants: CRIU itself would give the processes
 * whatever capabilities, mounts, devices and namespaces the images name.
 */
import { allowsDevice, deviceName } from '../../core/devices.ts';
import { StasisError } from '../../core/errors.ts';
import type { Admitted, IdMapping, ImagePrivileges, NamespaceName } from '../../image/criu/index.ts';
import { DEFAULT_DEVICES, madeDevices } from '../../runtime/index.ts';
import type { OciSpec } from '../../runtime/types.ts';
import { credentialReasons } from './granted-credentials.ts';
import { mountReasons } from './granted-mounts.ts';
import { ipcReasons, socketReasons } from './granted-sockets.ts';

/** Throws RESTORE_INCOMPATIBLE with everything that the images have and the bundle does not grant. */
export function requireGranted(images: ImagePrivileges, admitted: Admitted, bundle: OciSpec): void {
  const reasons = [...new Set([...credentialReasons(images, bundle), ...images.mounts.flatMap((mounts) => [...mountReasons(mounts, bundle)]), ...namespaces(images, bundle), ...devices(images, bundle), ...socketReasons(admitted, bundle), ...ipcReasons(admitted, bundle)])];
  if (reasons.length === 0) return;
  throw new StasisError('RESTORE_INCOMPATIBLE', `the imported images ask for more than the bundle grants: ${reasons.slice(0, 5).join('; ')}${reasons.length > 5 ? `; and ${reasons.length - 5} more` : ''}`, {
    hint: 'give a bundle that grants it, if the container shall have it; else do not restore this archive', details: { reasons: reasons.length },
  });
}

const ociNames: Readonly<Record<NamespaceName, string>> = { pid: 'pid', network: 'network', ipc: 'ipc', uts: 'uts', mount: 'mount', user: 'user', cgroup: 'cgroup', time: 'time' };

interface OciMapping {
  readonly containerID: number;
  readonly hostID: number;
  readonly size: number;
}

function* namespaces({ namespaces: own, userMappings, nested }: ImagePrivileges, { linux }: OciSpec): Generator<string> {
  const wanted = new Set((linux?.namespaces ?? []).map(({ type }) => type));
  for (const [name, oci] of Object.entries(ociNames)) {
    if (wanted.has(oci) && !own.has(name as NamespaceName)) yield `its processes have no ${name} namespace of their own`;
  }
  // Without it, whoever is the root of the node could come out of a user that is none.
  if (own.has('user') && !wanted.has('user')) yield 'its processes have a user namespace of their own';
  const { users, groups } = userMappings;
  for (const [mappings, key] of [[users, 'uidMappings'], [groups, 'gidMappings']] as const) {
    const granted = (linux?.[key] ?? []) as readonly OciMapping[];
    for (const mapping of mappings) if (!granted.some((one) => within(mapping, one))) yield `it maps ${mapping.count} ids from ${mapping.inside} to ${mapping.outside} of the node (${key})`;
  }
  if (nested) yield 'some of its processes have namespaces of their own, within those of the container';
}

function within({ inside, outside, count }: IdMapping, { containerID, hostID, size }: OciMapping): boolean {
  return inside >= containerID && inside + count <= containerID + size && outside - inside === hostID - containerID;
}

function* devices(images: ImagePrivileges, bundle: OciSpec): Generator<string> {
  const granted = [...madeDevices(bundle), ...DEFAULT_DEVICES];
  for (const { image, ...device } of images.devices) {
    if (!allowsDevice(granted, device)) yield `${image} has the device ${deviceName(device)}`;
  }
}
