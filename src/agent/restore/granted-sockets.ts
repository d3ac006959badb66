/** Sockets, signals, labels and limits in imported images: what is harmless in some containers only. */
import type { Admitted } from '../../image/criu/index.ts';
import type { OciSpec } from '../../runtime/types.ts';

/** Ports below it are privileged (net.ipv4.ip_unprivileged_port_start). */
const PRIVILEGED_PORTS = 1024;
/** SO_PRIORITY of anybody (socket(7)). */
const MAX_PRIORITY = 6;

export function* socketReasons({ sockets, options, signals, labels, networkDevices, external }: Admitted, bundle: OciSpec): Generator<string> {
  const own = namespaces(bundle);
  const program = (bundle.process ?? {}) as Program;
  const held = new Set(Object.values(program.capabilities ?? {}).flatMap((names) => names ?? []));
  if (!own.has('network')) {
    const port = sockets.find((socket) => socket.port > 0 && socket.port < PRIVILEGED_PORTS)?.port;
    if (port !== undefined && !held.has('CAP_NET_BIND_SERVICE')) yield `it has port ${port} of the node's network`;
    if (sockets.some(({ established }) => established)) yield 'it has connections in a network that it shares';
  }
  if ((options.mark || options.priority > MAX_PRIORITY) && !held.has('CAP_NET_ADMIN')) yield 'it has sockets with a mark or a priority, which take CAP_NET_ADMIN';
  if (options.device && !own.has('network') && !held.has('CAP_NET_RAW')) yield 'it has sockets bound to a network device of the node';
  if (signals && !own.has('pid')) yield 'its files send signals to processes that are not its own';
  for (const one of labels) if (one !== program.selinuxLabel) yield `it has sockets labelled ${JSON.stringify(one.slice(0, 100))}`;
  for (const name of networkDevices) yield `it makes the network device ${JSON.stringify(name.slice(0, 40))}`;
  for (const name of external) if (!givenByPath(bundle, name)) yield `it takes its ${name} namespace from outside, and the bundle names none`;
}

interface Program {
  readonly capabilities?: Readonly<Record<string, readonly string[] | undefined>>;
  readonly selinuxLabel?: string;
}

type Namespace = NonNullable<NonNullable<OciSpec['linux']>['namespaces']>[number] & { readonly path?: string };

function namespaces({ linux }: OciSpec): ReadonlySet<string> {
  return new Set((linux?.namespaces ?? []).map(({ type }) => type));
}

function givenByPath({ linux }: OciSpec, name: string): boolean {
  return ((linux?.namespaces ?? []) as readonly Namespace[]).some(({ type, path = '' }) => type === name && path !== '');
}

/** Limits of an IPC namespace as a kernel begins with them (linux/shm.h, msg.h, sem.h, mqueue), by the name of the sysctl. */
const initial: Readonly<Record<string, readonly [field: string, limit: bigint]>> = {
  'kernel.msgmax': ['msg_ctlmax', 8192n], 'kernel.msgmnb': ['msg_ctlmnb', 16_384n], 'kernel.msgmni': ['msg_ctlmni', 32_000n], 'kernel.shmmni': ['shm_ctlmni', 4096n],
  'kernel.shmmax': ['shm_ctlmax', 2n ** 64n - 1n], 'kernel.shmall': ['shm_ctlall', 2n ** 64n - 1n], 'fs.mqueue.queues_max': ['mq_queues_max', 256n], 'fs.mqueue.msg_max': ['mq_msg_max', 10n],
  'fs.mqueue.msgsize_max': ['mq_msgsize_max', 8192n], 'fs.mqueue.msg_default': ['mq_msg_default', 10n], 'fs.mqueue.msgsize_default': ['mq_msgsize_default', 8192n],
};
/** kernel.sem: semaphores of a set, of all, operations of a call, sets. */
const SEMAPHORES = [32_000n, 1_024_000_000n, 500n, 32_000n];

export function* ipcReasons({ ipc }: Admitted, { linux }: OciSpec): Generator<string> {
  if (ipc === undefined) return;
  const sysctl = (linux?.['sysctl'] ?? {}) as Readonly<Record<string, string>>;
  const numbers = (name: string): bigint[] => (sysctl[name] ?? '').split(/\s+/).filter((text) => /^\d+$/.test(text)).map(BigInt);
  for (const [name, [field, limit]] of Object.entries(initial)) {
    const [granted = 0n] = numbers(name);
    const value = ipc.has(field) ? BigInt(ipc.all(field)[0] as number | bigint) : 0n;
    if (value > limit && value > granted) yield `its ${name} is ${value}`;
  }
  const granted = numbers('kernel.sem');
  const semaphores = ipc.numbers('sem_ctls').map(BigInt);
  if (semaphores.length > SEMAPHORES.length || semaphores.some((value, i) => value > (SEMAPHORES[i] ?? 0n) && value > (granted[i] ?? 0n))) yield `its kernel.sem is ${semaphores.join(' ')}`;
}
