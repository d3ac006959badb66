/** stasis repo stats | check | prune | keys, stasis pin and unpin */
import type { Command } from 'commander';
import { StasisError } from '../../core/errors.ts';
import { newOperationId } from '../../core/ids.ts';
import { formatBytes, formatDuration } from '../../core/units.ts';
import type { CheckRepositoryReport, PruneRepositoryReport, RepositoryStatsResponse } from '../../rpc/api.ts';
import { agentOptions, withAgent } from '../agent.ts';
import type { AgentOptions } from '../agent.ts';
import { exitHelp } from '../exit.ts';
import { follow } from '../follow.ts';
import type { Io } from '../io.ts';
import { jsonDocument, jsonLine } from '../render/json.ts';
import { pairs, printable } from '../render/text.ts';
import { repoKeysCommand } from './repo-keys.ts';

/** Every object is counted. */
const STATS_MS = 10 * 60_000;
const PIN_MS = 60_000;

export function repoCommand(program: Command, io: Io): void {
  const repo = program.command('repo').summary('look after the repository').description('Looks after the repository as a whole.');
  statsCommand(repo, io);
  checkCommand(repo, io);
  pruneCommand(repo, io);
  repoKeysCommand(repo, io);
  for (const command of repo.commands) command.exitOverride();
}

function statsCommand(repo: Command, io: Io): void {
  const command = repo.command('stats').summary('show what is in the repository').description('Counts the objects of the repository and adds up what its checkpoints hold.');
  agentOptions(command).addHelpText('after', exitHelp([20]));
  command.action((options: AgentOptions) => withAgent(options, async (agent) => {
    const stats = await agent.repositoryStats({}, { signal: undefined, timeoutMs: STATS_MS });
    io.out(options.json === true ? jsonDocument(stats) : describe(stats));
  }));
}

function describe(stats: RepositoryStatsResponse): string {
  const { saved } = stats;
  return pairs([
    ['Checkpoints', `${stats.checkpoints} in ${count(stats.lineages, 'lineage')}, ${stats.pins} pinned${stats.unreadable === 0 ? '' : `, ${stats.unreadable} cannot be read here`}`],
    ['Objects', `${formatBytes(stats.bytes)}${stats.quotaBytes === 0 ? '' : ` of ${formatBytes(stats.quotaBytes)}`}`],
    ['Packs', `${stats.packs}, ${formatBytes(stats.packBytes)}`],
    ['Loose', `${count(stats.loosePacks, 'pack')}, ${formatBytes(stats.looseBytes)} (of checkpoints in the making, or garbage)`],
    ['Saved', `${formatBytes(saved.raw)}: ${formatBytes(saved.zero)} zero, ${formatBytes(saved.reused)} found again, ${formatBytes(saved.stored)} stored`],
    ['Ratio', saved.stored === 0 ? undefined : `${(saved.raw / saved.stored).toFixed(1)} : 1`],
  ]);
}

function checkCommand(repo: Command, io: Io): void {
  const command = repo.command('check').summary('check that everything is there').description('Checks that the manifests are sound and that every pack they name is there and as long as it should be.')
    .option('--read-data', 'read and check every byte, too, as stasis verify --all does');
  agentOptions(command).addHelpText('after', exitHelp([20, 30, 31, 130]));
  command.action((options: AgentOptions & { readonly readData?: boolean }) => withAgent(options, async (agent) => {
    const operationId = newOperationId();
    const json = options.json === true;
    const { report } = await follow(io, { agent, operationId, subject: 'repository', json }, (signal) => agent.checkRepository({ readData: options.readData === true, operationId }, { signal }));
    if (json) io.out(jsonLine({ type: 'report', ...report }));
    else {
      for (const { object, message, code } of report.problems) io.talk(`stasis: error: ${printable(message.startsWith(object) ? message : `${object}: ${message}`)} (${printable(code)})`);
      const sealed = report.sealed === 0 ? '' : `, ${report.sealed} of them sealed for others: only their signatures were checked`;
      for (const line of advice(report)) io.talk(`stasis: ${line}`);
      io.out(`${count(report.checkpoints, 'checkpoint')}${sealed}; ${count(report.objects, 'object')}, ${formatBytes(report.bytes)} in ${formatDuration(report.totalMs)}`);
    }
    if (report.problems.length === 0) return;
    throw new StasisError('OBJECT_CORRUPT', `${report.problems.length} object${report.problems.length === 1 ? ' is' : 's are'} damaged or missing`, { hint: 'do not rely on the checkpoints that need it' });
  }));
}

const count = (number: number, thing: string): string => `${number} ${thing}${number === 1 ? '' : 's'}`;

/** What to do about what was found, each kind once. */
function* advice({ problems, loosePacks, looseBytes }: CheckRepositoryReport): Iterable<string> {
  const found = (pattern: RegExp, ...codes: string[]): boolean => problems.some(({ object, code }) => pattern.test(object) && codes.includes(code));
  if (found(/^packs\//, 'OBJECT_MISSING')) yield 'packs are missing: the next checkpoint of a container stores again what it would have found in them; remove those that suffer with stasis rm';
  if (found(/^packs\//, 'OBJECT_CORRUPT')) yield 'packs are damaged: save the containers anew with stasis checkpoint --new-lineage, and remove the checkpoints that suffer with stasis rm';
  if (found(/^lineages\//, 'KEY_MISSING')) yield 'the key of a lineage is missing: put it back from a backup of the store; without it nobody can read these checkpoints, and stasis rm removes them';
  if (found(/^manifests\//, 'OBJECT_CORRUPT', 'SIGNATURE_INVALID', 'FORMAT_UNSUPPORTED')) yield 'manifests cannot be read: put them back from a backup of the store, or remove them with stasis rm; until then nothing of their lineages is removed for good';
  if (problems.some(({ code }) => code === 'SIGNER_UNTRUSTED')) yield 'signers are not trusted here: if they are nodes of yours, add their keys to keys.trustedSigners';
  if (loosePacks > 0) yield `${count(loosePacks, 'loose pack')} (${formatBytes(looseBytes)}): of checkpoints in the making, or garbage, which stasis repo prune removes`;
}

function pruneCommand(repo: Command, io: Io): void {
  const command = repo.command('prune').summary('remove what nobody needs').description('Deletes the checkpoints that the retention rules of the agent let go, and removes what crashed agents left. Safe at any time.')
    .option('-n, --dry-run', 'only say what would be done')
    .option('--reason <text>', 'why; it is written to the log', '');
  agentOptions(command).addHelpText('after', exitHelp([20, 130]));
  command.action((options: AgentOptions & { readonly dryRun?: boolean; readonly reason: string }) => withAgent(options, async (agent) => {
    const operationId = newOperationId();
    const json = options.json === true;
    const { report } = await follow(io, { agent, operationId, subject: 'repository', json }, (signal) => agent.pruneRepository({ dryRun: options.dryRun === true, operationId, reason: options.reason }, { signal }));
    if (json) io.out(jsonLine({ type: 'report', ...report }));
    else tellPrune(io, report);
  }));
}

const reasons: Readonly<Record<string, string>> = { last: 'more than are kept of a lineage', age: 'too old', bytes: 'over the limit of bytes' };

function tellPrune(io: Io, report: PruneRepositoryReport): void {
  for (const { object, message } of report.problems) io.talk(`stasis: warning: ${printable(object)}: ${printable(message)}`);
  for (const { checkpoint, reason } of report.expired) io.out(`${checkpoint}  ${report.dryRun ? 'would be deleted' : 'deleted'}: ${reasons[reason] ?? printable(reason)}`);
  for (const { lineage, packs, bytes, reason } of report.kept) io.talk(`stasis: ${count(packs, 'loose pack')} (${formatBytes(bytes)}) ${lineage === '' ? 'of no known lineage' : `of lineage ${printable(lineage)}`} stay: ${printable(reason)}`);
  if (report.fenced > 0) io.talk(`stasis: ${report.fenced} ${report.fenced === 1 ? 'agent seems' : 'agents seem'} dead; what was left there goes with a prune after repository.grace`);
  io.out(report.dryRun ? `${count(report.packs, 'loose pack')} (${formatBytes(report.bytes)}) would be looked at` : `${count(report.packs, 'pack')} (${formatBytes(report.bytes)}), ${count(report.keys, 'key')} and ${count(report.marks, 'mark')} removed in ${formatDuration(report.totalMs)}`);
}

export function pinCommand(program: Command, io: Io): void {
  setPin(program, io, 'pin', 'keep checkpoints from being deleted', 'Pins checkpoints: neither retention nor stasis rm deletes them until they are unpinned. Prints their ids.');
}

export function unpinCommand(program: Command, io: Io): void {
  setPin(program, io, 'unpin', 'take the pins of checkpoints away', 'Takes the pins of checkpoints away. Prints their ids.');
}

function setPin(program: Command, io: Io, name: 'pin' | 'unpin', summary: string, description: string): void {
  const command = program.command(name).argument('<checkpoint...>', 'ids of checkpoints').summary(summary).description(description)
    .option('--reason <text>', 'why; it is written to the log, and into the pin', '');
  agentOptions(command).addHelpText('after', exitHelp([10, 20]));
  command.action((ids: string[], options: AgentOptions & { readonly reason: string }) => withAgent(options, async (agent) => {
    for (const checkpoint of ids) {
      await agent.pinCheckpoint({ checkpoint, pinned: name === 'pin', reason: options.reason }, { signal: undefined, timeoutMs: PIN_MS });
      io.out(options.json === true ? jsonLine({ type: `${name}ned`, checkpoint }) : checkpoint);
    }
  }));
}
