/** stasis rm CHECKPOINT… */
import type { Command } from 'commander';
import { newOperationId } from '../../core/ids.ts';
import { agentOptions, withAgent } from '../agent.ts';
import type { AgentOptions } from '../agent.ts';
import { exitHelp, fail } from '../exit.ts';
import type { Io } from '../io.ts';
import { jsonLine } from '../render/json.ts';

interface Options extends AgentOptions {
  readonly reason: string;
}

/** Deleting is a few requests to the store, which may be slow, but not this slow. */
const DELETE_MS = 10 * 60_000;

export function rmCommand(program: Command, io: Io): void {
  const command = program.command('rm').argument('<checkpoint...>', 'ids of checkpoints').summary('delete checkpoints')
    .description('Deletes checkpoints from the repository. Prints the ids of those that were deleted; one that fails does not keep the others.')
    .option('--reason <text>', 'why; it is written to the log', '');
  agentOptions(command).addHelpText('after', exitHelp([10, 11, 20]));
  command.action((ids: string[], options: Options) => withAgent(options, async (agent) => {
    let failed: { error: unknown } | undefined;
    for (const checkpoint of ids) {
      try {
        await agent.deleteCheckpoint({ checkpoint, operationId: newOperationId(), reason: options.reason }, { signal: undefined, timeoutMs: DELETE_MS });
        io.out(options.json === true ? jsonLine({ type: 'deleted', checkpoint }) : checkpoint);
      } catch (error) {
        // All but the last failure are told here, the last one where every error ends.
        if (failed !== undefined) fail(io, failed.error, options.json === true);
        failed = { error };
      }
    }
    if (failed !== undefined) throw failed.error;
  }));
}
