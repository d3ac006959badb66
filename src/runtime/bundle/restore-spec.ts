/** The config.json of a restored container, out of the one that it had. */
import { basename, dirname, join } from 'node:path';
import type { OciSpec } from '../types.ts';

/** Cgroups that belong to a manager, which would remove what it does not know there, or systemd's own notation. */
const MANAGED = /:|\.slice|kubepods|libpod|buildkit|(^|\/)(k8s\.io|system|machine)(\/|$)/;

/** A cgroup of its own for the restored container: beside the old one where that is nobody's, else below /stasis. */
export function cgroupsPathFor(old: string | undefined, id: string): string {
  if (old === undefined || old === '' || MANAGED.test(old)) return `/stasis/${id}`;
  return basename(old) === id ? old : join(dirname(old), id);
}

export interface SpecChanges {
  readonly id: string;
  readonly root: string;
  /** New bind sources by mount destination. */
  readonly sources: ReadonlyMap<string, string>;
}

/** Hooks ran when the container was made and belong to its old surroundings; org.criu.config could run anything as root. */
export function restoreSpec(spec: OciSpec, { id, root, sources }: SpecChanges): OciSpec {
  const { hooks: _hooks, annotations, mounts, linux, ...rest } = spec;
  const kept = Object.fromEntries(Object.entries(annotations ?? {}).filter(([key]) => key !== 'org.criu.config'));
  return {
    ...rest,
    root: { ...spec.root, path: root },
    ...(annotations === undefined ? {} : { annotations: kept }),
    ...(mounts === undefined ? {} : { mounts: mounts.map((mount) => ({ ...mount, ...(sources.has(mount.destination) ? { source: sources.get(mount.destination)! } : {}) })) }),
    linux: { ...linux, cgroupsPath: cgroupsPathFor(linux?.cgroupsPath, id) },
  };
}
