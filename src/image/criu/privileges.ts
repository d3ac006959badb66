/**
 * What a set of images would give to the processes that come out of it: CRIU restores credentials, seccomp filters,
 * mounts and namespaces as the images say, whatever the container was configured to have. Reading only; who may have what is
 * decided elsewhere. Numbers of fields: images/core.proto, creds.proto, mnt.proto of CRIU.
 */
import { join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import { listImages, readWhole } from './directory.ts';
import { imageEntries } from './framing.ts';
import type { ImageKind } from './framing.ts';
import { WireReader } from './wire.ts';

export interface ThreadPrivileges {
  /** The image that says so. */
  readonly image: string;
  readonly uid: number;
  /** All capability sets together, but for the bounding set, and that one: bit n is capability n. */
  readonly held: bigint;
  readonly bounding: bigint;
  readonly seccomp: boolean;
  readonly noNewPrivileges: boolean;
}

export interface ImageMount {
  readonly mountpoint: string;
  /** Name of CRIU's number, "other" for what no container has. */
  readonly type: string;
  /** The bundle's configuration says what is mounted there. */
  readonly external: boolean;
  /** A plugin would mount it. */
  readonly plugin: boolean;
  readonly readOnly: boolean;
  /** Directory of the file system that is mounted: "/" unless it is a bind mount. */
  readonly root: string;
}

export const namespaceNames = ['pid', 'network', 'ipc', 'uts', 'mount', 'user', 'cgroup'] as const;
export type NamespaceName = (typeof namespaceNames)[number];

export interface ImagePrivileges {
  readonly threads: readonly ThreadPrivileges[];
  readonly mounts: readonly ImageMount[];
  /** Namespaces that the processes had apart from those of CRIU. */
  readonly namespaces: ReadonlySet<NamespaceName>;
}

/** Fields of task_kobj_ids_entry, in the order of {@link namespaceNames}. */
const FIRST_NAMESPACE = 5;
const fileSystems: Readonly<Record<number, string>> = { 1: 'proc', 2: 'sysfs', 5: 'tmpfs', 6: 'devpts', 12: 'cgroup', 14: 'mqueue', 17: 'overlay', 23: 'cgroup2' };
const MS_RDONLY = 1;

/** Throws OBJECT_CORRUPT when an image is not what its name says. */
export async function readPrivileges(imageDir: string): Promise<ImagePrivileges> {
  const threads: ThreadPrivileges[] = [];
  const mounts: ImageMount[] = [];
  const ids = new Map<string, ReadonlyMap<number, number>>();
  for (const { name, size } of await listImages(imageDir)) {
    const kind = kindOf(name);
    if (kind === undefined) continue;
    const bytes = await readWhole(join(imageDir, name), size);
    for (const message of imageEntries(bytes, kind, name)) {
      if (kind === 'core') threads.push(thread(message, name));
      else if (kind === 'mounts') mounts.push(mount(message, name));
      else if (kind === 'ids') ids.set(name, numbers(message, name));
      else ids.set('', rootIds(message));
    }
  }
  if (threads.length === 0) throw new StasisError('OBJECT_CORRUPT', 'the images hold no process');
  return { threads, mounts, namespaces: ownNamespaces(ids) };
}

function kindOf(name: string): ImageKind | undefined {
  if (/^core-\d+\.img$/.test(name)) return 'core';
  if (/^mountpoints-\d+\.img$/.test(name)) return 'mounts';
  if (/^ids-\d+\.img$/.test(name)) return 'ids';
  return name === 'inventory.img' ? 'inventory' : undefined;
}

/** The fields of a message that are themselves messages or bytes, by number; the last of each. */
function inner(message: Uint8Array, what: string, field: number): Uint8Array {
  const reader = new WireReader(message, what);
  let found: Uint8Array = new Uint8Array(0);
  while (reader.next()) if (reader.field === field) found = reader.bytes();
  return found;
}

function thread(message: Uint8Array, image: string): ThreadPrivileges {
  const core = new WireReader(inner(message, image, 5), image);
  let credentials: Uint8Array = new Uint8Array(0);
  let mode = 0;
  while (core.next()) {
    if (core.field === 10) credentials = core.bytes();
    else if (core.field === 11) mode = core.uint();
  }
  const reader = new WireReader(credentials, image);
  const sets = new Map<number, number[]>();
  let [uid, noNewPrivileges] = [0, false];
  while (reader.next()) {
    if (reader.field === 1) uid = reader.uint();
    else if (reader.field >= 9 && reader.field <= 12) sets.set(reader.field, [...(sets.get(reader.field) ?? []), ...reader.uints()]);
    else if (reader.field === AMBIENT) sets.set(AMBIENT, [...(sets.get(AMBIENT) ?? []), ...reader.uints()]);
    else if (reader.field === NO_NEW_PRIVS) noNewPrivileges = reader.uint() !== 0;
  }
  const held = [9, 10, 11, AMBIENT].reduce((all, field) => all | mask(sets.get(field) ?? []), 0n);
  return { image, uid, held, bounding: mask(sets.get(12) ?? []), seccomp: mode === 2, noNewPrivileges };
}

/** Fields of creds_entry that CRIU 4 added. */
const NO_NEW_PRIVS = 18;
const AMBIENT = 19;

function mask(words: readonly number[]): bigint {
  return words.reduce((all, word, i) => all | (BigInt(word) << BigInt(32 * i)), 0n);
}

function mount(message: Uint8Array, image: string): ImageMount {
  const reader = new WireReader(message, image);
  let [type, flags, superFlags, root, mountpoint, external, plugin] = [0, 0, 0, '', '', false, false];
  while (reader.next()) {
    if (reader.field === 1) type = reader.uint();
    else if (reader.field === 5) flags = reader.uint();
    else if (reader.field === 6) root = reader.text();
    else if (reader.field === 7) mountpoint = reader.text();
    else if (reader.field === 12) plugin = reader.bool();
    else if (reader.field === 13) external = reader.bool() || external;
    else if (reader.field === 17) superFlags = reader.uint();
    else if (reader.field === 18) external = reader.text() !== '' || external;
  }
  return { mountpoint: normal(mountpoint), type: fileSystems[type] ?? 'other', external, plugin, readOnly: ((flags | superFlags) & MS_RDONLY) !== 0, root };
}

/** CRIU writes "./proc" or "/proc", and "./" for the root. */
function normal(mountpoint: string): string {
  const path = mountpoint.replace(/^\.(?=\/|$)/, '').replace(/\/+$/, '');
  return path.startsWith('/') ? path : `/${path}`;
}

function numbers(message: Uint8Array, what: string): ReadonlyMap<number, number> {
  const reader = new WireReader(message, what);
  const found = new Map<number, number>();
  while (reader.next()) if (reader.field >= FIRST_NAMESPACE && reader.field < FIRST_NAMESPACE + namespaceNames.length) found.set(reader.field, reader.uint());
  return found;
}

/** Of CRIU itself: a namespace of the same number is not restored. */
function rootIds(message: Uint8Array): ReadonlyMap<number, number> {
  return numbers(inner(message, 'inventory.img', 3), 'inventory.img');
}

function ownNamespaces(ids: ReadonlyMap<string, ReadonlyMap<number, number>>): Set<NamespaceName> {
  const outer = ids.get('');
  const tasks = [...ids].filter(([name]) => name !== '').map(([, task]) => task);
  return new Set(namespaceNames.filter((_, i) => {
    const field = FIRST_NAMESPACE + i;
    return tasks.length > 0 && tasks.every((task) => task.has(field) && task.get(field) !== outer?.get(field));
  }));
}
