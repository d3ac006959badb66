/** Event counters (eventfd(2)): CRIU saves how far they have counted, not how they are read. */
import type { Finding } from '../types.ts';
import { descriptorInfo, descriptorsOf, lost, who, type ProcessView, type Scene } from './findings.ts';

/** Looked at in all processes together. */
const MAX_COUNTERS = 4096;

/** One finding for each process. */
export function checkEventSemaphores(scene: Scene): Finding[] {
  const seen = new Set<ProcessView>();
  const counters = [...descriptorsOf(scene, (target) => target === 'anon_inode:[eventfd]')];
  return counters.slice(0, MAX_COUNTERS).flatMap(({ process, fd }) => {
    if (seen.has(process) || !/^eventfd-semaphore:\s*1$/m.test(descriptorInfo(process, fd) ?? '')) return [];
    seen.add(process);
    return [lost(
      `that an event counter of ${who(process)} is a semaphore (EFD_SEMAPHORE, descriptor ${fd})`,
      'let the program make it again, or use a semaphore in memory: after a restore one reading takes all that was '
      + 'counted',
      process,
    )];
  });
}
