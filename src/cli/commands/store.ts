/** stasis store probe */
import { Argument } from 'commander';
import type { Command } from 'commander';
import { StasisError } from '../../core/errors.ts';
import type { ProbeStoreResponse, StoreCheck } from '../../rpc/store-report.ts';
import { agentOptions, withAgent } from '../agent.ts';
import type { AgentOptions } from '../agent.ts';
import { exitHelp } from '../exit.ts';
import type { Io } from '../io.ts';
import { jsonDocument } from '../render/json.ts';
import { table } from '../render/text.ts';

/** A store that answers nothing is given up check by check. */
const PROBE_MS = 5 * 60_000;

const words: Readonly<Record<StoreCheck['outcome'], string>> = { passed: 'yes', failed: 'FAILED', absent: '-', skipped: 'not tried' };

export function storeCommand(program: Command, io: Io): void {
  const command = program.command('store').addArgument(new Argument('<action>', 'what to do').choices(['probe'])).summary('try the store of the repository')
    .description('Tries the store of the repository with objects of its own, which it removes, and says what may be relied on.');
  agentOptions(command).addHelpText('after', exitHelp([20]));
  command.action((_action: string, options: AgentOptions) => withAgent(options, async (agent) => {
    const report = await agent.probeStore({}, { signal: undefined, timeoutMs: PROBE_MS });
    io.out(options.json === true ? jsonDocument(report) : describe(report));
    if (report.usable) return;
    const failed = report.checks.filter(({ required, outcome }) => required && outcome !== 'passed').map(({ name }) => name);
    throw new StasisError('STORE_UNFIT', `${report.store} is not fit for a repository: ${failed.join(', ')} failed`, { hint: 'the table says why' });
  }));
}

function describe({ checks }: ProbeStoreResponse): string {
  return table<StoreCheck>([
    { title: 'CHECK', value: ({ name }) => name },
    { title: 'WORKS', value: ({ outcome }) => words[outcome] },
    { title: 'FOUND', value: ({ message }) => message },
  ], checks);
}
