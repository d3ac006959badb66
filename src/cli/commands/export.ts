/** stasis export CHECKPOINT FILE */
import { constants, createWriteStream } from 'node:fs';
import { open, unlink } from 'node:fs/promises';
import { once } from 'node:events';
import type { Command } from 'commander';
import { StasisError, errnoCode } from '../../core/errors.ts';
import { newOperationId } from '../../core/ids.ts';
import { formatBytes, formatDuration, parseDuration } from '../../core/units.ts';
import type { ExportEvent, ExportResult } from '../../rpc/archives.ts';
import { agentOptions, withAgent } from '../agent.ts';
import type { AgentOptions } from '../agent.ts';
import { exitHelp } from '../exit.ts';
import { follow } from '../follow.ts';
import type { Io } from '../io.ts';
import { jsonLine } from '../render/json.ts';
import { printable } from '../render/text.ts';

interface Options extends AgentOptions {
  readonly acceptPlaintext?: boolean;
  readonly image?: string;
  readonly deadline?: string;
  readonly operationId?: string;
  readonly reason: string;
}

export const plaintextWarning = [
  'stasis: warning: THE ARCHIVE IS NOT ENCRYPTED. It holds the whole memory of the container: every key, password and',
  'stasis: warning: customer record that was in it, readable for whoever gets the file. Keep it as you keep a private key.',
];

export function exportCommand(program: Command, io: Io): void {
  const command = program.command('export').argument('<checkpoint>', 'id of the checkpoint').argument('<file>', 'archive to be made, or - for stdout').summary('write a checkpoint as an archive for podman')
    .description('Writes a checkpoint as an archive that podman container restore --import and checkpointctl read. The archive is NOT ENCRYPTED. Prints the name of the file.')
    .option('--accept-plaintext', 'yes, the memory of the container may leave the repository in plaintext')
    .option('--image <name>', 'image that podman shall use (default: the one of the container)')
    .option('--deadline <duration>', 'how long all of it may take, such as 5m')
    .option('--operation-id <id>', 'name the operation')
    .option('--reason <text>', 'why; it is written to the log', '');
  agentOptions(command).addHelpText('after', exitHelp([10, 14, 15, 16, 17, 20, 30, 31, 130]));
  command.action((checkpoint: string, file: string, options: Options) => {
    requireConsent(options);
    return withAgent(options, async (agent) => {
      const operationId = options.operationId ?? newOperationId();
      const json = options.json === true;
      for (const line of plaintextWarning) io.talk(line);
      await using archive = file === '-' ? standardOutput(json) : await newFile(file);
      const request = {
        checkpoint, operationId, reason: options.reason, acceptPlaintext: true,
        ...(options.image === undefined ? {} : { image: options.image }), ...(options.deadline === undefined ? {} : { deadlineMs: parseDuration(options.deadline) }),
      };
      const { result } = await follow(io, { agent, operationId, subject: checkpoint, json }, (signal) => written(agent.exportCheckpoint(request, { signal }), archive));
      await archive.complete();
      show(io, result, file, json);
    });
  });
}

function requireConsent(options: Options): void {
  if (options.acceptPlaintext === true) return;
  throw new StasisError('USAGE', 'an export is not encrypted: it holds the memory of the container, with every key and password in it, in plaintext', {
    hint: 'if that is wanted: stasis export --accept-plaintext',
  });
}

interface Archive extends AsyncDisposable {
  write(bytes: Uint8Array): Promise<void>;
  /** All is written; without it what was written is removed. */
  complete(): Promise<void>;
}

/** Readable for its owner only, and never over something that is there. */
async function newFile(path: string): Promise<Archive> {
  const file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600).catch((error: unknown) => {
    const code = errnoCode(error) ?? '';
    if (code === 'EEXIST') throw new StasisError('USAGE', `${path} exists`, { hint: 'an export overwrites nothing: remove it, or choose another name' });
    throw new StasisError('USAGE', `${path} cannot be created: ${code}`, { cause: error, hint: 'choose a directory that exists and can be written' });
  });
  let complete = false;
  return {
    write: async (bytes) => {
      for (let at = 0; at < bytes.length; ) at += (await file.write(bytes, at)).bytesWritten;
    },
    complete: async () => {
      await file.sync();
      complete = true;
    },
    [Symbol.asyncDispose]: async () => {
      await file.close();
      if (!complete) await unlink(path);
    },
  };
}

function standardOutput(json: boolean): Archive {
  if (json) throw new StasisError('USAGE', 'stdout cannot take the archive and JSON', { hint: 'leave out --json, or name a file' });
  if (process.stdout.isTTY) throw new StasisError('USAGE', 'the archive does not go to a terminal', { hint: 'name a file, or redirect stdout' });
  const out = createWriteStream('', { fd: 1, autoClose: false });
  return {
    write: async (bytes) => {
      if (!out.write(bytes)) await once(out, 'drain');
    },
    complete: () => new Promise((resolve) => { out.end(resolve); }),
    [Symbol.asyncDispose]: async () => {},
  };
}

/** The data goes into the archive, the rest goes on. */
async function* written(events: AsyncIterable<ExportEvent>, archive: Archive): AsyncGenerator<Exclude<ExportEvent, { type: 'data' }>> {
  for await (const event of events) {
    if (event.type === 'data') await archive.write(event.data.bytes);
    else yield event;
  }
}

function show(io: Io, result: ExportResult, file: string, json: boolean): void {
  for (const item of result.notIncluded) io.talk(`stasis: not in the archive: ${printable(item)}`);
  if (json) io.out(jsonLine({ type: 'result', ...result, file }));
  else if (file !== '-') io.out(file);
  if (io.terminal) io.talk(`${formatBytes(result.bytes)} in ${formatDuration(result.totalMs)}`);
}
