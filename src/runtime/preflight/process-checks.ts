/** Processes that CRIU cannot seize, or whose surroundings it cannot save. */
import { readStat, threadStates, type NamespaceName } from '../../host/proc.ts';
import { formatBytes } from '../../core/units.ts';
import type { Finding } from '../types.ts';
import { fatal, warning, who, type ProcessView, type Scene } from './findings.ts';

/** Threads whose states are read, per process. */
const MAX_THREADS = 512;
/** The one kind of namespace that a process below the first may have of its own. */
const NESTED_OK: NamespaceName = 'mnt';
/** One finding of a kind names at most this many processes. */
const MAX_NAMED = 3;

function list(processes: readonly Parameters<typeof who>[0][]): string {
  const more = processes.length > MAX_NAMED ? ` and ${processes.length - MAX_NAMED} more` : '';
  return processes.slice(0, MAX_NAMED).map(who).join(', ') + more;
}

export function checkTraced({ tree }: Scene): Finding[] {
  return tree.processes.filter((process) => process.tracer !== 0).map((process) => {
    const tracer = readStat(process.tracer);
    const by = tracer === undefined ? `pid ${process.tracer}` : who(tracer);
    return fatal('traced', `${who(process)} is traced by ${by}`, 'end the debugger, strace or profiler that is attached to it', process);
  });
}

export function checkStuck({ tree }: Scene): Finding[] {
  return tree.processes.filter((process) => process.state === 'D').map((process) => (
    warning('uninterruptible', `${who(process)} is in uninterruptible sleep (state D)`, 'it may not freeze in time: look for stuck network file systems or disks', process)
  ));
}

/** A group stop (SIGSTOP to the process) is saved; one thread alone stopped is not. */
export function checkStoppedThreads({ tree }: Scene): Finding[] {
  return tree.processes.filter((process) => process.threads > 1).flatMap((process) => {
    const states = threadStates(process.pid, MAX_THREADS);
    const stopped = states.filter((state) => state === 'T' || state === 't').length;
    if (stopped === 0 || stopped === states.length) return [];
    return [fatal('stopped-thread', `${who(process)} has ${stopped} of ${states.length} threads stopped`, 'let them go on first: CRIU cannot save threads that are stopped one by one', process)];
  });
}

export function checkExecSessions({ tree }: Scene): Finding[] {
  const [first] = tree.strangers;
  if (first === undefined) return [];
  const what = `${list(tree.strangers)} ${tree.strangers.length === 1 ? 'was' : 'were'} started from outside (exec) and will not be in the checkpoint`;
  return [warning('exec-session', what, 'such a session ends with the container; wait for it if it matters', first)];
}

export function checkNestedNamespaces({ tree }: Scene): Finding[] {
  const [init, ...others] = tree.processes;
  if (init === undefined) return [];
  const byKind = new Map<NamespaceName, ProcessView[]>();
  for (const process of others) {
    for (const [name, namespace] of Object.entries(process.namespaces) as [NamespaceName, string][]) {
      if (name === NESTED_OK || namespace === init.namespaces[name]) continue;
      byKind.set(name, [...(byKind.get(name) ?? []), process]);
    }
  }
  return [...byKind].map(([name, processes]) => (
    fatal('nested-namespace', `${list(processes)} ${processes.length === 1 ? 'has' : 'have'} a ${name} namespace other than the container's first process`, 'CRIU cannot save nested namespaces: switch the sandbox of that program off (browsers: --no-sandbox)', processes[0])
  ));
}

export function checkSharedNamespaces({ tree, own, container }: Scene): Finding[] {
  const init = tree.processes[0];
  if (init === undefined) return [];
  const findings: Finding[] = [];
  const shared = (name: NamespaceName): boolean => init.namespaces[name] !== undefined && init.namespaces[name] === own[name];
  if (shared('pid')) findings.push(fatal('host-pid', 'the container uses the pid namespace of the node', 'give it a pid namespace of its own: its pids may be taken when it is restored', init));
  if (shared('ipc')) findings.push(hostIpc(tree.processes, init));
  if (shared('net')) findings.push(warning('host-network', 'the container uses the network of the node', 'its ports and addresses must be free on the node where it is restored', init));
  if (init.namespaces.user !== undefined && own.user !== undefined && init.namespaces.user !== own.user) {
    findings.push(warning('user-namespace', `container ${container.id} runs in a user namespace`, 'a restore must find the same ranges of user and group ids', init));
  }
  return findings;
}

function hostIpc(processes: readonly ProcessView[], init: ProcessView): Finding {
  const user = processes.find((process) => process.mappings.some((mapping) => mapping.name.startsWith('/SYSV')));
  if (user === undefined) return warning('host-ipc', 'the container uses the IPC namespace of the node', 'SysV semaphores and message queues that it uses are not saved', init);
  return fatal('host-ipc', `${who(user)} uses SysV shared memory in the IPC namespace of the node`, 'give the container an IPC namespace of its own', user);
}

export function checkSwap({ tree }: Scene): Finding[] {
  const swapped = tree.processes.reduce((sum, process) => sum + process.swapped, 0);
  return swapped === 0 ? [] : [warning('swap', `${formatBytes(swapped)} of its memory is swapped out`, 'the dump reads it back, so the freeze takes longer')];
}

export function checkExamined({ tree }: Scene): Finding[] {
  return tree.unexamined === 0 ? [] : [warning('processes', `${tree.unexamined} of its processes were not looked at, because there are so many`, 'the dump itself tells if one of them cannot be saved')];
}
