/** Processes of a pid namespace below ours, by the numbers that they have in there. */
import { listChildren, readStatus } from './proc.ts';

/** Numbers of a process from the namespace of /proc inwards. */
function numbers(pid: number): number[] {
  return (readStatus(pid)?.get('NSpid') ?? '').split(/\s+/).map(Number);
}

/**
 * The process below `ancestor` (which is in our namespace, and whose child is the first process of another one) that is
 * called `inner` there. Undefined when there is none.
 */
export function pidFromInside(ancestor: number, inner: number): number | undefined {
  const depth = numbers(ancestor).length;
  for (const queue = listChildren(ancestor); queue.length > 0;) {
    const pid = queue.shift()!;
    if (numbers(pid)[depth] === inner) return pid;
    queue.push(...listChildren(pid));
  }
  return undefined;
}
