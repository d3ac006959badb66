/** The command line `stasis`: its commands, and what every one of them does alike when it fails. */
import { Command, CommanderError } from 'commander';
import { StasisError } from '../core/errors.ts';
import { checkpointCommand } from './commands/checkpoint.ts';
import { completionCommand } from './commands/completion.ts';
import { configCommand } from './commands/config.ts';
import { exportCommand } from './commands/export.ts';
import { importCommand } from './commands/import.ts';
import { inspectCommand } from './commands/inspect.ts';
import { keysCommand } from './commands/keys.ts';
import { listCommand } from './commands/list.ts';
import { nodeCommand } from './commands/node.ts';
import { psCommand } from './commands/ps.ts';
import { pinCommand, repoCommand, unpinCommand } from './commands/repo.ts';
import { restoreCommand } from './commands/restore.ts';
import { rmCommand } from './commands/rm.ts';
import { storeCommand } from './commands/store.ts';
import { verifyCommand } from './commands/verify.ts';
import { versionCommand } from './commands/version.ts';
import { cancelCommand, watchCommand } from './commands/watch.ts';
import { fail } from './exit.ts';
import type { Io } from './io.ts';

const commands = [checkpointCommand, restoreCommand, psCommand, listCommand, inspectCommand, verifyCommand, exportCommand, importCommand, rmCommand, pinCommand, unpinCommand, repoCommand, keysCommand, watchCommand, cancelCommand, nodeCommand, storeCommand, configCommand, versionCommand, completionCommand];

export function createProgram(io: Io): Command {
  const program = new Command('stasis')
    .description('Checkpoints running containers into an encrypted repository and brings them back.')
    .helpCommand('help [command]', 'show the help of a command')
    .showSuggestionAfterError(true)
    .configureOutput({ writeOut: (text) => io.out(text.trimEnd()), writeErr: (text) => io.talk(text.trimEnd()), outputError: () => undefined })
    .exitOverride()
    .addHelpText('after', '\nErrors, JSON output and exit statuses: docs/CLI.md. Every command has its own --help.');
  for (const add of commands) add(program, io);
  // Commands inherit their settings when they are made, but not the exit override of those made by helpers.
  for (const command of program.commands) command.exitOverride();
  return program;
}

/** Runs one command line (without the program's own names) and returns the exit status. */
export async function main(argv: readonly string[], io: Io): Promise<number> {
  const json = argv.includes('--json');
  try {
    await createProgram(io).parseAsync(argv, { from: 'user' });
    return 0;
  } catch (error) {
    if (!(error instanceof CommanderError)) return fail(io, error, json);
    // Help was asked for and shown, or shown because nothing was asked for.
    if (error.exitCode === 0) return 0;
    if (error.code === 'commander.help') return 2;
    return fail(io, usage(error), json);
  }
}

/** "error: unknown option '--x'\n(Did you mean --y?)" in our words. */
function usage(error: CommanderError): StasisError {
  const [message = '', suggestion] = error.message.replace(/^error: /, '').split('\n');
  const guess = /Did you mean (.*)\?/.exec(suggestion ?? '')?.[1];
  return new StasisError('USAGE', message, { hint: guess === undefined ? 'see stasis --help, or --help of the command' : `did you mean ${guess}?` });
}
