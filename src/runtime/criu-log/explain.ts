/**
 * From CRIU's log to the first real cause. CRIU goes on talking after an error, so the first one is the cause and
 * the later ones are its echoes; but some lines that it calls errors are harmless, some real ones say little, and
 * now and then an echo or a failed probe is all that there is.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { printable } from '../text.ts';
import type { Cause } from './cause.ts';
import { dumpCauses } from './causes.ts';
import { errorLines, type ErrorLine } from './log-lines.ts';
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

/** Lines that CRIU calls errors although it goes on, and what the runtimes say when they know nothing. */
const HARMLESS: readonly RegExp[] = [
  /Can't setup RLIMIT_NOFILE/,
  /TCP_CORK/,
  /iptables(?:-legacy)?.*(?:-L|preload|legacy)|Failed to (?:run|exec) iptables/,
  /type NOTIFY errno 0/,
  /Could not get .*from the kernel cache|kerndat.*(?:cache|Can't load)/,
];
/** Files in which CRIU tries what the kernel can do: a failure there is rarely the cause. */
const PROBES = /kerndat\.c/;
/** Sum up what went wrong before them: only when nothing else is there, they are looked at. */
const ECHOES: readonly RegExp[] = [
  /(?:Dumping|Pre-dumping|Restoring) FAILED/,
  /^(?:Dump|Collect|Fixup) .*\(pid: \d+\) failed with -?\d+$/, /^(?:Dump \d+ (?:signals|rseq)|Fixup rseq for \d+) failed/,
  /Can't (?:get|dump) (?:anon shared )?(?:memory|tasks?|files?|threads?|misc)(?: \(pid: \d+\))?$/, /Can't (?:cure|fixup vdso VMAs) \(pid/,
  /Namespaces dumping finished with error/, /Could not initialize kernel features detection/, /Root task exited|Unable to wait|^exited, status=\d+$|exited with (?:status )?\d+$/,
];
/** Lines after the first one that may explain it. */
const LOOK_AHEAD = 8;

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

/** The words of the table, and the process and descriptor where they are not among them. */
function explained(found: Explanation, { where }: ErrorLine): Explanation {
  const pid = where === undefined ? undefined : /\d+/.exec(where)?.[0];
  if (where === undefined || new RegExp(`\\bpid ${pid}\\b`).test(found.message)) return found;
  return { ...found, message: `${found.message}: ${where}` };
}

function firstKnown(lines: readonly ErrorLine[], tables: readonly (readonly Cause[])[]): Explanation | undefined {
  for (const line of lines) {
    for (const table of tables) {
      const found = lookUp(line.text, table);
      if (found !== undefined) return explained(found, line);
    }
  }
  return undefined;
}

function unknown(line: ErrorLine): Explanation {
  const text = printable(line.text);
  const hint = `try again; if it fails in the same way, let ${line.where === undefined ? 'the program' : 'that process'} close or end what this names, or run criu check on the node; the full log is kept with the operation`;
  return explained({ kind: 'unknown', message: `criu: ${text}`, hint, line: text }, line);
}

/**
 * The first real cause in the log of a run that failed; undefined when it holds no error. Unknown errors come back in
 * CRIU's words with kind "unknown".
 */
export function explainCriuLog(text: string, phase: 'dump' | 'restore'): Explanation | undefined {
  const all = errorLines(text).filter((line) => !HARMLESS.some((pattern) => pattern.test(line.text)));
  const probes = all.filter(({ file }) => PROBES.test(file));
  const echoes = all.filter((line) => !probes.includes(line) && ECHOES.some((pattern) => pattern.test(line.text)));
  const real = all.filter((line) => !probes.includes(line) && !echoes.includes(line));
  const specific = phase === 'dump' ? dumpCauses : restoreCauses;
  // What one direction calls by a name of its own may be met in the other, but its own table comes first.
  const tables = [specific, commonCauses, phase === 'dump' ? restoreCauses : dumpCauses];
  // The first line alone may say little ("Can't dump …"): a later one that is known explains it.
  const known = firstKnown(real.slice(0, 1), tables) ?? firstKnown(real.slice(1, LOOK_AHEAD), [specific]) ?? firstKnown([...probes, ...echoes], [specific]);
  if (known !== undefined) return known;
  const rest = real[0] ?? probes[0] ?? echoes[0];
  if (rest === undefined) return undefined;
  const node = real.length > 0 ? undefined : firstKnown([...probes, ...echoes], [commonCauses]);
  return node ?? unknown(rest);
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
