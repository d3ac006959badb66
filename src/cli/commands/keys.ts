/** stasis keys generate | list | add-recipient | remove-recipient | rotate | shred */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { StasisError } from '../../core/errors.ts';
import { newOperationId } from '../../core/ids.ts';
import { formatDuration } from '../../core/units.ts';
import type { AgentClient, ChangeRecipientsReport, ChangeRecipientsRequest, GetKeysResponse, ShreddedLineage } from '../../rpc/api.ts';
import { agentOptions, QUICK_MS, withAgent } from '../agent.ts';
import type { AgentOptions } from '../agent.ts';
import { exitHelp } from '../exit.ts';
import { follow } from '../follow.ts';
import type { Io } from '../io.ts';
import { jsonDocument, jsonLine } from '../render/json.ts';
import { pairs, printable } from '../render/text.ts';

interface ChangeOptions extends AgentOptions {
  readonly lineage?: readonly string[];
  readonly endLineages?: boolean;
  readonly dryRun?: boolean;
  readonly reason: string;
}

/** Few requests, but the store may be slow. */
const SHRED_MS = 10 * 60_000;

export function keysCommand(program: Command, io: Io): void {
  const keys = program.command('keys').summary('decide who can read checkpoints').description('Makes keys, and decides to whom the keys of checkpoints are wrapped. docs/KEYS.md has the whole picture.');
  generateCommand(keys, io);
  listCommand(keys, io);
  addCommand(keys, io);
  removeCommand(keys, io);
  rotateCommand(keys, io);
  shredCommand(keys, io);
  for (const command of keys.commands) command.exitOverride();
}

function generateCommand(keys: Command, io: Io): void {
  const command = keys.command('generate').argument('<file>', 'where to put it; nothing is overwritten').summary('make a new pair of keys')
    .description('Makes a key file, mode 0600, and prints its public keys: the recipient, to which others wrap, and the signer, whom others trust. Needs no agent.')
    .option('--json', 'print JSON')
    .addHelpText('after', exitHelp([15]));
  command.action(async (file: string, options: { readonly json?: boolean }) => {
    const { generateKeyFile } = await import('../../repository/keys/file.ts');
    const made = { file: resolve(file), ...(await generateKeyFile(resolve(file))) };
    io.out(options.json === true ? jsonDocument(made) : pairs([['Recipient', made.recipient], ['Signer', made.signer]]));
  });
}

function listCommand(keys: Command, io: Io): void {
  const command = keys.command('list').summary('show the public keys of this node').description('Shows the public keys of the node, to whom it wraps the keys of checkpoints, and whose signatures it trusts. stasis repo keys shows those of lineages.');
  agentOptions(command).addHelpText('after', exitHelp([]));
  command.action((options: AgentOptions) => withAgent(options, async (agent) => {
    const found = await agent.getKeys({}, { signal: undefined, timeoutMs: QUICK_MS });
    io.out(options.json === true ? jsonDocument(found) : describe(found));
  }));
}

function describe({ provider, signer, formerSigners, own, recipients, trustedSigners }: GetKeysResponse): string {
  const mine = new Set(own);
  return pairs([
    ['Provider', provider],
    ['Signs as', signer],
    ...formerSigners.map((key) => ['Signed as', key] as const),
    ...own.map((key) => ['Opens', key] as const),
    ...recipients.map((key) => ['Wraps to', `${key}${mine.has(key) ? '' : ' (of others)'}`] as const),
    ...trustedSigners.map((key) => ['Trusts', key] as const),
  ]);
}

function changeOptions(command: Command): Command {
  return command.option('-l, --lineage <id...>', 'only these lineages; otherwise all')
    .option('-n, --dry-run', 'only say what would be done')
    .option('--reason <text>', 'why; it is written to the log', '');
}

function addCommand(keys: Command, io: Io): void {
  const command = changeOptions(keys.command('add-recipient').argument('<key...>', 'public keys, 64 hexadecimal digits').summary('let others read what is there')
    .description('Wraps the keys of lineages to further recipients. This node must be able to open them. Nothing is uploaded again.'));
  agentOptions(command).addHelpText('after', exitHelp([20, 31, 130]));
  command.action((add: string[], options: ChangeOptions) => withAgent(options, async (agent) => {
    await change(io, agent, options, { add });
    const { recipients } = await agent.getKeys({}, { signal: undefined, timeoutMs: QUICK_MS });
    for (const key of add) if (!recipients.includes(key)) io.talk(`stasis: warning: new lineages are not wrapped to ${printable(key)}: add it to keys.recipients`);
  }));
}

function removeCommand(keys: Command, io: Io): void {
  const command = changeOptions(keys.command('remove-recipient').argument('<key...>', 'public keys, 64 hexadecimal digits').summary('let somebody read no more')
    .description('Takes recipients away from the keys of lineages, and ends the lineages: who could read may have kept the data key, so the next checkpoint of each workload begins a lineage with a new one.')
    .option('--continue-lineages', 'do not end them: the key that is removed was never in wrong hands'));
  agentOptions(command).addHelpText('after', exitHelp([20, 31, 130]));
  command.action((remove: string[], options: ChangeOptions & { readonly continueLineages?: boolean }) => withAgent(options, async (agent) => {
    const holding = await lineagesOf(agent, remove, options.lineage);
    if (holding.length === 0) io.talk('stasis: no lineage is wrapped to it');
    else await change(io, agent, { ...options, lineage: holding }, { remove, endLineages: options.continueLineages !== true });
    const { recipients } = await agent.getKeys({}, { signal: undefined, timeoutMs: QUICK_MS });
    for (const key of remove) if (recipients.includes(key)) io.talk(`stasis: warning: the next checkpoint is wrapped to ${printable(key)} again: take it out of keys.recipients, or replace the key of this node`);
  }));
}

/** Only where it is a recipient: others are not to be ended for it. */
async function lineagesOf(agent: AgentClient, recipients: readonly string[], only: readonly string[] | undefined): Promise<string[]> {
  const { keys } = await agent.listLineageKeys({}, { signal: undefined, timeoutMs: SHRED_MS });
  return keys.filter((key) => key.recipients.some((one) => recipients.includes(one)) && (only === undefined || only.includes(key.lineage))).map(({ lineage }) => lineage);
}

function rotateCommand(keys: Command, io: Io): void {
  const command = changeOptions(keys.command('rotate').summary('wrap to the keys of today')
    .description('Where a key of this node is a recipient of a lineage, puts the recipients of today in place of all its keys; with --exact in place of everybody. Nothing is uploaded again. It can be interrupted and run again.')
    .option('--exact', 'the recipients of today and nobody else, in every lineage that this node can open')
    .option('--end-lineages', 'also begin lineages with new data keys, at the next checkpoint of each workload'));
  agentOptions(command).addHelpText('after', exitHelp([20, 31, 130]));
  command.action((options: ChangeOptions & { readonly exact?: boolean }) => withAgent(options, (agent) => change(io, agent, options, { rotate: true, exact: options.exact === true, endLineages: options.endLineages === true })));
}

type Wanted = Partial<Pick<ChangeRecipientsRequest, 'add' | 'remove' | 'rotate' | 'exact' | 'endLineages'>>;

async function change(io: Io, agent: AgentClient, options: ChangeOptions, wanted: Wanted): Promise<void> {
  const operationId = newOperationId();
  const json = options.json === true;
  const request: ChangeRecipientsRequest = { lineages: options.lineage ?? [], add: [], remove: [], rotate: false, exact: false, endLineages: false, dryRun: options.dryRun === true, reason: options.reason, operationId, ...wanted };
  const { report } = await follow(io, { agent, operationId, subject: 'keys', json }, (signal) => agent.changeRecipients(request, { signal }));
  if (json) io.out(jsonLine({ type: 'report', ...report }));
  else tell(io, report);
  const [first] = report.problems;
  if (first !== undefined) throw new StasisError('KEY_WRONG', `${report.problems.length} key${report.problems.length === 1 ? ' was' : 's were'} not changed: ${first.message}`, { hint: 'what was changed stays; run it again when the cause is gone' });
}

function tell(io: Io, { dryRun, changed, unchanged, sealed, problems, totalMs }: ChangeRecipientsReport): void {
  for (const { object, message, code } of problems) io.talk(`stasis: error: ${printable(object)}: ${printable(message)} (${printable(code)})`);
  for (const lineage of sealed) io.talk(`stasis: warning: ${printable(lineage)} is not wrapped to this node: do it on one that can open it`);
  for (const lineage of changed) io.out(lineage);
  io.talk(`stasis: ${changed.length} ${dryRun ? 'would be changed' : 'changed'}, ${unchanged} as they should be, ${sealed.length} for others to change, in ${formatDuration(totalMs)}`);
}

function shredCommand(keys: Command, io: Io): void {
  const command = keys.command('shred').argument('<lineage...>', 'ids of lineages').summary('make checkpoints unreadable for ever')
    .description('Destroys the keys of lineages: nobody can read their checkpoints any more, whoever has copies of the packs. Without --yes it only says what would be lost. Copies of the key object (versions of the bucket, backups) are yours to remove.')
    .option('--yes', 'do it')
    .option('--force', 'also when checkpoints are pinned')
    .option('--reason <text>', 'why; it is written to the log', '');
  agentOptions(command).addHelpText('after', exitHelp([11, 20, 31]));
  command.action((lineages: string[], options: AgentOptions & { readonly yes?: boolean; readonly force?: boolean; readonly reason: string }) => withAgent(options, async (agent) => {
    const dryRun = options.yes !== true;
    const { shredded } = await agent.shredLineages({ lineages, force: options.force === true, dryRun, reason: options.reason }, { signal: undefined, timeoutMs: SHRED_MS });
    if (options.json === true) shredded.forEach((one) => io.out(jsonLine({ type: dryRun ? 'would-shred' : 'shredded', ...one })));
    else tellShredded(io, shredded, dryRun);
    if (dryRun) throw new StasisError('USAGE', 'nothing was shredded: --yes is missing', { hint: 'it cannot be undone; look at the list and add --yes' });
  }));
}

function tellShredded(io: Io, shredded: readonly ShreddedLineage[], dryRun: boolean): void {
  for (const { lineage, checkpoints, pinned } of shredded) {
    io.talk(`stasis: lineage ${printable(lineage)}: ${checkpoints.length} checkpoint${checkpoints.length === 1 ? '' : 's'} ${dryRun ? 'would become' : 'became'} unreadable for ever`);
    for (const id of checkpoints) io.talk(`stasis:   ${printable(id)}${pinned.includes(id) ? ' (pinned)' : ''}`);
    if (!dryRun) io.out(lineage);
  }
  if (!dryRun) io.talk('stasis: hint: their packs stay until the checkpoints are deleted: stasis rm');
}
