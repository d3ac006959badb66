/** Turns the failure of a runtime into an error that says why. */
import { StasisError, type ErrorCode } from '../../core/errors.ts';
import { printable } from '../text.ts';
import { explainCriuLog, readLog, type Explanation } from '../criu-log/explain.ts';

export interface RunFailure {
  readonly what: string;
  readonly phase: 'dump' | 'restore';
  readonly criuLog: string;
  readonly runtimeLog: string;
  readonly stderr: string;
  readonly status: number;
}

const codes: Readonly<Record<RunFailure['phase'], ErrorCode>> = { dump: 'DUMP_FAILED', restore: 'RESTORE_FAILED' };

/** What the runtime says when CRIU failed; it tells nothing. */
const EMPTY_WORDS = /criu failed: type \w+ errno -?\d+|CRIU (?:checkpointing|restoring|pre-dump) failed|type NOTIFY errno 0/i;

const runtimeCauses: readonly { match: RegExp; code?: ErrorCode; message: string; hint: string }[] = [
  { match: /exec: "criu": executable file not found/, code: 'HOST_UNSUPPORTED', message: 'criu is not installed where the runtime looks', hint: 'install criu, and see that it is on the agent\'s PATH' },
  { match: /libcriu/, code: 'HOST_UNSUPPORTED', message: 'crun cannot load libcriu', hint: 'install libcriu2 beside crun' },
  { match: /CRIU version .*must be|requires? criu|criu is too old/i, code: 'HOST_UNSUPPORTED', message: 'the runtime wants a newer criu', hint: 'install criu 4.2 or newer' },
  { match: /container .*does not exist|error opening file .*status.*No such file|not (?:currently )?running|stopped container|is in state stopped/i, code: 'CONTAINER_EXITED', message: 'the container does not run any more', hint: 'start it again' },
  { match: /already exists|container with given ID/i, code: 'CONTAINER_EXISTS', message: 'a container of that id exists', hint: 'delete it, or restore under another id' },
  { match: /src-nofollow/, message: 'crun cannot checkpoint bind mounts with the option src-nofollow', hint: 'create the container without that option' },
];

const JSON_FIELD = /"(level|msg)"\s*:\s*("(?:[^"\\]|\\.)*")/g;

/** The last error in a runtime's log, or in its stderr. runc writes one JSON object a line, crun spreads it over lines; each has level and msg. */
export function runtimeMessage(log: string, stderr: string): string {
  const errors: string[] = [];
  let record: Record<string, string> = {};
  for (const [, key, text] of log.matchAll(JSON_FIELD)) {
    record[key!] = JSON.parse(text!) as string;
    const { level, msg } = record;
    if (level === undefined || msg === undefined) continue;
    if (level === 'error' || level === 'fatal') errors.push(msg);
    record = {};
  }
  return printable(errors.at(-1) ?? stderr.trim().split('\n').at(-1) ?? '');
}

function fromCriu(failure: RunFailure, cause: Explanation): StasisError {
  return new StasisError(codes[failure.phase], `${failure.what}: ${cause.message}`, {
    hint: cause.hint, details: { kind: cause.kind, criu: cause.line, log: failure.criuLog, status: failure.status },
  });
}

/** CRIU's first real cause if its log holds one, else what the runtime said. */
export function explainFailure(failure: RunFailure): StasisError {
  const cause = explainCriuLog(readLog(failure.criuLog), failure.phase);
  if (cause !== undefined) return fromCriu(failure, cause);
  const message = runtimeMessage(readLog(failure.runtimeLog), failure.stderr);
  const details = { log: failure.criuLog, status: failure.status, runtime: message };
  for (const known of runtimeCauses) {
    if (known.match.test(message)) return new StasisError(known.code ?? codes[failure.phase], `${failure.what}: ${known.message}`, { hint: known.hint, details });
  }
  const words = message === '' || EMPTY_WORDS.test(message) ? `the runtime ended with status ${failure.status} and criu's log names no error` : message;
  const hint = failure.status > 128 ? 'it was ended by a signal: out of memory, or killed by somebody' : 'see with stasis ps whether the container still runs, and try again; the words of the runtime and of criu are kept with the operation';
  return new StasisError(codes[failure.phase], `${failure.what}: ${words}`, { hint, details });
}
