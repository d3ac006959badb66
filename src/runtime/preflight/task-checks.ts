/** States of processes that CRIU refuses, and what the agent lacks to save them. */
import { readProcLink, readStatus } from '../../host/proc.ts';
import type { Finding } from '../types.ts';
import { fatal, who, type ProcessView, type Scene } from './findings.ts';
import { inDumpOrder } from './epoll-checks.ts';

const CAP_SYS_RESOURCE = 24n;
/** Bit of SIGTRAP (5) in the masks of /proc/PID/status. */
const TRAP = 1n << 4n;

function mask(status: ReadonlyMap<string, string> | undefined, name: string): bigint {
  const text = status?.get(name) ?? '';
  return /^[0-9a-f]+$/.test(text) ? BigInt(`0x${text}`) : 0n;
}

/** Whether programs that the agent starts have CAP_SYS_RESOURCE. */
export function mayRaiseLimits(): boolean {
  return ((mask(readStatus('self'), 'CapBnd') >> CAP_SYS_RESOURCE) & 1n) === 1n;
}

/** prlimit(2) of another user's process takes CAP_SYS_RESOURCE in the user namespace of that process; who made the namespace has it. */
export function checkCapabilities({ tree, own }: Scene): Finding[] {
  if (mayRaiseLimits()) return [];
  const others = tree.processes.filter(({ status, namespaces }) => {
    const ids = `${status.get('Uid') ?? ''} ${status.get('Gid') ?? ''}`.split(/\s+/).filter(Boolean);
    return namespaces.user === own.user && ids.some((id) => id !== '0');
  });
  const [first] = others;
  if (first === undefined) return [];
  const more = others.length === 1 ? '' : ` and ${others.length - 1} more`;
  const [uid = '?'] = (first.status.get('Uid') ?? '').split(/\s+/);
  return [fatal('capability', `${who(first)}${more} runs as user ${uid}, and the agent lacks CAP_SYS_RESOURCE, without which CRIU cannot read the limits of another user's process`, 'give the agent CAP_SYS_RESOURCE (privileged), or run the program in the container as root', first)];
}

export function checkPendingTraps({ tree }: Scene): Finding[] {
  return tree.processes.filter(({ status }) => ((mask(status, 'SigPnd') | mask(status, 'ShdPnd')) & TRAP) !== 0n).map((process) => (
    fatal('signal', `${who(process)} has a SIGTRAP waiting that it blocks`, 'let it take the signal, or end the debugger that sent it', process)
  ));
}

/** The first thread of a process has ended by pthread_exit, and others go on: it stays as a zombie with threads. */
export function checkDeadLeaders({ tree }: Scene): Finding[] {
  return tree.processes.filter(({ state, threads }) => state === 'Z' && threads > 1).map((process) => (
    fatal('dead-leader', `the first thread of ${who(process)} has ended while ${process.threads - 1} other${process.threads === 2 ? '' : 's'} go${process.threads === 2 ? 'es' : ''} on`, 'the program must keep its first thread: one that leaves main by pthread_exit cannot be saved', process)
  ));
}

/** A namespace that a process has made for its children only, so that itself is still where it was. */
export function checkNamespacesForChildren({ tree }: Scene): Finding[] {
  const init = tree.processes[0];
  if (init === undefined) return [];
  const made = (process: ProcessView): boolean => {
    const forChildren = readProcLink(process.pid, 'ns/time_for_children');
    return forChildren !== undefined && init.namespaces.time !== undefined && forChildren !== init.namespaces.time && process.namespaces.time === init.namespaces.time;
  };
  return inDumpOrder(tree.processes).filter(made).slice(0, 1).map((process) => (
    fatal('nested-namespace', `${who(process)} has made a time namespace for its children`, 'CRIU cannot save nested namespaces: switch that sandbox off, or start the container with a time namespace of its own', process)
  ));
}
