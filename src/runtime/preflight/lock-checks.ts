/** File locks, from /proc/PID/fdinfo (proc_pid_fdinfo(5)): /proc/locks leaves out locks whose taker has ended. */
import type { Finding } from '../types.ts';
import { descriptorInfo, descriptorsOf, fatal, warning, who, type ProcessView, type Scene } from './findings.ts';

/** "lock:\t1: POSIX  ADVISORY  WRITE 4711 fd:01:131 0 EOF" → POSIX; also FLOCK, OFDLCK, LEASE. */
export function parseLocks(info: string): string[] {
  return [...info.matchAll(/^lock:\s*\d+: (?!->)(\S+)/gm)].map((match) => match[1] ?? '');
}

const couldBeLocked = (target: string): boolean => target.startsWith('/') && !target.startsWith('/dev/');

/** "lock:\t1: LEASE  BREAKING  READ 4711 fd:01:131 0 EOF": CRIU takes the lease again, and breaks it again. */
export function checkBreakingLeases(scene: Scene): Finding[] {
  return [...descriptorsOf(scene, couldBeLocked)].filter(
    ({ process, fd }) => /^lock:\s*\d+: LEASE\s+BREAKING\s/m.test(descriptorInfo(process, fd) ?? '')
  ).slice(0, 1).map(({ process, fd }) => (
    warning(
      'file-lock',
      `${who(process)} has not given up a lease yet that somebody is breaking, descriptor ${fd}: after a restore it `
      + 'is signalled a second time', 'checkpoint when it has given the lease up', process,
    )
  ));
}

/** One finding for each process that holds locks. */
export function checkLocks(scene: Scene): Finding[] {
  if (scene.flags.fileLocks) return [];
  const held = new Map<ProcessView, string[]>();
  for (const { process, fd } of descriptorsOf(scene, couldBeLocked)) {
    const locks = parseLocks(descriptorInfo(process, fd) ?? '');
    if (locks.length > 0) held.set(process, [...(held.get(process) ?? []), ...locks]);
  }
  return [...held].map(([process, types]) => (
    fatal('file-lock', `${who(process)} holds ${types.length} file lock${types.length === 1 ? '' : 's'} (${[...new Set(types)].join(', ')})`, 'use --file-locks: safe when nobody outside the container locks the same files', process)
  ));
}
