/** Rebuilding the tasks of a checkpoint in a scratch place, in the very way that a restore would. */
import { openLazySink } from '../../host/lazy-sink.ts';
import { pidFromInside } from '../../host/nested-pid.ts';
import { sessionLeader } from '../../host/session.ts';
import type { DriverOptions } from '../driver/operation.ts';
import { restore } from '../driver/restore.ts';
import type { RestoreRequest, Toolchain } from '../types.ts';
import type { ScratchPlace } from './place.ts';

export interface RebuildRequest extends Pick<RestoreRequest, 'at' | 'imageDir' | 'workDir' | 'flags' | 'criuConfig' | 'operationId' | 'gateDirectory' | 'cgroupNamespace' | 'lazyPages'> {
  readonly place: ScratchPlace;
  /** Paths of deploy/libexec/stasis-rehearse and stasis-restore. */
  readonly scripts: { readonly rehearse: string; readonly restore: string };
}

/** All of it dies with its first process, and that with the agent. */
const ENTER = [
  'setpriv', '--pdeathsig', 'KILL', 'unshare', '--pid', '--fork', '--kill-child', '--mount', '--propagation', 'private', '--mount-proc', '--net', '--ipc', '--uts',
] as const;

/**
 * Resolves when the runtime has ended, which it does not while the gate holds its tasks. Throws RESTORE_FAILED with the first
 * real cause, HOST_UNSUPPORTED, DEADLINE_EXCEEDED, or the signal's reason.
 */
export async function rebuild({ place, scripts, ...request }: RebuildRequest, toolchain: Toolchain, options: DriverOptions): Promise<void> {
  await using _sink = await openLazySink(request.workDir);
  const { directory, id, bundle, pidFile, networkDirectory } = place;
  await restore(
    { ...request, id, bundle, pidFile, networkDirectory, stdout: '/dev/null', stderr: '/dev/null' },
    toolchain, { ...options, launcher: scripts.restore, within: { command: [...ENTER, scripts.rehearse, directory, request.at.root], sessionDirectory: directory } },
  );
}

/** The pid here of a process of the scratch place, given the one that criu knows. */
export function pidInPlace({ sessionFile }: ScratchPlace, inner: number): number | undefined {
  const outer = sessionLeader(sessionFile);
  return outer === undefined ? undefined : pidFromInside(outer, inner);
}
