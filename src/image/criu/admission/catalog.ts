/** The image files that an imported container may have: by name, with what they begin with and what they hold (criu/image-desc.c). */
import { Tables } from './message.ts';
import { fileTables } from './tables-files.ts';
import { namespaceTables } from './tables-namespaces.ts';
import { taskTables } from './tables-tasks.ts';

export const tables = new Tables({ ...taskTables, ...fileTables, ...namespaceTables });

/** What follows a message without a frame of its own. */
export type Payload = 'none' | 'pipe' | 'queue' | 'tcp' | 'messages' | 'semaphores' | 'shared' | 'ghost';

export interface ImageRule {
  /** What the rest of the judge calls it. */
  readonly kind: string;
  readonly name: RegExp;
  /** The second magic; the inventory has no first. Undefined: not made of messages. */
  readonly magic: number | undefined;
  /** Table of its messages, and of the first one where that differs. */
  readonly message: string;
  readonly head?: string;
  readonly payload: Payload;
  /** Exactly one message. */
  readonly single: boolean;
}

type Row = readonly [kind: string, name: RegExp, magic: number, message: string, how?: Partial<Pick<ImageRule, 'head' | 'payload' | 'single'>>];

const single = { single: true } as const;
const rows: readonly Row[] = [
  ['inventory', /^inventory\.img$/, 0x58313116, 'inventory', single],
  ['pstree', /^pstree\.img$/, 0x50273030, 'pstree'],
  ['core', /^core-\d+\.img$/, 0x55053847, 'core', single],
  ['ids', /^ids-\d+\.img$/, 0x54432030, 'ids', single],
  ['mm', /^mm-\d+\.img$/, 0x57492820, 'mm', single],
  ['fs', /^fs-\d+\.img$/, 0x51403912, 'fs', single],
  ['fdinfo', /^fdinfo-\d+\.img$/, 0x56213732, 'fdinfo'],
  ['files', /^files\.img$/, 0x56303138, 'file'],
  ['pagemap', /^pagemap-(?:shmem-)?\d+\.img$/, 0x56084025, 'pagemap', { head: 'pagemap_head' }],
  ['cpuinfo', /^cpuinfo\.img$/, 0x61404013, 'cpuinfo', single],
  ['seccomp', /^seccomp\.img$/, 0x64413049, 'seccomp', single],
  ['memfd', /^memfd\.img$/, 0x48453499, 'memfd_inode'],
  ['tty-info', /^tty-info\.img$/, 0x59453036, 'tty_info'],
  ['tty-data', /^tty-data\.img$/, 0x59413026, 'tty_data'],
  ['pipes-data', /^pipes-data\.img$/, 0x56453709, 'pipe_data', { payload: 'pipe' }],
  ['fifo-data', /^fifo-data\.img$/, 0x59333054, 'pipe_data', { payload: 'pipe' }],
  ['queues', /^sk-queues\.img$/, 0x56264026, 'queue', { payload: 'queue' }],
  ['tcp', /^tcp-stream-[0-9a-f]+\.img$/, 0x51465506, 'tcp_stream', { payload: 'tcp', single: true }],
  ['remap', /^remap-fpath\.img$/, 0x59133954, 'remap'],
  ['ghost', /^ghost-file-[0-9a-f]+\.img$/, 0x52583605, 'ghost', { payload: 'ghost' }],
  ['locks', /^filelocks\.img$/, 0x54323616, 'lock'],
  ['mounts', /^mountpoints-\d+\.img$/, 0x55563928, 'mount'],
  ['userns', /^userns-\d+\.img$/, 0x55474906, 'userns', single],
  ['utsns', /^utsns-\d+\.img$/, 0x54473203, 'utsns', single],
  ['timens', /^timens-\d+\.img$/, 0x43114433, 'timens', single],
  ['netns', /^netns-\d+\.img$/, 0x55933752, 'netns', single],
  ['netdev', /^netdev-\d+\.img$/, 0x57373951, 'netdev'],
  ['pidns', /^pidns-\d+\.img$/, 0x61157326, 'pidns', single],
  ['ipc-var', /^ipcns-var-\d+\.img$/, 0x53115007, 'ipc_var', single],
  ['ipc-shm', /^ipcns-shm-\d+\.img$/, 0x46283044, 'ipc_shm', { payload: 'shared' }],
  ['ipc-msg', /^ipcns-msg-\d+\.img$/, 0x55453737, 'ipc_msg_queue', { payload: 'messages' }],
  ['ipc-sem', /^ipcns-sem-\d+\.img$/, 0x59573019, 'ipc_sem', { payload: 'semaphores' }],
  ['cgroup', /^cgroup\.img$/, 0x59383330, 'cgroup', single],
];

export const catalog: readonly ImageRule[] = [
  ...rows.map(([kind, name, magic, message, how = {}]): ImageRule => ({ kind, name, magic, message, payload: 'none', single: false, ...how })),
  // Not made of messages: memory, what tar unpacks into memory file systems, what the runtime noted of the standard streams, and how the network was set up.
  ...([
    ['pages', /^pages-\d+\.img$/], ['tmpfs', /^tmpfs-(?:dev-)?\d+\.tar\.gz\.img$/], ['descriptors', /^descriptors\.json$/], ['packet-filter', /^(?:ip6?tables|nftables)-\d+\.img$/],
    ['network', /^(?:ifaddr|route6?|rule)-\d+\.img$/],
  ] as const)
    .map(([kind, name]): ImageRule => ({ kind, name, magic: undefined, message: '', payload: 'none', single: false })),
];

export function ruleFor(name: string): ImageRule | undefined {
  return catalog.find((rule) => rule.name.test(name));
}
