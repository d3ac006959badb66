/** The mounts that CRIU would make (mountpoints-N.img, images/mnt.proto). */
import { imageEntries } from './framing.ts';
import { onlyOnce } from './wire.ts';

export interface ImageMount {
  readonly id: number;
  readonly parent: number;
  readonly mountpoint: string;
  /** Name of CRIU's number, "other" for what no container has. */
  readonly type: string;
  /** Given from outside under this name; empty for what was external before names were known; undefined for what CRIU mounts itself. */
  readonly external: string | undefined;
  /** A plugin would mount it. */
  readonly plugin: boolean;
  /** Of "ro", "nosuid", "nodev" and "noexec", as flags of the mount: CRIU looks at no others when it binds. */
  readonly options: ReadonlySet<string>;
  /** What CRIU gives to mount(2) as data. */
  readonly data: readonly string[];
  /** Mounts come in from elsewhere, or go out. */
  readonly propagates: boolean;
  /** Directory of the file system that is mounted: "/" unless it is a bind mount. */
  readonly root: string;
}

const fileSystems: Readonly<Record<number, string>> = { 1: 'proc', 2: 'sysfs', 5: 'tmpfs', 6: 'devpts', 12: 'cgroup', 14: 'mqueue', 17: 'overlay', 23: 'cgroup2' };
/** Bits of mount(2). */
const flagNames = [[1, 'ro'], [2, 'nosuid'], [4, 'nodev'], [8, 'noexec']] as const;

export function readMounts(bytes: Uint8Array, image: string): ImageMount[] {
  return [...imageEntries(bytes, 'mounts', image)].map((message) => readMount(message, image));
}

function readMount(message: Uint8Array, image: string): ImageMount {
  let [type, id, parent, flags, root, mountpoint, data, plugin, propagates] = [0, 0, 0, 0, '', '', '', false, false];
  let external: string | undefined;
  for (const reader of onlyOnce(message, image)) {
    if (reader.field === 1) type = reader.uint32();
    else if (reader.field === 2) id = reader.uint32();
    else if (reader.field === 4) parent = reader.uint32();
    else if (reader.field === 5) flags = reader.uint32();
    else if (reader.field === 6) root = reader.text();
    else if (reader.field === 7) mountpoint = reader.text();
    else if (reader.field === 9) data = reader.text();
    else if (reader.field === 10 || reader.field === 11) propagates ||= reader.uint32() !== 0;
    else if (reader.field === 12) plugin = reader.bool();
    else if (reader.field === 13) external ??= reader.bool() ? '' : undefined;
    else if (reader.field === 18) external = reader.text();
  }
  const options = new Set(flagNames.filter(([bit]) => (flags & bit) !== 0).map(([, name]) => name));
  return { id, parent, mountpoint: normal(mountpoint), type: fileSystems[type] ?? 'other', external, plugin, options, root, propagates, data: data.split(',').filter((option) => option !== '') };
}

/** CRIU writes "./proc" or "/proc", and "./" for the root. */
function normal(mountpoint: string): string {
  const path = mountpoint.replace(/^\.(?=\/|$)/, '').replace(/\/+$/, '');
  return path.startsWith('/') ? path : `/${path}`;
}
