/** What a node must have before a checkpointed container can be put together again. */
import { statSync } from 'node:fs';
import { StasisError } from '../../core/errors.ts';
import { isBindMount } from '../spec.ts';
import { printable } from '../text.ts';
import type { OciSpec, Rootfs } from '../types.ts';

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

function exists(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch {
    return false;
  }
}

function incompatible(message: string, hint: string): StasisError {
  return new StasisError('RESTORE_INCOMPATIBLE', message, { hint });
}

/** Throws RESTORE_INCOMPATIBLE naming the first layer, or the plain directory, that is missing. */
export function requireLayers(rootfs: Rootfs): void {
  if (rootfs.kind === 'plain') {
    if (isDirectory(rootfs.path)) return;
    throw incompatible(`the root file system ${printable(rootfs.path)} does not exist here`, 'it was a plain directory, which is not in the checkpoint: copy it here, or give a bundle (--bundle)');
  }
  const missing = rootfs.lower.filter((layer) => !isDirectory(layer));
  if (missing.length === 0) return;
  throw incompatible(`${missing.length} of ${rootfs.lower.length} image layers are missing on this node: ${missing.slice(0, 3).map(printable).join(', ')}`, 'pull the image of the container here, or give a bundle made from it (--bundle)');
}

/** Throws RESTORE_INCOMPATIBLE naming the bind mounts whose sources are gone; those in `replaced` get new ones. */
export function requireSources(spec: OciSpec, replaced: ReadonlySet<string>): void {
  const missing = (spec.mounts ?? []).filter((mount) => isBindMount(mount) && !replaced.has(mount.destination) && !exists(mount.source ?? ''));
  if (missing.length === 0) return;
  const list = missing.slice(0, 5).map(({ source, destination }) => `${printable(source ?? '')} (at ${printable(destination)})`).join(', ');
  throw incompatible(`bind mounts of the container have no source on this node: ${list}`, 'create them, or give a bundle with other sources for the same destinations (--bundle)');
}

/** Throws RESTORE_INCOMPATIBLE for a namespace to be joined that is gone, or that is named by a pid: another process may have that now. */
export function requireNamespaces(spec: OciSpec): void {
  for (const { type, path } of spec.linux?.namespaces ?? []) {
    if (path === undefined || path === '') continue;
    if (/^\/proc\/\d+\//.test(path)) throw incompatible(`the container joined the ${type} namespace of another process (${printable(path)})`, 'give a bundle that names the namespace to join now (--bundle)');
    if (!exists(path)) throw incompatible(`the ${type} namespace ${printable(path)} of the container is gone`, 'give a bundle that names the namespace to join now (--bundle)');
  }
}

/** Throws RESTORE_INCOMPATIBLE when a given bundle lacks a mount that CRIU's images refer to. */
export function requireMounts(saved: OciSpec, given: OciSpec): void {
  const have = new Map((given.mounts ?? []).map((mount) => [mount.destination, isBindMount(mount)]));
  const missing = (saved.mounts ?? []).filter((mount) => isBindMount(mount) !== have.get(mount.destination));
  if (missing.length === 0) return;
  const list = missing.slice(0, 5).map((mount) => `${printable(mount.destination)} (${isBindMount(mount) ? 'bind' : printable(mount.type ?? 'mount')})`).join(', ');
  throw incompatible(`the bundle lacks mounts that the checkpoint has: ${list}`, 'give it the same mount destinations, bind mounts as bind mounts');
}
