/** stasis import FILE */
import { basename } from 'node:path';
import { constants, createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import type { Command } from 'commander';
import { StasisError, errnoCode } from '../../core/errors.ts';
import { newOperationId } from '../../core/ids.ts';
import { formatBytes, formatDuration, parseDuration } from '../../core/units.ts';
import type { ImportCheckpointRequest, ImportMessage, ImportResult } from '../../rpc/archives.ts';
import { agentOptions, withAgent } from '../agent.ts';
import type { AgentOptions } from '../agent.ts';
import { exitHelp } from '../exit.ts';
import { follow } from '../follow.ts';
import type { Io } from '../io.ts';
import { jsonLine } from '../render/json.ts';
import { printable } from '../render/text.ts';

interface Options extends AgentOptions {
  readonly deadline?: string;
  readonly operationId?: string;
  readonly reason: string;
}

/** One message. The agent takes none that is larger than 256 KiB. */
const MESSAGE_BYTES = 128 * 1024;

export function importCommand(program: Command, io: Io): void {
  const command = program.command('import').argument('<file>', 'archive of podman or CRI-O, or - for stdin').summary('take an archive of podman or CRI-O into the repository')
    .description('Seals an archive of podman or CRI-O (plain, gzip or zstd) into the repository as a checkpoint. Prints its id. A restore of it needs a bundle: stasis restore --bundle.')
    .option('--deadline <duration>', 'how long all of it may take, such as 5m')
    .option('--operation-id <id>', 'name the operation')
    .option('--reason <text>', 'why; it is written into the checkpoint', '');
  agentOptions(command).addHelpText('after', exitHelp([14, 15, 16, 17, 20, 32, 33, 34, 130]));
  command.action((file: string, options: Options) => withAgent(options, async (agent) => {
    const operationId = options.operationId ?? newOperationId();
    const json = options.json === true;
    const start = { source: file === '-' ? 'stdin' : basename(file), operationId, reason: options.reason, ...(options.deadline === undefined ? {} : { deadlineMs: parseDuration(options.deadline) }) };
    const { result } = await follow(io, { agent, operationId, subject: file, json }, (signal) => agent.importCheckpoint(messages(start, file), { signal }));
    show(io, result, json);
  }));
}

async function* messages(start: ImportCheckpointRequest, file: string): AsyncGenerator<ImportMessage> {
  const bytes = file === '-' ? createReadStream('', { fd: 0, autoClose: false, highWaterMark: MESSAGE_BYTES }) : await existingFile(file);
  yield { type: 'start', start };
  for await (const part of bytes) yield { type: 'data', data: { bytes: part as Buffer } };
}

async function existingFile(path: string): Promise<AsyncIterable<unknown>> {
  try {
    const file = await open(path, constants.O_RDONLY);
    if (!(await file.stat()).isFile()) throw Object.assign(new Error('it is no file'), { code: 'EISDIR' });
    return file.createReadStream({ highWaterMark: MESSAGE_BYTES });
  } catch (error) {
    throw new StasisError('USAGE', `${path} cannot be read: ${errnoCode(error) ?? 'unknown'}`, { cause: error, hint: 'name the file that podman or CRI-O wrote' });
  }
}

function show(io: Io, result: ImportResult, json: boolean): void {
  for (const item of result.notIncluded) io.talk(`stasis: not in the checkpoint: ${printable(item)}`);
  if (json) io.out(jsonLine({ type: 'result', ...result }));
  else io.out(result.checkpoint);
  if (io.terminal) io.talk(`${formatBytes(result.archiveBytes)} in ${formatDuration(result.totalMs)}; restore it with --bundle`);
}
