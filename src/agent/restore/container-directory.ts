/** Where the agent keeps the rebuilt bundles of the containers that it restored, and their output. */
import { join } from 'node:path';
import type { ContainerId } from '../../core/ids.ts';
import { listDirectory, makePrivateDirectory } from '../../host/files.ts';
import { listContainers, removeBundle } from '../../runtime/index.ts';
import type { AgentContext } from '../context.ts';

function containersDirectory(agent: AgentContext): string {
  return join(agent.settings.stateDirectory, 'containers');
}

export function containerDirectory(agent: AgentContext, id: ContainerId): string {
  return join(containersDirectory(agent), id);
}

/** Files that take what a restored container writes to its pipes. They stay when it is gone, and are appended to. */
export function outputFiles(agent: AgentContext, id: ContainerId): { stdout: string; stderr: string } {
  const directory = join(agent.settings.stateDirectory, 'output');
  makePrivateDirectory(directory);
  return { stdout: join(directory, `${id}.stdout.log`), stderr: join(directory, `${id}.stderr.log`) };
}

/** Bundles of restored containers that the runtime does not know any more: unmounted and removed. Their output stays. */
export async function sweepContainers(agent: AgentContext): Promise<void> {
  const { containers } = await listContainers(agent.roots, { signal: undefined });
  const known = new Set(containers.map((container) => container.bundle));
  const inRestore = new Set(agent.journal.records().flatMap((record) => (record.kind === 'restore' ? [record.container.id as string] : [])));
  for (const name of listDirectory(containersDirectory(agent))) {
    const directory = containerDirectory(agent, name as never);
    const used = [...known].some((bundle) => bundle === directory || bundle.startsWith(`${directory}/`));
    if (!used && !inRestore.has(name)) await removeBundle(directory);
  }
}
