/** Processes of a pid namespace below ours, by the numbers that they have in there. */
import { listDirectory } from './files.ts';
import { readProc, readStatus } from './proc.ts';

/** Each thread has its own. */
function children(pid: number): number[] {
  const lists = listDirectory(`/proc/${pid}/task`).map((thread) => readProc(pid, `task/${thread}/children`) ?? '');
  return lists.flatMap((list) => list.split(' ').filter((text) => text.trim() !== '').map(Number));
}

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
  for (const queue = children(ancestor); queue.length > 0;) {
    const pid = queue.shift()!;
    if (numbers(pid)[depth] === inner) return pid;
    queue.push(...children(pid));
  }
  return undefined;
}
