/** stasis verify CHECKPOINT… */
import type { Command } from 'commander';
import { StasisError } from '../../core/errors.ts';
import { newOperationId } from '../../core/ids.ts';
import { formatBytes, formatDuration } from '../../core/units.ts';
import type { AgentClient, VerifyReport } from '../../rpc/api.ts';
import { agentOptions, withAgent } from '../agent.ts';
import type { AgentOptions } from '../agent.ts';
import { exitHelp } from '../exit.ts';
import { follow } from '../follow.ts';
import type { Io } from '../io.ts';
import { jsonLine } from '../render/json.ts';
import { printable } from '../render/text.ts';
import { allCheckpoints } from './list.ts';

interface Options extends AgentOptions {
  readonly all?: boolean;
}

export function verifyCommand(program: Command, io: Io): void {
  const command = program.command('verify').argument('[checkpoint...]', 'ids of checkpoints').summary('read checkpoints back and check every byte')
    .description('Reads checkpoints back and checks every byte of them. Prints one line for each.')
    .option('-a, --all', 'all checkpoints of the repository');
  agentOptions(command).addHelpText('after', exitHelp([10, 20, 30, 31, 130]));
  command.action((given: string[], options: Options) => withAgent(options, async (agent) => {
    if ((given.length > 0) === (options.all === true)) throw new StasisError('USAGE', 'name checkpoints, or say --all', { hint: 'stasis list shows the checkpoints' });
    const unreadable = options.all === true ? await allCheckpoints(agent, {}) : { checkpoints: [], problems: [] };
    for (const { object, message } of unreadable.problems) io.talk(`stasis: error: ${printable(object)} cannot be read: ${printable(message)}`);
    const ids = options.all === true ? unreadable.checkpoints.map(({ id }) => id) : given;
    let damaged = unreadable.problems.length;
    for (const id of ids) if (!(await verifyOne(io, agent, id, options.json === true)).ok) damaged += 1;
    if (damaged > 0) {
      throw new StasisError('OBJECT_CORRUPT', `${damaged} of ${ids.length + unreadable.problems.length} checkpoints ${damaged === 1 ? 'is' : 'are'} damaged`, { hint: 'do not rely on them: make new ones while the containers run, and look for the cause in the store' });
    }
  }));
}

async function verifyOne(io: Io, agent: AgentClient, checkpoint: string, json: boolean): Promise<VerifyReport> {
  const operationId = newOperationId();
  const { report } = await follow(io, { agent, operationId, subject: checkpoint, json }, (signal) => agent.verifyCheckpoint({ checkpoint, operationId }, { signal }));
  if (json) io.out(jsonLine({ type: 'report', ...report }));
  else {
    for (const problem of report.problems) io.talk(`stasis: error: ${printable(problem.object)}: ${printable(problem.message)} (${printable(problem.code)})`);
    io.out(`${checkpoint}  ${report.ok ? 'ok' : 'DAMAGED'}  ${report.objects} objects, ${report.chunks} chunks, ${formatBytes(report.bytes)} in ${formatDuration(report.totalMs)}`);
  }
  return report;
}
