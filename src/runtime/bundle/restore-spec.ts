/** The config.json of a restored container, out of the one that it had. */
import { basename, dirname, join } from 'node:path';
import type { OciSpec } from '../types.ts';

/** Cgroups that belong to a manager, which would remove what it does not know there, or systemd's own notation. */
const MANAGED = /:|\.slice|kubepods|libpod|buildkit|(^|\/)(k8s\.io|system|machine)(\/|$)/;

export function isManaged(cgroupsPath: string): boolean {
  return MANAGED.test(cgroupsPath);
}

/** A cgroup of its own for the restored container: beside the old one where that is nobody's, else below /stasis. */
export function cgroupsPathFor(old: string | undefined, id: string): string {
  if (old === undefined || old === '' || isManaged(old)) return `/stasis/${id}`;
  return basename(old) === id ? old : join(dirname(old), id);
}

/** The annotation by which runc and crun find a configuration file for criu. */
export const CRIU_CONFIG_ANNOTATION = 'org.criu.config';
export const CRIU_CONFIG_FILE = 'criu.conf';
/** crun has no flag for this on restore. With "=": without, criu takes it for "soft". */
export const CRIU_CONFIG_TEXT = 'manage-cgroups=ignore\n';

export interface SpecChanges {
  readonly id: string;
  /** Of the rebuilt bundle. */
  readonly directory: string;
  readonly root: string;
  /** New bind sources by mount destination. */
  readonly sources: ReadonlyMap<string, string>;
}

/** Hooks ran when the container was made and belong to its old surroundings. A criu configuration of the user's could run anything as root. */
export function restoreSpec(spec: OciSpec, { id, directory, root, sources }: SpecChanges): OciSpec {
  const { hooks: _hooks, annotations, mounts, linux, ...rest } = spec;
  return {
    ...rest,
    root: { ...spec.root, path: root },
    annotations: { ...annotations, [CRIU_CONFIG_ANNOTATION]: join(directory, CRIU_CONFIG_FILE) },
    ...(mounts === undefined ? {} : { mounts: mounts.map((mount) => ({ ...mount, ...(sources.has(mount.destination) ? { source: sources.get(mount.destination)! } : {}) })) }),
    linux: { ...linux, cgroupsPath: cgroupsPathFor(linux?.cgroupsPath, id) },
  };
}
