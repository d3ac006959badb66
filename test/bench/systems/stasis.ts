/** Stasis over its gRPC API, with an agent of its own: sealed, compressed, durable and visible when it answers. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { removeBundle } from '../../../src/runtime/index.ts';
import { checkpoint, makeHome, removeHome, restore, startAgent } from '../../support/agent.ts';
import { residentMiB, timed } from '../measure.ts';
import { startRunc } from './plain.ts';
import type { Command, Running, Saved, System } from './system.ts';

const exec = promisify(execFile);

/** How often the agent's memory is looked at; the kernel's own peak counts the staging, too. */
const WATCH_MS = 20;

/** `environment`: STASIS_* variables of the agent beside its defaults. */
export async function stasis(name: string, environment: Readonly<Record<string, string>>): Promise<System> {
  const home = makeHome();
  const agent = await startAgent(home, { STASIS_STAGING_SIZE: '4G', ...environment });
  let peakMiB = 0;
  const watch = setInterval(() => { peakMiB = Math.max(peakMiB, residentMiB(agent.pid)); }, WATCH_MS);
  const forget = async (id: string): Promise<void> => {
    await agent.client.deleteCheckpoint({ checkpoint: id, reason: 'bench' }, { signal: undefined });
  };
  const start = async (command: Command): Promise<Running> => {
    const container = await startRunc(command);
    let pid = container.pid();
    let saved = '';
    let bundle: string | undefined;
    const save = async (leaveRunning: boolean): Promise<Saved & { readonly id: string }> => {
      // A new lineage each time: nothing is known from before.
      const { ms, value } = await timed(() => checkpoint(agent, command.id, { leaveRunning, newLineage: true }));
      return { ms, frozenMs: value.frozenMs, bytes: value.bytes.stored, id: value.checkpoint };
    };
    return {
      get pid() { return pid; },
      snapshot: async () => {
        const result = await save(true);
        await forget(result.id);
        return result;
      },
      stop: async () => {
        const result = await save(false);
        saved = result.id;
        return result;
      },
      restore: async () => {
        const { ms, value } = await timed(() => restore(agent, saved));
        pid = value.pid;
        bundle = value.bundle;
        return ms;
      },
      remove: async () => {
        await exec('runc', ['delete', '--force', command.id]).catch(() => {});
        if (bundle !== undefined) await removeBundle(bundle);
        if (saved !== '') await forget(saved);
        await container.remove();
      },
    };
  };
  return {
    name, start,
    peakMiB: () => Math.round(peakMiB),
    close: async () => {
      clearInterval(watch);
      await agent.stop();
      await removeHome(home);
    },
  };
}
