/** stasis checkpoint CONTAINER */
import { Option } from 'commander';
import type { Command } from 'commander';
import { newOperationId } from '../../core/ids.ts';
import { formatBytes, formatDuration, parseDuration } from '../../core/units.ts';
import type { CheckpointResult, MemoryPath, PreDump, RehearsalMode } from '../../rpc/api.ts';
import { agentOptions, withAgent } from '../agent.ts';
import type { AgentOptions } from '../agent.ts';
import { exitHelp } from '../exit.ts';
import { follow } from '../follow.ts';
import type { Io } from '../io.ts';
import { jsonLine } from '../render/json.ts';
import { phaseTable, tellFindings } from '../render/result.ts';

interface Options extends AgentOptions {
  readonly leaveRunning?: boolean;
  readonly tcpEstablished?: boolean;
  readonly tcpSkipInFlight?: boolean;
  readonly fileLocks?: boolean;
  readonly extUnixSk?: boolean;
  readonly shellJob?: boolean;
  readonly memoryPath?: MemoryPath;
  readonly preDump?: PreDump;
  readonly rehearsal?: RehearsalMode;
  readonly allowDifference?: string;
  readonly freezeBudget?: string;
  readonly deadline?: string;
  readonly runtime?: string;
  readonly newLineage?: boolean;
  readonly keep?: boolean;
  readonly printStats?: boolean;
  readonly operationId?: string;
  readonly reason: string;
}

export function checkpointCommand(program: Command, io: Io): void {
  const command = program.command('checkpoint').argument('<container>', 'id or name of the container').summary('save a running container')
    .description('Saves a running container into the repository and stops it, unless --leave-running is given. Prints the id of the checkpoint.')
    .option('-R, --leave-running', 'let the container run on')
    .option('--tcp-established', 'also save open TCP connections')
    .option('--tcp-skip-in-flight', 'leave out TCP connections that nobody has accepted yet: their peers see a reset')
    .option('--file-locks', 'also save file locks')
    .option('--ext-unix-sk', 'accept UNIX sockets whose other end is outside the container')
    .option('--shell-job', 'accept a container that hangs on a terminal')
    .addOption(new Option('--memory-path <way>', 'how memory comes out of CRIU').choices(['auto', 'directory', 'page-server']))
    .addOption(new Option('--pre-dump <when>', 'read memory in rounds before the freeze, where the kernel tracks written pages').choices(['auto', 'never']))
    .addOption(new Option('--rehearsal <when>', 'rebuild the checkpoint in a scratch place before the container is stopped for it').choices(['auto', 'always', 'never']))
    .option(
      '--allow-difference <names>',
      'stop the container although these attributes differ in the rehearsal (docs/FIDELITY.md), separated by commas',
    )
    .option('--freeze-budget <duration>', 'how long the container may be frozen, such as 10s')
    .option('--deadline <duration>', 'how long all of it may take, such as 5m')
    .addOption(new Option('--runtime <name>', 'which runtime, when both have a container of that id').choices(['runc', 'crun']))
    .option('--new-lineage', 'begin a new lineage with its own key')
    .option('-k, --keep', "keep CRIU's log and statistics also when all goes well")
    .option('--print-stats', 'show how long each phase took and what became of the bytes')
    .option('--operation-id <id>', 'name the operation: asking again with the same id joins it')
    .option('--reason <text>', 'why; it is written into the checkpoint', '');
  agentOptions(command).addHelpText('after', exitHelp([10, 12, 13, 15, 16, 17, 18, 19, 20, 21, 130]));
  command.action((container: string, options: Options) => withAgent(options, async (agent) => {
    const operationId = options.operationId ?? newOperationId();
    const request = {
      container, operationId, reason: options.reason,
      leaveRunning: options.leaveRunning === true, tcpEstablished: options.tcpEstablished === true, fileLocks: options.fileLocks === true,
      extUnixSk: options.extUnixSk === true, shellJob: options.shellJob === true, newLineage: options.newLineage === true, keep: options.keep === true,
      ...(options.tcpSkipInFlight === true ? { tcpSkipInFlight: true } : {}),
      ...(options.runtime === undefined ? {} : { runtime: options.runtime }),
      ...(options.memoryPath === undefined ? {} : { memoryPath: options.memoryPath }),
      ...(options.preDump === undefined ? {} : { preDump: options.preDump }),
      ...(options.rehearsal === undefined ? {} : { rehearsal: options.rehearsal }),
      ...(options.allowDifference === undefined ? {} : {
        allowDifference: options.allowDifference.split(',').map((name) => name.trim()),
      }),
      ...(options.freezeBudget === undefined ? {} : { freezeBudgetMs: parseDuration(options.freezeBudget) }),
      ...(options.deadline === undefined ? {} : { deadlineMs: parseDuration(options.deadline) }),
    };
    const json = options.json === true;
    const { result } = await follow(io, { agent, operationId, subject: container, json }, (signal) => agent.checkpoint(request, { signal }));
    if (json) io.out(jsonLine({ type: 'result', ...result }));
    else show(io, result, options.printStats === true);
  }));
}

function show(io: Io, result: CheckpointResult, stats: boolean): void {
  const { raw, stored } = result.bytes;
  if (stats) io.talk(phaseTable(result.phases, result.totalMs, bytesRows(result)));
  else if (io.terminal) {
    io.talk(`${formatBytes(raw)} in ${formatDuration(result.totalMs)}, frozen ${formatDuration(result.frozenMs)}, ${formatBytes(stored)} stored`);
  }
  tellFindings(io, result.findings);
  if (result.cipher === 'null') io.talk('stasis: warning: this checkpoint is NOT encrypted: repository.plaintextFor of the agent names its container');
  for (const item of result.notIncluded) io.talk(`stasis: not in the checkpoint: ${item}`);
  io.out(result.checkpoint);
}

function bytesRows(result: CheckpointResult): readonly (readonly [string, string])[] {
  const { raw, zero, reused, stored } = result.bytes;
  return [
    ['frozen', formatDuration(result.frozenMs)],
    ['raw', formatBytes(raw)],
    ['zero', formatBytes(zero)],
    ['reused', formatBytes(reused)],
    ['stored', `${formatBytes(stored)}${result.ratio > 0 ? ` (${result.ratio.toFixed(2)} to 1)` : ''}`],
    ['rate', `${formatBytes(result.bytesPerSecond)}/s`],
    ['memory path', result.memoryPath],
    ...result.preDumpRounds.map(({ pages, ms, frozenMs }, index) => [`pre-dump ${index + 1}`, `${pages} pages in ${formatDuration(ms)}, frozen ${formatDuration(frozenMs)}`] as const),
    ...(result.rehearsal === undefined ? [] : [['rehearsal', result.rehearsal.done ? formatDuration(result.rehearsal.ms) : `none: ${result.rehearsal.reason ?? ''}`] as const]),
    ...(result.plainBecause === undefined ? [] : [['no pre-dump', result.plainBecause] as const]),
  ];
}
