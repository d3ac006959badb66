/** Ending containers and removing what the runtime keeps of them. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import type { ContainerId } from '../../core/ids.ts';
import { run } from '../../host/process.ts';
import { printable } from '../text.ts';
import type { RuntimeRoot } from '../types.ts';
import { deleteArgs, killArgs } from './args.ts';

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

/** Removes the runtime's state and cgroups; with `force` a running container is killed first. A container that is not there is fine. */
export async function remove(at: RuntimeRoot, id: ContainerId, { force, signal }: Options & { readonly force: boolean }): Promise<void> {
  const state = join(at.root, id);
  if (!existsSync(state)) return;
  try {
    await invoke(at, deleteArgs(at, id, force), `container ${id} could not be deleted`, { signal });
  } catch (error) {
    if (existsSync(state)) throw error;
  }
}
