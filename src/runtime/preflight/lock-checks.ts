/** File locks, from /proc/locks (proc_locks(5)). */
import { readFileSync } from 'node:fs';
import type { Finding } from '../types.ts';
import { fatal, who, type Scene } from './findings.ts';

export interface FileLock {
  /** POSIX, FLOCK, LEASE, OFDLCK. */
  readonly type: string;
  readonly pid: number;
}

/** "1: POSIX  ADVISORY  WRITE 4711 fd:01:131 0 EOF"; a line with "->" is one that waits. */
export function parseLocks(text: string): FileLock[] {
  return [...text.matchAll(/^\d+: (?!->)(\S+)\s+\S+\s+\S+\s+(\d+)\s/gm)].map((match) => ({ type: match[1] ?? '', pid: Number(match[2]) }));
}

/** Locks of open file descriptions carry no pid; they are seen by the dump only. */
export function checkLocks({ tree, flags }: Scene): Finding[] {
  if (flags.fileLocks) return [];
  const byPid = new Map(tree.processes.map((process) => [process.pid, process]));
  const held = new Map<number, string[]>();
  for (const { type, pid } of parseLocks(readFileSync('/proc/locks', 'utf8'))) {
    if (byPid.has(pid)) held.set(pid, [...(held.get(pid) ?? []), type]);
  }
  return [...held].map(([pid, types]) => {
    const process = byPid.get(pid)!;
    return fatal('file-lock', `${who(process)} holds ${types.length} file lock${types.length === 1 ? '' : 's'} (${[...new Set(types)].join(', ')})`, 'use --file-locks: safe when nobody outside the container locks the same files', process);
  });
}
