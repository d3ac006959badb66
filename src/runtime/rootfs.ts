/** How the root file system of a running container is made. */
import { existsSync } from 'node:fs';
import { dirname, isAbsolute, resolve } from 'node:path';
import { overlayLayers, readMountinfo } from '../host/mountinfo.ts';
import type { Rootfs } from './types.ts';

/**
 * A container with very many layers is mounted with paths relative to a directory that the kernel does not
 * record. They are looked for below each directory above the upper one.
 */
function resolveLayers(layers: readonly string[], upper: string): string[] | undefined {
  if (layers.every(isAbsolute)) return [...layers];
  for (let base = dirname(upper); ; base = dirname(base)) {
    const candidate = layers.map((layer) => resolve(base, layer));
    if (candidate.every((layer) => existsSync(layer))) return candidate;
    if (base === dirname(base)) return undefined;
  }
}

/**
 * `path` is the root directory by config.json. Overlay only when the whole overlay is mounted as the root: a directory
 * inside the node's own overlay is a plain one.
 */
export function readRootfs(pid: number, path: string): Rootfs {
  const root = readMountinfo(pid).find((mount) => mount.mountPoint === '/');
  if (root?.fsType !== 'overlay' || root.root !== '/') return { kind: 'plain', path };
  const { lower, upper, work, options } = overlayLayers(root);
  if (upper === undefined || work === undefined || !isAbsolute(upper)) return { kind: 'plain', path };
  const layers = resolveLayers(lower, upper);
  if (layers === undefined) return { kind: 'plain', path };
  return { kind: 'overlay', merged: path, lower: layers, upper, work, options };
}
