/** stasis restore CHECKPOINT */
import { resolve } from 'node:path';
import { Option } from 'commander';
import type { Command } from 'commander';
import { newOperationId } from '../../core/ids.ts';
import { formatBytes, formatDuration, parseDuration } from '../../core/units.ts';
import type { AgentClient, RestoreResult } from '../../rpc/api.ts';
import { agentOptions, withAgent } from '../agent.ts';
import type { AgentOptions } from '../agent.ts';
import { exitHelp } from '../exit.ts';
import { follow } from '../follow.ts';
import type { Io } from '../io.ts';
import { jsonLine } from '../render/json.ts';
import { phaseTable, tellFindings } from '../render/result.ts';

interface Options extends AgentOptions {
  readonly name?: string;
  readonly bundle?: string;
  readonly clone?: boolean;
  readonly runtime?: string;
  readonly tcpEstablished?: boolean;
  readonly tcpClose?: boolean;
  readonly fileLocks?: boolean;
  readonly extUnixSk?: boolean;
  readonly shellJob?: boolean;
  readonly ignoreCompatibility?: boolean;
  readonly allowDifference?: string;
  readonly lazy?: boolean;
  readonly lazyAuto?: boolean;
  readonly wait?: boolean;
  readonly deadline?: string;
  readonly keep?: boolean;
  readonly printStats?: boolean;
  readonly operationId?: string;
  readonly reason: string;
}

export function restoreCommand(program: Command, io: Io): void {
  const command = program.command('restore').argument('<checkpoint>', 'id of the checkpoint').summary('bring a container back')
    .description('Brings a container back from a checkpoint, where it goes on as if nothing had happened. Prints the id of the container.')
    .option('-n, --name <id>', 'id of the container to make (default: as it was)')
    .option('-b, --bundle <directory>', 'an existing bundle on the node (default: one is rebuilt)')
    .option('--clone', 'also when the container runs already or was restored before: there will be two of it')
    .addOption(new Option('--runtime <name>', 'another runtime than at the checkpoint').choices(['runc', 'crun']))
    .option('--tcp-established', 'bring open TCP connections back')
    .option('--tcp-close', 'close TCP connections that were open')
    .option('--file-locks', 'bring file locks back')
    .option('--ext-unix-sk', 'accept UNIX sockets whose other end is outside the container')
    .option('--shell-job', 'accept a container that hangs on a terminal')
    .option('--ignore-compatibility', 'go on although kernel, processor or versions differ')
    .option('--allow-difference <names>', 'restore although these attributes differ from what was saved (docs/FIDELITY.md), separated by commas')
    .option('-l, --lazy', 'let the container run before all of its memory is there; the rest arrives while it runs')
    .option('--lazy-auto', 'be lazy where it pays: runc, and much memory that the store would be long in giving')
    .option('-w, --wait', 'with --lazy: return when all memory has arrived')
    .option('--deadline <duration>', 'how long all of it may take, such as 5m')
    .option('-k, --keep', "keep CRIU's log and statistics also when all goes well")
    .option('--print-stats', 'show how long each phase took')
    .option('--operation-id <id>', 'name the operation: asking again with the same id joins it')
    .option('--reason <text>', 'why; it is written to the log', '');
  agentOptions(command).addHelpText('after', exitHelp([10, 11, 12, 15, 16, 17, 19, 20, 30, 31, 32, 33, 130]));
  command.action((checkpoint: string, options: Options) => withAgent(options, async (agent) => {
    const operationId = options.operationId ?? newOperationId();
    const request = {
      checkpoint, operationId, reason: options.reason, clone: options.clone === true,
      tcpEstablished: options.tcpEstablished === true, tcpClose: options.tcpClose === true, fileLocks: options.fileLocks === true,
      extUnixSk: options.extUnixSk === true, shellJob: options.shellJob === true, ignoreCompatibility: options.ignoreCompatibility === true, keep: options.keep === true,
      ...(options.name === undefined ? {} : { container: options.name }),
      ...(options.bundle === undefined ? {} : { bundle: resolve(options.bundle) }),
      ...(options.runtime === undefined ? {} : { runtime: options.runtime }),
      ...(options.lazy === true ? { lazy: 'always' as const } : options.lazyAuto === true ? { lazy: 'auto' as const } : {}),
      ...(options.allowDifference === undefined ? {} : { allowDifference: options.allowDifference.split(',').map((name) => name.trim()) }),
      ...(options.deadline === undefined ? {} : { deadlineMs: parseDuration(options.deadline) }),
    };
    const json = options.json === true;
    const { result } = await follow(io, { agent, operationId, subject: checkpoint, json }, (signal) => agent.restore(request, { signal }));
    if (options.wait === true && result.fillOperationId !== undefined) await waitForFill(io, agent, result.fillOperationId);
    if (json) io.out(jsonLine({ type: 'result', ...result }));
    else show(io, result, options.printStats === true);
  }));
}

/** Throws why the memory cannot arrive; the container is gone then. */
async function waitForFill(io: Io, agent: AgentClient, operationId: string): Promise<void> {
  for await (const event of agent.watchOperations({ operationId }, { signal: undefined })) {
    const [operation] = event.type === 'snapshot' ? event.snapshot.operations : [event.changed];
    if (operation?.error !== undefined) {
      // Only here: it brings gRPC with it.
      const { errorOfInfo } = await import('../../rpc/status.ts');
      throw errorOfInfo(operation.error);
    }
    if (operation?.state === 'succeeded') io.talk(`all memory has arrived: ${formatBytes(operation.progress.bytesDone)}`);
  }
}

function show(io: Io, result: RestoreResult, stats: boolean): void {
  const downtime = result.downtimeMs === undefined ? [] : [['downtime', formatDuration(result.downtimeMs)] as const];
  const rate = `${formatBytes(result.bytesPerSecond)}/s`;
  if (stats) io.talk(phaseTable(result.phases, result.totalMs, [['restored', formatBytes(result.bytes)], ['read', formatBytes(result.bytesRead)], ['rate', rate], ...downtime, ['pid', String(result.pid)]]));
  else if (io.terminal) io.talk(`${formatBytes(result.bytes)} in ${formatDuration(result.totalMs)}, pid ${result.pid}${downtime[0] === undefined ? '' : `, down for ${downtime[0][1]}`}`);
  if (result.lazyReason !== undefined) io.talk(`restored ${result.fillOperationId === undefined ? 'eagerly' : 'lazily'}: ${result.lazyReason}`);
  tellFindings(io, result.findings);
  io.out(result.container);
}
