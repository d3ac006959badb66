/**
 * State of a container that neither CRIU nor the runtime brings back, and Stasis does: what it was at the freeze is in the
 * description of the checkpoint (docs/FORMAT-IMAGE.md), and is set before a task runs.
 */
import { readMountinfo } from '../../host/mountinfo.ts';
import { readCgroups, readNamespaces, readStatus } from '../../host/proc.ts';
import { cgroupDirectory } from '../cgroup.ts';
import type { Container, OciSpec } from '../types.ts';
import { putBackLimits, readLimits, type Limits } from './limits.ts';
import { layOutNetwork, readNetwork, type SavedNetwork } from './network.ts';
import { putBackTasks, readTasks, type TaskState } from './tasks.ts';

export { roomForRestore } from './limits.ts';

export interface KernelState {
  readonly limits: Limits;
  readonly tasks: readonly TaskState[];
  /** Of a network namespace that the container does not share. */
  readonly network?: SavedNetwork;
}

/** A network namespace that the runtime made for it, not one that it joined. */
export function ownNetwork(spec: OciSpec): boolean {
  return spec.linux?.namespaces?.some(({ type, path }) => type === 'network' && !path) ?? false;
}

/** The directory of the process' cgroup in each hierarchy. */
function cgroupDirectories(pid: number): string[] {
  const entries = readCgroups(pid);
  return readMountinfo('self').filter(({ fsType }) => fsType === 'cgroup' || fsType === 'cgroup2').flatMap((mount) => {
    const path = entries.find(({ hierarchy, controllers }) => (mount.fsType === 'cgroup2' ? hierarchy === 0 : controllers.some((name) => mount.superOptions.includes(name))))?.path;
    return path === undefined ? [] : (cgroupDirectory(mount, path) ?? []);
  });
}

/** Of a container that stands still; synchronous. */
export function readKernelState({ pid }: Container, pids: readonly number[]): Omit<KernelState, 'network'> {
  return { limits: readLimits(cgroupDirectories(pid)), tasks: readTasks(pids, usualAffinity()) };
}

/** That of init, which nobody binds. */
function usualAffinity(): string {
  return readStatus(1)?.get('Cpus_allowed') ?? '';
}

/** Before the freeze: it takes programs. `program`: path of stasis-network. */
export async function readOwnNetwork({ pid, spec }: Container, program: string, signal: AbortSignal | undefined): Promise<{ network?: SavedNetwork; lost: readonly string[] }> {
  if (!ownNetwork(spec) || readNamespaces(pid).net === readNamespaces('self').net) return { lost: [] };
  return readNetwork(pid, spec, program, signal);
}

/**
 * Writes what the hook of a restore brings back as soon as the namespace exists, below `directory`, and returns where. Nothing
 * for a namespace that the container joins: that one is never touched.
 */
export function prepareNetwork(network: SavedNetwork | undefined, spec: OciSpec, directory: string): string | undefined {
  if (network === undefined || !ownNetwork(spec)) return undefined;
  layOutNetwork(directory, network);
  return directory;
}

/** While the tasks of a restored container have not run yet. Returns what could not be set. */
export function putBack(state: KernelState, pid: number, pids: readonly number[]): string[] {
  // criu is in the cgroups of the container, but not in its pid namespace.
  const namespace = readNamespaces(pid).pid;
  const own = pids.filter((candidate) => readNamespaces(candidate).pid === namespace);
  return [...putBackLimits(state.limits, cgroupDirectories(pid), { ended: false }), ...putBackTasks(state.tasks, own)];
}

/** When criu has ended. The bundle leaves room for criu alone meanwhile (roomForRestore). */
export function putBackLast(state: KernelState, pid: number): string[] {
  return putBackLimits(state.limits, cgroupDirectories(pid), { ended: true });
}
