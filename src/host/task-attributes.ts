/** Attributes of a task that /proc does not tell. */
import { libc } from './libc.ts';

const call = libc.func('long syscall(long number, int which, int who)');
/** ioprio_get(2): 252 on x86-64, 31 on arm64. */
const SYS_IOPRIO_GET = process.arch === 'arm64' ? 31 : 252;
const IOPRIO_WHO_PROCESS = 1;

/** "class:level" as ioprio_set(2) takes them; undefined when the task is gone. */
export function ioPriority(tid: number): string | undefined {
  const value = Number(call(SYS_IOPRIO_GET, IOPRIO_WHO_PROCESS, tid));
  return value < 0 ? undefined : `${value >> 13}:${value & 7}`;
}
