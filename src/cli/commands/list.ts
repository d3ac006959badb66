/** stasis list */
import type { Command } from 'commander';
import { formatBytes } from '../../core/units.ts';
import type { AgentClient, CheckpointInfo, Problem } from '../../rpc/api.ts';
import { agentOptions, QUICK_MS, withAgent } from '../agent.ts';
import type { AgentOptions } from '../agent.ts';
import { exitHelp } from '../exit.ts';
import type { Io } from '../io.ts';
import { jsonDocument } from '../render/json.ts';
import { printable, table, time } from '../render/text.ts';

interface Options extends AgentOptions {
  readonly container?: string;
  readonly lineage?: string;
  readonly quiet?: boolean;
}

export function listCommand(program: Command, io: Io): void {
  const command = program.command('list').alias('ls').summary('show the checkpoints in the repository')
    .description('Shows the checkpoints in the repository, newest first. What is listed is complete.')
    .option('--container <id>', 'only checkpoints of this container')
    .option('--lineage <id>', 'only checkpoints of this lineage')
    .option('-q, --quiet', 'only the ids');
  agentOptions(command).addHelpText('after', exitHelp([20]));
  command.action((options: Options) => withAgent(options, async (agent) => {
    const { checkpoints, problems } = await allCheckpoints(agent, options);
    for (const { object, message } of problems) io.talk(`stasis: warning: ${printable(object)} cannot be read: ${printable(message)}`);
    if (options.json === true) io.out(jsonDocument({ checkpoints, problems }));
    else if (options.quiet === true) checkpoints.forEach(({ id }) => io.out(id));
    else io.out(table(columns, checkpoints));
  }));
}

export async function allCheckpoints(agent: AgentClient, filter: { readonly container?: string; readonly lineage?: string }): Promise<{ checkpoints: CheckpointInfo[]; problems: Problem[] }> {
  const checkpoints: CheckpointInfo[] = [];
  const problems: Problem[] = [];
  const wanted = { ...(filter.container === undefined ? {} : { container: filter.container }), ...(filter.lineage === undefined ? {} : { lineage: filter.lineage }) };
  let pageToken = '';
  do {
    const page = await agent.listCheckpoints({ ...wanted, pageSize: 0, pageToken }, { signal: undefined, timeoutMs: QUICK_MS });
    checkpoints.push(...page.checkpoints);
    problems.push(...page.problems);
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  return { checkpoints, problems };
}

const columns = [
  { title: 'CHECKPOINT', value: (row: CheckpointInfo) => row.id },
  { title: 'CONTAINER', value: (row: CheckpointInfo) => row.containers.map(({ name }) => name).join(', ') },
  { title: 'NODE', value: (row: CheckpointInfo) => row.node },
  { title: 'CREATED', value: (row: CheckpointInfo) => time(row.createdMs) },
  { title: 'RAW', value: (row: CheckpointInfo) => formatBytes(row.bytes.raw), right: true },
  { title: 'STORED', value: (row: CheckpointInfo) => formatBytes(row.bytes.stored), right: true },
  { title: 'SEAL', value: (row: CheckpointInfo) => (row.cipher === 'null' ? 'PLAINTEXT' : 'sealed') },
  { title: 'PIN', value: (row: CheckpointInfo) => (row.pinned ? 'pinned' : '') },
  { title: 'REASON', value: (row: CheckpointInfo) => row.reason },
];
