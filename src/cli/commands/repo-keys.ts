/** stasis repo keys */
import type { Command } from 'commander';
import type { LineageKeyInfo } from '../../rpc/api.ts';
import { agentOptions, withAgent } from '../agent.ts';
import type { AgentOptions } from '../agent.ts';
import { exitHelp } from '../exit.ts';
import type { Io } from '../io.ts';
import { jsonDocument } from '../render/json.ts';
import { printable, table } from '../render/text.ts';

/** The first bytes of every manifest and all lineage keys are read. */
const LIST_MS = 10 * 60_000;
/** Enough to tell keys apart by eye; --wide and --json show all. */
const SHORT = 12;

export function repoKeysCommand(repo: Command, io: Io): void {
  const command = repo.command('keys').summary('show who can read what').description('Shows the key of each lineage: to whom it is wrapped, how often that was changed, how many checkpoints it is for, and whether this node can open it.')
    .option('-w, --wide', 'whole public keys instead of their first digits');
  agentOptions(command).addHelpText('after', exitHelp([20]));
  command.action((options: AgentOptions & { readonly wide?: boolean }) => withAgent(options, async (agent) => {
    const answer = await agent.listLineageKeys({}, { signal: undefined, timeoutMs: LIST_MS });
    if (options.json === true) {
      io.out(jsonDocument(answer));
      return;
    }
    for (const { object, message } of answer.problems) io.talk(`stasis: warning: ${printable(object)}: ${printable(message)}`);
    io.out(table(columns(options.wide === true), answer.keys));
  }));
}

function columns(wide: boolean) {
  const key = (text: string): string => (wide ? text : text.slice(0, SHORT));
  return [
    { title: 'LINEAGE', value: (row: LineageKeyInfo) => row.lineage },
    { title: 'EPOCH', value: (row: LineageKeyInfo) => String(row.epoch), right: true },
    { title: 'CHECKPOINTS', value: (row: LineageKeyInfo) => String(row.checkpoints.length), right: true },
    { title: 'HERE', value: (row: LineageKeyInfo) => (row.openable ? 'opens' : 'sealed') },
    { title: 'STATE', value: (row: LineageKeyInfo) => (row.ended ? 'ended' : 'goes on') },
    { title: 'RECIPIENTS', value: (row: LineageKeyInfo) => row.recipients.map(key).join(' ') },
  ];
}
