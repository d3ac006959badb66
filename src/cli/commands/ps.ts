/** stasis ps [CONTAINER] */
import type { Command } from 'commander';
import { formatBytes } from '../../core/units.ts';
import type { ContainerInfo } from '../../rpc/api.ts';
import { agentOptions, QUICK_MS, withAgent } from '../agent.ts';
import type { AgentOptions } from '../agent.ts';
import { exitHelp } from '../exit.ts';
import type { Io } from '../io.ts';
import { jsonDocument } from '../render/json.ts';
import { table } from '../render/text.ts';

interface Options extends AgentOptions {
  readonly all?: boolean;
  readonly quiet?: boolean;
}

export function psCommand(program: Command, io: Io): void {
  const command = program.command('ps').argument('[container]', 'only this id or name').summary('show containers and whether each can be checkpointed')
    .description('Shows the containers of the node, and for each whether it can be checkpointed and if not why.')
    .option('-a, --all', 'also containers that do not run')
    .option('-q, --quiet', 'only the ids');
  agentOptions(command).addHelpText('after', exitHelp([10]));
  command.action((container: string | undefined, options: Options) => withAgent(options, async (agent) => {
    const request = { all: options.all === true, ...(container === undefined ? {} : { container }) };
    const { containers } = await agent.listContainers(request, { signal: undefined, timeoutMs: QUICK_MS });
    if (options.json === true) io.out(jsonDocument({ containers }));
    else if (options.quiet === true) containers.forEach(({ id }) => io.out(id));
    else io.out(table(columns, containers));
  }));
}

/** Ids of containerd and podman have 64 characters, of which 12 tell them apart. */
const short = (id: string): string => (/^[0-9a-f]{64}$/.test(id) ? id.slice(0, 12) : id);

const columns = [
  { title: 'CONTAINER', value: (row: ContainerInfo) => short(row.id) },
  { title: 'NAME', value: (row: ContainerInfo) => short(row.name) },
  { title: 'RUNTIME', value: (row: ContainerInfo) => (row.manager === 'plain' ? row.runtime : `${row.runtime} (${row.manager})`) },
  { title: 'STATUS', value: status },
  { title: 'PID', value: (row: ContainerInfo) => (row.pid === 0 ? '-' : String(row.pid)), right: true },
  { title: 'MEMORY', value: (row: ContainerInfo) => formatBytes(row.memoryBytes), right: true },
  { title: 'CHECKPOINT', value: verdict },
];

function status(row: ContainerInfo): string {
  if (row.filling !== undefined) return `${row.status}, filling ${row.filling.bytesTotal === 0 ? 100 : Math.min(100, Math.floor((row.filling.bytesDone * 100) / row.filling.bytesTotal))} %`;
  return row.operationId === undefined ? row.status : `${row.status}, operation ${row.operationId}`;
}

function verdict(row: ContainerInfo): string {
  const [first] = row.findings.filter(({ severity }) => severity === (row.checkpointable ? 'warning' : 'fatal'));
  if (row.checkpointable) return first === undefined ? 'yes' : `yes, but ${first.message}`;
  return first === undefined ? 'no' : `no: ${first.message}`;
}
