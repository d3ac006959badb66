/**
 * State of a container that neither CRIU nor the runtime brings back, and Stasis does: what it was at the freeze is in the
 * description of the checkpoint (docs/FORMAT-IMAGE.md), and is set before a task runs.
 */
import { readNamespaces, readStatus } from '../../host/proc.ts';
import { cgroupPlaces } from '../cgroup.ts';
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

function cgroupDirectories(pid: number, freezer: string | undefined): string[] {
  return cgroupPlaces(pid, freezer).flatMap(({ directory }) => directory ?? []);
}

/** Of a container that stands still; synchronous. */
export function readKernelState({ pid, freezer }: Container, pids: readonly number[]): Omit<KernelState, 'network'> {
  return { limits: readLimits(cgroupDirectories(pid, freezer?.directory)), tasks: readTasks(pids, usualAffinity()) };
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
  return [...putBackLimits(
    state.limits, cgroupDirectories(pid, undefined), { ended: false },
  ), ...putBackTasks(state.tasks, own)];
}

/**
 * When criu has ended. The bundle leaves room for criu alone meanwhile (roomForRestore). `freezer`: that of the
 * container, as its first process may have gone back into a cgroup below it.
 */
export function putBackLast(state: KernelState, pid: number, freezer: string | undefined): string[] {
  return putBackLimits(state.limits, cgroupDirectories(pid, freezer), { ended: true });
}
