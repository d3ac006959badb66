/**
 * Starts a restore so that criu is in the container's cgroups before it makes anything: a cgroup namespace has its root
 * where its maker is, and the cgroup mounts of the container have theirs in that namespace (ADR 0025).
 */
import { appendFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import { searchPathFrom } from '../../host/process.ts';
import { readSpec } from '../spec.ts';
import { CRIU_CONFIG_ANNOTATION, CRIU_CONFIG_FILE, CRIU_CONFIG_TEXT } from '../bundle/restore-spec.ts';
import { printable } from '../text.ts';
import type { Version } from '../toolchain.ts';
import type { OciSpec, RestoreRequest } from '../types.ts';
import { leavesCgroups } from './args.ts';
import { prepareCgroups } from './cgroups.ts';
import { cgroupsOfRunc, externalsOfRestore } from './external-mounts.ts';

export interface Placement {
  readonly env: Readonly<Record<string, string>>;
  /** What the runtime itself is started with. */
  readonly before: readonly string[];
  /** When criu has ended. */
  readonly done?: () => void;
  /** Takes away what was made, after a failure. */
  remove(): void;
  /** Why criu could not be started, if it is for its cgroups. */
  failure(): StasisError | undefined;
}

const NOWHERE: Placement = { env: {}, before: [], remove: () => undefined, failure: () => undefined };

/** "new", the path of one to join, or empty: the namespace of the node. */
function cgroupNamespace(spec: OciSpec, saved: boolean | undefined): string {
  const entry = spec.linux?.namespaces?.find(({ type }) => type === 'cgroup');
  if (entry?.path) return entry.path;
  // Its images mount all cgroups that the namespace shows: never fewer walls than it had.
  return entry !== undefined || saved ? 'new' : '';
}

/** A bundle of Stasis' own making has a file for CRIU. */
function hasOwnConfig(spec: OciSpec, bundle: string): boolean {
  return spec.annotations?.[CRIU_CONFIG_ANNOTATION] === join(bundle, CRIU_CONFIG_FILE);
}

/**
 * Without a namespace runc gives CRIU the cgroup mounts from outside. The file that it names to CRIU for this bundle is
 * read after that, and has the last word.
 */
async function ofRunc(spec: OciSpec, { at, id, bundle }: RestoreRequest): Promise<Placement> {
  const file = join(bundle, CRIU_CONFIG_FILE);
  const { places, remove } = await prepareCgroups({ runtime: at.runtime, id, bundle });
  writeFileSync(file, CRIU_CONFIG_TEXT + cgroupsOfRunc(spec, places), { mode: 0o600 });
  // Preflight knows the file by its text.
  return { ...NOWHERE, remove, done: () => writeFileSync(file, CRIU_CONFIG_TEXT, { mode: 0o600 }) };
}

/** `libexec`: directory of Stasis' own programs. */
export async function placeInCgroups(request: RestoreRequest, libexec: string, version: Version): Promise<Placement> {
  const { at, id, bundle, workDir } = request;
  if (!leavesCgroups(at, version)) return NOWHERE;
  const spec = await readSpec(bundle);
  const namespace = cgroupNamespace(spec, request.cgroupNamespace);
  if (at.runtime === 'runc' && namespace === '' && hasOwnConfig(spec, bundle)) return ofRunc(spec, request);
  // crun on version 1 leaves the processes where it is itself, and gives them mounts of the cgroups that it is in. runc
  // does the latter, too, but refuses a cgroup that has a process.
  const before = at.runtime === 'crun' ? [join(libexec, 'stasis-in-cgroups')] : [];
  if (namespace === '' && before.length === 0) return NOWHERE;
  const errorFile = join(workDir, 'cgroups.error');
  rmSync(errorFile, { force: true });
  const { directories, remove } = await prepareCgroups({ runtime: at.runtime, id, bundle });
  appendFileSync(request.criuConfig, externalsOfRestore(spec, directories));
  return {
    env: {
      PATH: searchPathFrom(join(libexec, 'criu-in-cgroups')),
      STASIS_CGROUPS: [...directories.values()].join('\n'), STASIS_CGROUPS_ERROR: errorFile, STASIS_CGROUP_NAMESPACE: namespace,
    },
    before, remove,
    failure: () => notJoined(errorFile, id),
  };
}

function notJoined(errorFile: string, id: string): StasisError | undefined {
  try {
    const directory = readFileSync(errorFile, 'utf8').trim();
    return new StasisError('RESTORE_FAILED', `container ${id} could not be restored: criu could not join its cgroup ${printable(directory)}`, {
      hint: 'is a cgroup above it frozen, full (pids.max), a threaded one, or without processors (cpuset)?', details: { cgroup: dirname(directory) },
    });
  } catch {
    return undefined;
  }
}
