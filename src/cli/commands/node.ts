/** stasis node */
import type { Command } from 'commander';
import { formatBytes, formatDuration } from '../../core/units.ts';
import type { Node } from '../../rpc/api.ts';
import { agentOptions, QUICK_MS, withAgent } from '../agent.ts';
import type { AgentOptions } from '../agent.ts';
import { exitHelp } from '../exit.ts';
import type { Io } from '../io.ts';
import { jsonDocument } from '../render/json.ts';
import { pairs, printable, time } from '../render/text.ts';

export function nodeCommand(program: Command, io: Io): void {
  const command = program.command('node').summary('show versions, features and limits of the node')
    .description('Shows the versions, features, limits, keys and the repository of the node, and what is wrong with it.');
  agentOptions(command).addHelpText('after', exitHelp([]));
  command.action((options: AgentOptions) => withAgent(options, async (agent) => {
    const node = await agent.getNode({}, { signal: undefined, timeoutMs: QUICK_MS });
    io.out(options.json === true ? jsonDocument(node) : describe(node));
    if (options.json !== true) for (const problem of node.problems) io.talk(`stasis: warning: ${printable(problem)}`);
  }));
}

function describe(node: Node): string {
  const { limits, keys, staging, repository } = node;
  const names = (available: boolean): string => node.features.filter((feature) => feature.available === available).map(({ name }) => name).join(', ');
  return pairs([
    ['Node', node.name],
    ['Agent', `${node.agentVersion}, since ${time(node.startedMs)}, ${node.operationsRunning} operations running`],
    ['Kernel', `${node.kernel} (${node.architecture})`],
    ['CRIU', node.criuVersion],
    ...node.runtimes.map(({ name, version, binary, roots }) => ['Runtime', `${name} ${version} (${binary}; ${roots.join(', ')})`] as const),
    ['Features', names(true)],
    ['Missing', names(false)],
    ['Pre-dump', node.features.some(({ name, available }) => name === 'mem_dirty_track' && available) ? 'written pages are tracked: memory is read before the freeze' : 'this kernel does not track written pages (CONFIG_MEM_SOFT_DIRTY): all memory is read in the freeze'],
    ['Limits', `${limits.parallelOperations} operations at once, frozen ${formatDuration(limits.freezeBudgetMs)} (${formatDuration(limits.stopBudgetMs)} to stop), ghost files ${formatBytes(limits.ghostLimitBytes)}`],
    ['Staging', `${formatBytes(staging.usedBytes)} of ${formatBytes(staging.sizeBytes)} used`],
    ['Repository', `${repository.description}, ${repository.cipher}${repository.freeBytes === undefined ? '' : `, ${formatBytes(repository.freeBytes)} free`}`],
    ['Plaintext for', repository.plaintextFor.join(', ')],
    ['Signs as', keys.signer],
    ['Sealed to', keys.recipient],
    ['Trusts', keys.trustedSigners.join(', ')],
    ['You may', node.callerRoles.join(', ')],
  ]);
}
