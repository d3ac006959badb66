/** Where the agent keeps the rebuilt bundles of the containers that it restored, and their output. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { ContainerId, OperationId } from '../../core/ids.ts';
import { listDirectory, makePrivateDirectory } from '../../host/files.ts';
import { listContainers, removeBundle } from '../../runtime/index.ts';
import type { AgentContext } from '../context.ts';

function containersDirectory(agent: AgentContext): string {
  return join(agent.settings.stateDirectory, 'containers');
}

export function containerDirectory(agent: AgentContext, id: ContainerId): string {
  return join(containersDirectory(agent), id);
}

/** Of the guard of a lazy restore. */
export function fillDirectory(agent: AgentContext, operation: OperationId): string {
  return join(agent.settings.runDirectory, 'fills', operation);
}

/** Where the runtime's restore waits for the agent before it lets a task run. */
export function gateDirectory(agent: AgentContext, operation: OperationId): string {
  return join(agent.settings.runDirectory, 'gates', operation);
}

/** Files that take what a restored container writes to its pipes. They stay when it is gone, and are appended to. */
export function outputFiles(agent: AgentContext, id: ContainerId): { stdout: string; stderr: string } {
  const directory = join(agent.settings.stateDirectory, 'output');
  makePrivateDirectory(directory);
  return { stdout: join(directory, `${id}.stdout.log`), stderr: join(directory, `${id}.stderr.log`) };
}

/** Bundles of restored containers that the runtime does not know any more: unmounted and removed. Their output stays. */
export async function sweepContainers(agent: AgentContext): Promise<void> {
  const names = listDirectory(containersDirectory(agent));
  const { containers } = await listContainers(agent.roots, { signal: undefined });
  const known = containers.map((container) => container.bundle);
  for (const name of names) {
    const directory = containerDirectory(agent, name as never);
    const used = known.some((bundle) => bundle === directory || bundle.startsWith(`${directory}/`));
    // Asked again right before: a restore may have begun, and even ended, since the containers were listed.
    if (!used && !inRestore(agent, name) && !inBooks(agent, name)) await removeBundle(directory);
  }
}

function inRestore(agent: AgentContext, name: string): boolean {
  return agent.journal.records().some((record) => record.kind === 'restore' && record.container.id === name);
}

/** Also when the state of that container cannot be read: then it may run all the same. */
function inBooks(agent: AgentContext, name: string): boolean {
  return agent.roots.some(({ root }) => !root.endsWith('*') && existsSync(join(root, name)));
}
