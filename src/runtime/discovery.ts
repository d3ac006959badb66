/** Finding the containers of a node by the state directories of runc and crun. */
import { readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { StasisError, errnoCode } from '../core/errors.ts';
import { parseContainerId, type ContainerId } from '../core/ids.ts';
import { Freezer } from '../host/cgroup.ts';
import { readMountinfo, type Mount } from '../host/mountinfo.ts';
import { processAlive, readProcLink } from '../host/proc.ts';
import { findFreezer } from './cgroup.ts';
import { identify, managerOf, qualifiedName } from './naming.ts';
import { readRootfs } from './rootfs.ts';
import { readSpec, rootPath } from './spec.ts';
import { readState, stateOwner, type ContainerState } from './state-files.ts';
import { printable } from './text.ts';
import type { Container, ContainerStatus, RuntimeRoot } from './types.ts';

export const defaultRoots: readonly RuntimeRoot[] = [
  { runtime: 'runc', binary: 'runc', root: '/run/runc' },
  { runtime: 'crun', binary: 'crun', root: '/run/crun' },
  { runtime: 'runc', binary: 'runc', root: '/run/containerd/runc/*' },
];

export interface Listing {
  readonly containers: readonly Container[];
  /** Directories that look like containers but cannot be read, and why. */
  readonly skipped: readonly { readonly path: string; readonly reason: string }[];
}

interface Options {
  readonly signal: AbortSignal | undefined;
}

interface Found {
  readonly at: RuntimeRoot;
  readonly id: ContainerId;
}

/** State directories read at the same time. */
const PARALLEL = 16;

async function names(directory: string): Promise<string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name).sort();
  } catch (error) {
    if (errnoCode(error) === 'ENOENT' || errnoCode(error) === 'ENOTDIR') return [];
    throw error;
  }
}

/** The roots that exist now: "*" as the last part stands for every directory there. */
export async function expandRoots(roots: readonly RuntimeRoot[]): Promise<RuntimeRoot[]> {
  const expanded = new Map<string, RuntimeRoot>();
  for (const entry of roots) {
    const pattern = basename(entry.root);
    if (!pattern.includes('*')) {
      expanded.set(entry.root, expanded.get(entry.root) ?? entry);
      continue;
    }
    const expression = new RegExp(`^${pattern.split('*').map((part) => RegExp.escape(part)).join('.*')}$`, 's');
    for (const name of await names(dirname(entry.root))) {
      const root = join(dirname(entry.root), name);
      if (expression.test(name)) expanded.set(root, expanded.get(root) ?? { ...entry, root });
    }
  }
  return [...expanded.values()];
}

function statusOf(state: ContainerState, freezer: Container['freezer']): ContainerStatus {
  if (!state.started) return 'created';
  return freezer !== undefined && new Freezer(freezer).frozen() ? 'paused' : 'running';
}

/** The root with the binary that fits what lies in it: podman and containerd put crun's containers where runc's are expected. */
function rootFor(at: RuntimeRoot, state: ContainerState, roots: readonly RuntimeRoot[]): RuntimeRoot {
  if (at.runtime === state.runtime) return at;
  const binary = roots.find((entry) => entry.runtime === state.runtime)?.binary ?? state.runtime;
  return { runtime: state.runtime, binary, root: at.root };
}

async function load({ at, id }: Found, roots: readonly RuntimeRoot[], mounts: readonly Mount[]): Promise<Container> {
  const directory = join(at.root, id);
  const owner = await stateOwner(directory);
  if (owner === undefined) throw new Error('holds neither state.json nor status');
  const state = await readState(directory, owner);
  const spec = await readSpec(state.bundle).catch((error: unknown) => {
    throw new Error(`config.json of bundle ${printable(state.bundle)}: ${(error as Error).message}`, { cause: error });
  });
  const alive = processAlive(state.pid, state.pidStart);
  const freezer = alive ? findFreezer(state.pid, state.cgroup, mounts) : undefined;
  const manager = managerOf(spec, state.bundle);
  const root = rootPath(state.bundle, spec);
  return {
    id, at: rootFor(at, state, roots), status: alive ? statusOf(state, freezer) : 'stopped',
    pid: alive ? state.pid : 0, pidStart: alive ? state.pidStart : 0, bundle: state.bundle, createdMs: state.createdMs, spec, manager,
    ...(await identify(id, manager, spec, state.bundle)), freezer,
    rootfs: alive ? readRootfs(state.pid, root) : { kind: 'plain', path: root },
    ...(alive ? { standard: [0, 1, 2].map((fd) => readProcLink(state.pid, `fd/${fd}`) ?? '') } : {}),
  };
}

async function candidates(roots: readonly RuntimeRoot[], skipped: { path: string; reason: string }[]): Promise<Found[]> {
  const found: Found[] = [];
  for (const at of roots) {
    for (const name of await names(at.root)) {
      // crun keeps ".cache" and ".empty-directory" there.
      if (name.startsWith('.') && (await stateOwner(join(at.root, name))) === undefined) continue;
      try {
        found.push({ at, id: parseContainerId(name) });
      } catch {
        skipped.push({ path: join(at.root, printable(name)), reason: 'its name is not a container id' });
      }
    }
  }
  return found;
}

/** Every container of the node, stopped ones included. Broken state is listed in `skipped`, never thrown. */
export async function listContainers(roots: readonly RuntimeRoot[], { signal }: Options): Promise<Listing> {
  const skipped: { path: string; reason: string }[] = [];
  const here = await expandRoots(roots);
  const found = await candidates(here, skipped);
  const mounts = readMountinfo('self');
  const containers: Container[] = [];
  for (let start = 0; start < found.length; start += PARALLEL) {
    signal?.throwIfAborted();
    const loaded = await Promise.all(found.slice(start, start + PARALLEL).map(async (entry) => {
      try {
        return await load(entry, here, mounts);
      } catch (error) {
        skipped.push({ path: join(entry.at.root, entry.id), reason: printable((error as Error).message) });
        return undefined;
      }
    }));
    containers.push(...loaded.filter((container) => container !== undefined));
  }
  return { containers, skipped };
}

async function findById(roots: readonly RuntimeRoot[], id: ContainerId): Promise<Container[]> {
  const here = await expandRoots(roots);
  const mounts = readMountinfo('self');
  const found: Container[] = [];
  for (const at of here) {
    if ((await stateOwner(join(at.root, id))) === undefined) continue;
    try {
      found.push(await load({ at, id }, here, mounts));
    } catch (error) {
      throw new StasisError('RUNTIME_FAILED', `the state of container ${id} below ${at.root} cannot be read: ${(error as Error).message}`, {
        cause: error, hint: `look at ${join(at.root, id)}; ${at.binary} delete --force ${id} removes a broken container`,
      });
    }
  }
  return found;
}

function one(matches: readonly Container[], query: string): Container | undefined {
  if (matches.length <= 1) return matches[0];
  const list = matches.slice(0, 5).map((container) => `${container.id.slice(0, 16)} (${container.name}, ${container.at.root})`).join(', ');
  throw new StasisError('USAGE', `${JSON.stringify(printable(query))} fits ${matches.length} containers: ${list}`, { hint: 'give more characters of the id' });
}

function asContainerId(text: string): ContainerId | undefined {
  try {
    return parseContainerId(text);
  } catch {
    return undefined;
  }
}

/**
 * By id, else by name ("web", "namespace/pod/web"), else by a unique beginning of the id. Throws CONTAINER_NOT_FOUND,
 * USAGE when several fit, RUNTIME_FAILED when the state of the very container is broken.
 */
export async function findContainer(roots: readonly RuntimeRoot[], query: string, { signal }: Options): Promise<Container> {
  const id = asContainerId(query);
  const exact = id === undefined ? undefined : one(await findById(roots, id), query);
  if (exact !== undefined) return exact;
  const { containers } = await listContainers(roots, { signal });
  const named = one(containers.filter((container) => container.name === query || qualifiedName(container) === query), query);
  const found = named ?? (query === '' ? undefined : one(containers.filter((container) => container.id.startsWith(query)), query));
  if (found !== undefined) return found;
  throw new StasisError('CONTAINER_NOT_FOUND', `no container ${JSON.stringify(printable(query))} on this node`, {
    hint: `looked in ${roots.map((root) => root.root).join(', ')}; see stasis ps --all, or name further directories in the configuration (runtimes)`,
  });
}
