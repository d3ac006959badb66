/** File locks, from /proc/PID/fdinfo (proc_pid_fdinfo(5)): /proc/locks leaves out locks whose taker has ended. */
import type { Finding } from '../types.ts';
import { descriptorInfo, descriptorsOf, fatal, who, type ProcessView, type Scene } from './findings.ts';

/** "lock:\t1: POSIX  ADVISORY  WRITE 4711 fd:01:131 0 EOF" → POSIX; also FLOCK, OFDLCK, LEASE. */
export function parseLocks(info: string): string[] {
  return [...info.matchAll(/^lock:\s*\d+: (?!->)(\S+)/gm)].map((match) => match[1] ?? '');
}

/** One finding for each process that holds locks. */
export function checkLocks(scene: Scene): Finding[] {
  if (scene.flags.fileLocks) return [];
  const held = new Map<ProcessView, string[]>();
  const couldBeLocked = (target: string): boolean => target.startsWith('/') && !target.startsWith('/dev/');
  for (const { process, fd } of descriptorsOf(scene, couldBeLocked)) {
    const locks = parseLocks(descriptorInfo(process, fd) ?? '');
    if (locks.length > 0) held.set(process, [...(held.get(process) ?? []), ...locks]);
  }
  return [...held].map(([process, types]) => (
    fatal('file-lock', `${who(process)} holds ${types.length} file lock${types.length === 1 ? '' : 's'} (${[...new Set(types)].join(', ')})`, 'use --file-locks: safe when nobody outside the container locks the same files', process)
  ));
}
