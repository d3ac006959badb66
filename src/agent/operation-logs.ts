/**
 * CRIU's working directory of an operation: log, statistics, configuration, on disk. Kept when the operation fails
 * (or the caller asks), so that the error can name a log that is still there.
 */
import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { OperationId } from '../core/ids.ts';
import { listDirectory, makePrivateDirectory, removeTree } from '../host/files.ts';
import type { AgentContext } from './context.ts';

/** A log of a large container has some megabytes; older ones go. */
const KEEP = 50;

function logsDirectory(agent: AgentContext): string {
  return join(agent.settings.stateDirectory, 'logs');
}

/** Empty, mode 0700. */
export function openLogDirectory(agent: AgentContext, operation: OperationId): string {
  const logs = logsDirectory(agent);
  makePrivateDirectory(logs);
  prune(logs);
  const directory = join(logs, operation);
  removeTree(directory);
  mkdirSync(directory, { mode: 0o700 });
  return directory;
}

function prune(logs: string): void {
  const names = listDirectory(logs);
  if (names.length < KEEP) return;
  const byAge = names.map((name) => ({ path: join(logs, name), at: statSync(join(logs, name)).mtimeMs })).sort((a, b) => a.at - b.at);
  for (const { path } of byAge.slice(0, names.length - KEEP + 1)) removeTree(path);
}
