/**
 * What a set of images would give to the processes that come out of it: CRIU restores credentials, seccomp filters,
 * mounts, namespaces and devices as the images say, whatever the container was configured to have. Reading only; who may
 * have what is decided elsewhere. Numbers of fields: images/*.proto of CRIU 4.2.
 */
import { join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import { listImages, readWhole } from './directory.ts';
import { imageEntries, singleEntry } from './framing.ts';
import { readDevices } from './image-devices.ts';
import type { ImageDevice } from './image-devices.ts';
import { readMounts } from './image-mounts.ts';
import type { ImageMount } from './image-mounts.ts';
import { readThread } from './image-threads.ts';
import type { ThreadPrivileges } from './image-threads.ts';
import { chain, readFilters } from './seccomp.ts';
import type { SeccompFilter } from './seccomp.ts';
import { onlyOnce } from './wire.ts';

export const namespaceNames = ['pid', 'network', 'ipc', 'uts', 'mount', 'user', 'cgroup', 'time'] as const;
export type NamespaceName = (typeof namespaceNames)[number];

export interface IdMapping {
  readonly inside: number;
  readonly outside: number;
  readonly count: number;
}

export interface ImagePrivileges {
  readonly threads: readonly ThreadPrivileges[];
  readonly filters: readonly SeccompFilter[];
  /** One list for each mount namespace. */
  readonly mounts: readonly (readonly ImageMount[])[];
  /** Processes of the container were in namespaces apart from each other. */
  readonly nested: boolean;
  /** Namespaces that all processes had apart from those of CRIU. */
  readonly namespaces: ReadonlySet<NamespaceName>;
  readonly userMappings: { readonly users: readonly IdMapping[]; readonly groups: readonly IdMapping[] };
  /** Device nodes that CRIU would make. */
  readonly devices: readonly ImageDevice[];
}

/** Fields of task_kobj_ids_entry, in the order of {@link namespaceNames}. */
const FIRST_NAMESPACE = 5;

/** Throws OBJECT_CORRUPT when an image is missing, is not what its name says, or says something twice; PATH_ESCAPES for a file that leads out. */
export async function readPrivileges(imageDir: string): Promise<ImagePrivileges> {
  const files = new Map((await listImages(imageDir)).map(({ name, size }) => [name, size]));
  const read = async (name: string): Promise<Uint8Array> => {
    const size = files.get(name);
    if (size === undefined) throw new StasisError('OBJECT_CORRUPT', `the images have no ${name}`);
    return readWhole(join(imageDir, name), size);
  };
  const filters = files.has('seccomp.img') ? readFilters(await read('seccomp.img')) : [];
  const threads: ThreadPrivileges[] = [];
  const ids: ReadonlyMap<number, number>[] = [];
  for (const { pid, parent, tids } of tasks(await read('pstree.img'))) {
    const core = async (tid: number): Promise<ThreadPrivileges> => readThread(singleEntry(await read(`core-${tid}.img`), 'core', `core-${tid}.img`), `core-${tid}.img`);
    const leader = await core(pid);
    // CRIU writes no threads of a process that has ended, only what lay in memory there.
    if (!leader.dead) {
      if (tids[0] !== pid) throw new StasisError('OBJECT_CORRUPT', `pstree.img has process ${pid}, and its first thread is ${tids[0] ?? 'none'}`);
      const others = [];
      for (const tid of tids.slice(1)) others.push(await core(tid));
      threads.push(leader, ...withFilterOf(leader, others, filters));
    }
    // CRIU leaves a process without them in the namespaces of its parent: of the first, that is CRIU's own.
    if (parent === 0 || !leader.dead) ids.push(namespaceIds(singleEntry(await read(`ids-${pid}.img`), 'ids', `ids-${pid}.img`), `ids-${pid}.img`));
  }
  if (threads.length === 0) throw new StasisError('OBJECT_CORRUPT', 'the images hold no process');
  const named = (pattern: RegExp): string[] => [...files.keys()].filter((name) => pattern.test(name));
  const mounts: ImageMount[][] = [];
  for (const name of named(/^mountpoints-\d+\.img$/)) mounts.push(readMounts(await read(name), name));
  const userMappings: { users: IdMapping[]; groups: IdMapping[] } = { users: [], groups: [] };
  for (const name of named(/^userns-\d+\.img$/)) addMappings(singleEntry(await read(name), 'userns', name), name, userMappings);
  return {
    threads, mounts, userMappings, filters,
    namespaces: ownNamespaces(ids, rootIds(singleEntry(await read('inventory.img'), 'inventory', 'inventory.img'))),
    nested: ids.some((task) => ids.some((other) => different(task, other))),
    devices: await readDevices(imageDir, [...files.keys()]),
  };
}

function tasks(bytes: Uint8Array): { pid: number; parent: number; tids: number[] }[] {
  return [...imageEntries(bytes, 'pstree', 'pstree.img')].map((message) => {
    let [pid, parent] = [0, 0];
    const tids: number[] = [];
    for (const reader of onlyOnce(message, 'pstree.img', 5)) {
      if (reader.field === 1) pid = reader.uint32();
      else if (reader.field === 2) parent = reader.uint32();
      else if (reader.field === 5) tids.push(...reader.uints());
    }
    return { pid, parent, tids };
  });
}

/** Where all filters of the first thread were installed for the whole process, the images leave them out of the others. */
function withFilterOf(leader: ThreadPrivileges, others: readonly ThreadPrivileges[], filters: readonly SeccompFilter[]): readonly ThreadPrivileges[] {
  if (!leader.seccomp || leader.filter === undefined || !chain(filters, leader.filter).every(({ forAllThreads }) => forAllThreads)) return others;
  return others.map((thread) => (thread.mode === 0 ? { ...thread, seccomp: true, filter: leader.filter } : thread));
}

function namespaceIds(message: Uint8Array, what: string): ReadonlyMap<number, number> {
  const found = new Map<number, number>();
  for (const reader of onlyOnce(message, what)) if (reader.field >= FIRST_NAMESPACE && reader.field < FIRST_NAMESPACE + namespaceNames.length) found.set(reader.field, reader.uint32());
  return found;
}

/** Of CRIU itself: a namespace of the same number is not restored. */
function rootIds(message: Uint8Array): ReadonlyMap<number, number> {
  for (const reader of onlyOnce(message, 'inventory.img')) if (reader.field === 3) return namespaceIds(reader.bytes(), 'inventory.img');
  throw new StasisError('OBJECT_CORRUPT', 'inventory.img does not tell the namespaces of CRIU');
}

function ownNamespaces(tasks_: readonly ReadonlyMap<number, number>[], outer: ReadonlyMap<number, number>): Set<NamespaceName> {
  return new Set(namespaceNames.filter((_, i) => {
    const field = FIRST_NAMESPACE + i;
    return outer.has(field) && tasks_.every((task) => task.has(field) && task.get(field) !== outer.get(field));
  }));
}

function addMappings(message: Uint8Array, what: string, { users, groups }: { users: IdMapping[]; groups: IdMapping[] }): void {
  for (const reader of onlyOnce(message, what, 1, 2)) {
    if (reader.field === 1) users.push(mapping(reader.bytes(), what));
    else if (reader.field === 2) groups.push(mapping(reader.bytes(), what));
  }
}

function mapping(message: Uint8Array, what: string): IdMapping {
  let [inside, outside, count] = [0, 0, 0];
  for (const reader of onlyOnce(message, what)) {
    if (reader.field === 1) inside = reader.uint32();
    else if (reader.field === 2) outside = reader.uint32();
    else if (reader.field === 3) count = reader.uint32();
  }
  return { inside, outside, count };
}

function different(one: ReadonlyMap<number, number>, other: ReadonlyMap<number, number>): boolean {
  return namespaceNames.some((_, i) => one.get(FIRST_NAMESPACE + i) !== other.get(FIRST_NAMESPACE + i));
}
