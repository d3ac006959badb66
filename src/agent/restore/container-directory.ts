/** Where the agent keeps the rebuilt bundle, the output and the pid file of a container that it restored. */
import { join } from 'node:path';
import type { ContainerId } from '../../core/ids.ts';
import type { AgentContext } from '../context.ts';

export function containersDirectory(agent: AgentContext): string {
  return join(agent.settings.stateDirectory, 'containers');
}

export function containerDirectory(agent: AgentContext, id: ContainerId): string {
  return join(containersDirectory(agent), id);
}
