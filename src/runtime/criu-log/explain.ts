/**
 * From CRIU's log to the first real cause. CRIU goes on talking after an error, so the first one is the cause and
 * the later ones are its echoes; but some lines that it calls errors are harmless, and some real ones say little.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { printable } from '../text.ts';
import { dumpCauses, type Cause } from './causes.ts';
import { commonCauses, restoreCauses } from './restore-causes.ts';

export interface Explanation {
  /** Stable word: io_uring, tcp-established, file-changed, …; "unknown" when no row of the table fits. */
  readonly kind: string;
  readonly message: string;
  readonly hint: string;
  /** CRIU's own words. */
  readonly line: string;
}

/** A log at level 4 grows with the container: the causes stand at its end, a failure at the start in its beginning. */
const HEAD_BYTES = 256 * 1024;
const TAIL_BYTES = 1024 * 1024;

const ERROR_LINE = /^(?:\(\s*\d+\.\d+\)\s*)?(?:pie:\s*)?(?:\s*\d+:\s+)?Error \(([^)]*)\):\s*(.*)$/;

/** Lines that CRIU calls errors although it goes on, and what the runtimes say when they know nothing. */
const HARMLESS: readonly RegExp[] = [
  /Can't setup RLIMIT_NOFILE/,
  /TCP_CORK/,
  /iptables(?:-legacy)?.*(?:-L|preload|legacy)|Failed to (?:run|exec) iptables/,
  /type NOTIFY errno 0/,
  /Could not get .*from the kernel cache|kerndat.*(?:cache|Can't load)/,
];
const PROBES = /kerndat\.c/;
/** Sum up what went wrong before them. */
const ECHOES: readonly RegExp[] = [
  /(?:Dumping|Pre-dumping|Restoring) FAILED/, /^Dump (?:files|mappings|task|core|mem|namespaces|maps) .*failed with/i, /failed with -?\d+$/, /Can't (?:get|dump) (?:anon shared )?(?:memory|tasks?|files?)$/,
  /Root task exited|Unable to wait|exited with (?:status )?\d+$/,
];

interface ErrorLine {
  readonly file: string;
  readonly text: string;
}

function errorLines(text: string): ErrorLine[] {
  const lines: ErrorLine[] = [];
  for (const line of text.split('\n')) {
    const match = line.includes('Error (') ? ERROR_LINE.exec(line) : null;
    if (match !== null) lines.push({ file: match[1] ?? '', text: match[2] ?? '' });
  }
  return lines.filter(({ text: words }) => !HARMLESS.some((pattern) => pattern.test(words)));
}

function fill(template: string, match: RegExpExecArray): string {
  const filled = template.replace(/\$(\d)/g, (_, group: string) => match[Number(group)] ?? '');
  return printable(filled.replace(/ \(\s*\)/g, '').replace(/\s{2,}/g, ' ').trim());
}

function lookUp(text: string, causes: readonly Cause[]): Explanation | undefined {
  for (const { match, kind, message, hint } of causes) {
    const found = match.exec(text);
    if (found !== null) return { kind, message: fill(message, found), hint: fill(hint, found), line: printable(text) };
  }
  return undefined;
}

/**
 * The first real cause in the log of a run that failed; undefined when it holds no error. Unknown errors come back in
 * CRIU's words with kind "unknown".
 */
export function explainCriuLog(text: string, phase: 'dump' | 'restore'): Explanation | undefined {
  const all = errorLines(text);
  const real = all.filter(({ file, text: words }) => !PROBES.test(file) && !ECHOES.some((pattern) => pattern.test(words)));
  const specific = phase === 'dump' ? dumpCauses : restoreCauses;
  // What one direction calls by a name of its own may be met in the other, but its own table comes first.
  const tables = [specific, commonCauses, phase === 'dump' ? restoreCauses : dumpCauses];
  const [first] = real;
  for (const line of first === undefined ? [] : [first]) {
    for (const table of tables) {
      const found = lookUp(line.text, table);
      if (found !== undefined) return found;
    }
  }
  // The first line alone says little ("Can't dump …"): the next one that is known explains it.
  for (const line of real.slice(1, 4)) {
    const found = lookUp(line.text, specific);
    if (found !== undefined) return found;
  }
  const rest = first ?? all[0];
  if (rest === undefined) return undefined;
  const probe = lookUp(rest.text, commonCauses);
  if (probe !== undefined) return probe;
  const line = printable(rest.text);
  return { kind: 'unknown', message: `criu: ${line}`, hint: 'the full log is kept with the operation', line };
}

/** Beginning and end of a log that may have grown to many megabytes; empty when there is none. */
export function readLog(path: string): string {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return '';
  }
  try {
    const { size } = fstatSync(fd);
    const part = (offset: number, length: number): string => {
      const buffer = Buffer.alloc(length);
      return buffer.toString('utf8', 0, readSync(fd, buffer, 0, length, offset));
    };
    if (size <= HEAD_BYTES + TAIL_BYTES) return part(0, size);
    return `${part(0, HEAD_BYTES)}\n${part(size - TAIL_BYTES, TAIL_BYTES)}`;
  } finally {
    closeSync(fd);
  }
}
