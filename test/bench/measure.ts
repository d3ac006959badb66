/** Clocks, medians, and the state of the machine before and during a measurement. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

export async function timed<T>(work: () => Promise<T>): Promise<{ readonly ms: number; readonly value: T }> {
  const from = performance.now();
  const value = await work();
  return { ms: performance.now() - from, value };
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/**
 * Memory that a virtual machine never used before costs many times as much at its first touch: whoever comes first would
 * pay for all. Writes and frees about as much as a run will use.
 */
export function warmMemory(gib: number): void {
  execFileSync('sh', ['-c', `head -c ${gib}G /dev/zero > /dev/shm/warm; rm -f /dev/shm/warm`]);
}

/** Nobody pays for the writes of the one before. */
export function settle(): void {
  execFileSync('sync');
}

/** Resident memory in MiB without what is shared: the staging lies in shared memory and has a limit of its own. */
export function residentMiB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const field = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1] ?? 0) / 1024;
  return field('RssAnon') + field('RssFile');
}
