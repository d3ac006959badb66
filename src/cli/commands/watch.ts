/** stasis watch [OPERATION] and stasis cancel OPERATION */
import type { Command } from 'commander';
import { formatBytes, formatDuration } from '../../core/units.ts';
import type { Operation } from '../../rpc/api.ts';
import { agentOptions, QUICK_MS, withAgent } from '../agent.ts';
import type { AgentOptions } from '../agent.ts';
import { exitHelp } from '../exit.ts';
import type { Io } from '../io.ts';
import { jsonDocument, jsonLine } from '../render/json.ts';
import { printable, time } from '../render/text.ts';

export function watchCommand(program: Command, io: Io): void {
  const command = program.command('watch').argument('[operation]', 'only this one, until it ends').summary('follow the operations of the agent')
    .description('Shows the operations of the agent, and then a line for every change, until Ctrl-C or the end of the named operation.');
  agentOptions(command).addHelpText('after', exitHelp([10]));
  command.action((operationId: string | undefined, options: AgentOptions) => withAgent(options, async (agent) => {
    for await (const event of agent.watchOperations(operationId === undefined ? {} : { operationId }, { signal: undefined })) {
      if (options.json === true) io.out(jsonLine(event.type === 'snapshot' ? { type: 'snapshot', ...event.snapshot } : { type: 'changed', ...event.changed }));
      else (event.type === 'snapshot' ? event.snapshot.operations : [event.changed]).forEach((operation) => io.out(line(io, operation)));
    }
  }));
}

export function cancelCommand(program: Command, io: Io): void {
  const command = program.command('cancel').argument('<operation>', 'id of the operation').summary('cancel an operation')
    .description('Cancels an operation. The agent then undoes what was begun: the container runs on, nothing half-made is left. Prints the id.');
  agentOptions(command).addHelpText('after', exitHelp([10]));
  command.action((operationId: string, options: AgentOptions) => withAgent(options, async (agent) => {
    const operation = await agent.cancelOperation({ operationId }, { signal: undefined, timeoutMs: QUICK_MS });
    io.out(options.json === true ? jsonDocument(operation) : operation.id);
  }));
}

function line(io: Io, { id, kind, state, container, checkpoint, progress, startedMs, finishedMs, error }: Operation): string {
  const subject = printable(container === '' ? checkpoint : container);
  const took = formatDuration((finishedMs ?? io.clock.now()) - startedMs);
  const step = state === 'running' ? `  step ${progress.stepNumber}/${progress.stepCount} ${printable(progress.step)}${progress.bytesDone === 0 ? '' : `  ${formatBytes(progress.bytesDone)}${kind === 'fill' && progress.bytesTotal > 0 ? ` of ${formatBytes(progress.bytesTotal)}, ${Math.floor((progress.bytesDone * 100) / progress.bytesTotal)} %` : ''}`}${progress.frozen ? '  frozen' : ''}` : '';
  return `${time(io.clock.now())}  ${printable(id)}  ${kind} ${subject}  ${state} ${took}${step}${error === undefined ? '' : `  ${printable(error.code)}: ${printable(error.message)}`}`;
}
