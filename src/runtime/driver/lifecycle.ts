/** Ending containers and removing what the runtime keeps of them. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import type { ContainerId } from '../../core/ids.ts';
import { run } from '../../host/process.ts';
import { removeMountPoint, removeTreeAndMounts } from '../../host/unmount.ts';
import { stateOwner } from '../state-files.ts';
import { printable } from '../text.ts';
import type { RuntimeRoot } from '../types.ts';
import { deleteArgs, killArgs } from './args.ts';
import { sweepCgroups } from './cgroups.ts';

interface Options {
  readonly signal: AbortSignal | undefined;
}

const TIMEOUT_MS = 30_000;

async function invoke(at: RuntimeRoot, args: readonly string[], what: string, { signal }: Options): Promise<void> {
  const { status, stderr } = await run(at.binary, args, { signal, timeoutMs: TIMEOUT_MS });
  if (status === 0) return;
  throw new StasisError('RUNTIME_FAILED', `${what}: ${printable(stderr.trim().split('\n').at(-1) ?? '')}`, { hint: `try it by hand: ${at.binary} ${args.join(' ')}`, details: { status } });
}

/** Sends a signal ("KILL", "TERM") to the first process. */
export async function kill(at: RuntimeRoot, id: ContainerId, signalName: string, options: Options): Promise<void> {
  await invoke(at, killArgs(at, id, signalName), `container ${id} could not be sent ${signalName}`, options);
}

export interface RemoveOptions extends Options {
  /** Kill a running container first. */
  readonly force: boolean;
  /** The bundle of a restore that may have been cut off: what it left in its cgroups is ended too. */
  readonly bundle?: string;
}

/** Removes the runtime's state and cgroups. A container that is not there, or only half, is fine. */
export async function remove(at: RuntimeRoot, id: ContainerId, { force, signal, bundle }: RemoveOptions): Promise<void> {
  const state = join(at.root, id);
  if (existsSync(state)) {
    try {
      await invoke(at, deleteArgs(at, id, force), `container ${id} could not be deleted`, { signal });
    } catch (error) {
      if ((await stateOwner(state)) !== undefined) throw error;
    }
    // A runtime that was killed in the middle of a restore leaves a directory, perhaps with the root mounted in it, that is no container.
    if (force && existsSync(state) && (await stateOwner(state)) === undefined) removeTreeAndMounts(state);
  }
  if (!force || bundle === undefined) return;
  await sweepCgroups({ runtime: at.runtime, id, bundle });
  // crun mounts the root there while it restores.
  removeMountPoint(join(bundle, 'criu-root'));
}
