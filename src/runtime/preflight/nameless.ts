/**
 * Where criu may give a new name to open files that have lost theirs (link-remap), outside of what a checkpoint saves.
 */
import { dirname, join, normalize, relative, resolve } from 'node:path';
import { mountOf } from '../../host/mountinfo.ts';
import { isBindMount } from '../spec.ts';
import type { NamelessPlace } from '../types.ts';
import type { Scene } from './findings.ts';
import { findVolumes } from './mount-checks.ts';

const DELETED = ' (deleted)';
const NO_FILE = /^\/(memfd:|SYSV|dev\/zero|secretmem|\[)/;
const MAX_PLACES = 1024;

/** criu takes the file's own directory, or the nearest above it that is still there. */
function andAbove(path: string): string[] {
  return path === '' || path === '.' || path === '/' ? ['.'] : [path, ...andAbove(dirname(path))];
}

/** Directories of bind mounts, and of a root file system that is not saved. */
export function namelessPlaces({ container, mounts, tree }: Scene): NamelessPlace[] {
  const saved = new Set(findVolumes(container, mounts).map(({ destination }) => destination));
  const sources = new Map((container.spec.mounts ?? []).filter(isBindMount).flatMap(({ destination, source }) => {
    const at = normalize(join('/', destination)).replace(/(.)\/$/, '$1');
    return source === undefined || saved.has(at) ? [] : [[at, resolve(container.bundle, source)] as const];
  }));
  if (container.rootfs.kind === 'plain') sources.set('/', container.rootfs.path);
  const names = tree.processes.flatMap(({ descriptors, mappings }) => [
    ...descriptors.map(({ target }) => target), ...mappings.map(({ name }) => name),
  ]);
  const nameless = names.filter((name) => name.startsWith('/') && name.endsWith(DELETED) && !NO_FILE.test(name));
  const targets = new Set(nameless);
  const places = new Map<string, NamelessPlace>();
  for (const target of targets) {
    const path = target.slice(0, -DELETED.length);
    const mount = mountOf(mounts, path);
    const root = mount === undefined || mount.options.includes('ro') ? undefined : sources.get(mount.mountPoint);
    if (mount === undefined || root === undefined) continue;
    for (const directory of andAbove(relative(mount.mountPoint, dirname(path)))) {
      places.set(`${root}\0${directory}`, { root, directory });
    }
  }
  return [...places.values()].slice(0, MAX_PLACES);
}
