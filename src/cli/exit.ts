/** Exit statuses of the command line: one table for --help, docs/CLI.md and scripts. Errors bring theirs from core/errors.ts. */
import { asStasisError, errorTable } from '../core/errors.ts';
import type { StasisError } from '../core/errors.ts';
import type { Io } from './io.ts';
import { jsonLine } from './render/json.ts';
import { printable } from './render/text.ts';

/** What each status tells; those of one number belong together. An unknown status is to be treated as a failure. */
export const exitMeanings: Readonly<Record<number, string>> = {
  0: 'done',
  1: 'a bug, or an error that nobody foresaw',
  2: 'the command line, or a value in the request, is wrong',
  3: 'the configuration is wrong',
  4: 'no agent answers',
  5: 'another agent runs already',
  6: 'this machine cannot do it',
  10: 'no such container, checkpoint or operation',
  11: 'it exists already, or is in use',
  12: 'busy: the container, the agent, or the agent is stopping; try again later',
  13: 'the container cannot be checkpointed',
  14: 'not allowed, or not known',
  15: 'no space or no memory left',
  16: 'the time was over: deadline or freeze budget',
  17: 'the operation was cancelled by somebody',
  18: 'the dump failed, or the container exited',
  19: 'the restore, or the container runtime, failed',
  20: 'the repository cannot be reached or written, or its store is not fit for it',
  21: 'the rehearsal failed: the container was not stopped, because it could not be restored',
  30: 'data in the repository is damaged, missing or of an unknown format',
  31: 'a key is missing, wrong or out of reach, or a signature is not to be trusted',
  32: 'a path leads out of where it belongs',
  33: 'a limit is exceeded',
  34: 'the archive to be imported is none, or is damaged',
  130: 'interrupted by Ctrl-C; the operation was cancelled',
  141: 'whoever read the output has gone',
  143: 'ended by SIGTERM; the operation was cancelled',
};

const common = [0, 1, 2, 4, 14];

/** The end of a command's --help. */
export function exitHelp(statuses: readonly number[]): string {
  const lines = [...new Set([...common, ...statuses])].sort((a, b) => a - b).map((status) => `  ${String(status).padStart(3)}  ${exitMeanings[status] ?? ''}`);
  return `\nExit status:\n${lines.join('\n')}`;
}

/** The end of a command by Ctrl-C or SIGTERM, once it has cleaned up. */
export class Interrupted extends Error {
  readonly status: 130 | 143;

  constructor(status: 130 | 143) {
    super('interrupted');
    this.name = 'Interrupted';
    this.status = status;
  }
}

/** Says what went wrong and returns the exit status. With --json the error is on stdout, too, as the last line. */
export function fail(io: Io, thrown: unknown, json: boolean): number {
  if (thrown instanceof Interrupted) return thrown.status;
  const error = asStasisError(thrown, 'stasis');
  if (json) io.out(jsonLine(errorLine(error)));
  io.talk(`stasis: error: ${printable(error.message)}`);
  if (error.hint !== undefined) io.talk(`stasis: hint: ${printable(error.hint)}`);
  return errorTable[error.code].exit;
}

function errorLine(error: StasisError): object {
  return { type: 'error', code: error.code, message: error.message, hint: error.hint, details: error.details, retry: errorTable[error.code].retry, exit: errorTable[error.code].exit };
}
