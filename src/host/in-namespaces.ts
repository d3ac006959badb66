/** Reading, for a moment, what the kernel tells only to those in a namespace: host names, IPC and network settings. */
import { closeSync, openSync, readlinkSync } from 'node:fs';
import { invariant } from '../core/assert.ts';
import { libc, systemError } from './libc.ts';

const setns = libc.func('int setns(int fd, int type)');

const TYPES = { uts: 0x04000000, ipc: 0x08000000, net: 0x40000000 } as const;

/**
 * Runs `use` with the calling thread in these namespaces of a process. Everything in it must be synchronous: no other
 * code of this thread then sees the change. Throws when the process is gone, or its namespaces cannot be entered.
 */
export function insideNamespaces<T>(pid: number, names: readonly (keyof typeof TYPES)[], use: () => T): T {
  using entered = new DisposableStack();
  for (const name of names) {
    const mine = `/proc/thread-self/ns/${name}`;
    if (readlinkSync(mine) === readlinkSync(`/proc/${pid}/ns/${name}`)) continue;
    const back = entered.adopt(openSync(mine, 'r'), closeSync);
    const there = entered.adopt(openSync(`/proc/${pid}/ns/${name}`, 'r'), closeSync);
    if (setns(there, TYPES[name]) !== 0) throw systemError('setns');
    entered.defer(
      () => invariant(setns(back, TYPES[name]) === 0, `a thread could not return to its own ${name} namespace`)
    );
  }
  return use();
}
