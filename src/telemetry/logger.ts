/**
 * Logs as events: one JSON object per line with `time`, `level`, `event` and the event's fields. The only place that
 * imports pino. Written synchronously: an event that was logged is out, also when the process dies right after it.
 */
import pino from 'pino';
import type { DestinationStream } from 'pino';
import { isStasisError } from '../core/errors.ts';
import { events } from './events.ts';
import type { EventName, Level } from './events.ts';

/** Units last in the names: duration_ms, bytes. `err` takes an Error. Never a key, a secret or contents of a container. */
export type Fields = Readonly<Record<string, unknown>>;

export interface Logger {
  event(name: EventName, fields?: Fields): void;
  /** A logger whose events all carry these fields: one per operation. */
  child(fields: Fields): Logger;
}

/** Fields of these names are never written, whoever logs them, at the top or one level down. */
export const redactedFields = ['key', 'secret', 'token', 'password', 'passphrase', 'authorization', 'privateKey', 'private_key', 'dataKey', 'data_key'] as const;

export function createLogger(level: Level, destination?: DestinationStream): Logger {
  const log = pino({
    level,
    base: null,
    // Under its usual key pino would repeat the message of an error as `msg`.
    errorKey: 'thrown',
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: redactedFields.flatMap((field) => [field, `*.${field}`]), censor: '[redacted]' },
    serializers: { err: describeError },
  }, destination ?? pino.destination({ fd: 1, sync: true }));
  return wrap(log);
}

/** For tests and tools that have no use for a log. */
export const silentLogger: Logger = { event: () => undefined, child: () => silentLogger };

function wrap(log: pino.Logger): Logger {
  return {
    event: (name, fields) => log[events[name].level]({ event: name, ...fields }),
    child: (fields) => wrap(log.child(fields)),
  };
}

/** Errors of ours without their stack, which tells an operator nothing; all others with it. */
function describeError(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error) || depth > 4) return String(error);
  const cause = error.cause === undefined ? {} : { cause: describeError(error.cause, depth + 1) };
  if (isStasisError(error)) return { code: error.code, message: error.message, hint: error.hint, details: error.details, ...cause };
  return { name: error.name, message: error.message, stack: error.stack, ...cause };
}
