/**
 * A tree in memory: one row per entry, in columns of numbers, because a million objects would not fit the agent's
 * memory. The children of a directory lie together; directories are numbered in the order in which they appear.
 */
import { StasisError } from '../../core/errors.ts';
import { Columns } from './columns.ts';
import { MAX_DEPTH, MAX_ENTRIES, MAX_TEXT_BYTES } from './limits.ts';

/** How a tree was saved: `overlay-upper` knows whiteouts and opaque directories, `plain` has none. */
export type TreeKind = 'overlay-upper' | 'plain';

/** Kinds of entries; the numbers are those of the index format. */
export const FILE = 0;
export const DIRECTORY = 1;
export const SYMLINK = 2;
export const FIFO = 3;
export const SOCKET = 4;
export const CHARACTER = 5;
export const BLOCK = 6;
export const WHITEOUT = 7;

export const kindNames = ['file', 'directory', 'symlink', 'fifo', 'socket', 'character-device', 'block-device', 'whiteout'] as const;

export interface Row {
  readonly kind: number;
  /** Permission bits with setuid, setgid and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
  /** Number of the set of extended attributes, 0 for none. */
  readonly xattrs: number;
  /** FILE: number of its content. SYMLINK: where its target lies. Devices: major. */
  readonly a: number;
  /** SYMLINK: length of its target. Devices: minor. DIRECTORY: 1 when opaque. */
  readonly b: number;
}

/** Bytes that only grow: names and symlink targets. */
export class Texts {
  #bytes = Buffer.alloc(65536);
  #used = 0;

  add(text: Uint8Array, length: number): number {
    const at = this.#used;
    if (at + length > MAX_TEXT_BYTES) throw new StasisError('LIMIT_EXCEEDED', `the names of this tree take more than ${MAX_TEXT_BYTES} bytes`);
    if (at + length > this.#bytes.length) {
      const larger = Buffer.alloc(Math.max(this.#bytes.length * 2, at + length));
      larger.set(this.#bytes.subarray(0, at));
      this.#bytes = larger;
    }
    for (let i = 0; i < length; i++) this.#bytes[at + i] = text[i] as number;
    this.#used = at + length;
    return at;
  }

  /** A view: do not change it. */
  get(at: number, length: number): Buffer {
    return this.#bytes.subarray(at, at + length);
  }
}

export class Table {
  readonly texts = new Texts();
  readonly #rows = new Columns(MAX_ENTRIES, 'entries');
  /** By entry. Entry 0 is the root, without a name. */
  readonly parent = this.#rows.i32();
  readonly nameAt = this.#rows.u32();
  readonly nameLength = this.#rows.u8();
  readonly kind = this.#rows.u8();
  readonly mode = this.#rows.u16();
  readonly uid = this.#rows.u32();
  readonly gid = this.#rows.u32();
  readonly mtimeSeconds = this.#rows.f64();
  readonly mtimeNanoseconds = this.#rows.u32();
  readonly xattrs = this.#rows.u32();
  readonly a = this.#rows.u32();
  readonly b = this.#rows.u32();
  /** Another entry, earlier in this table, that is the same inode; -1 for none. */
  readonly twin = this.#rows.i32();
  /** By directory: its entry, its depth, and where its children lie in the table. */
  readonly #folders = new Columns(MAX_ENTRIES, 'directories');
  readonly directoryEntry = this.#folders.u32();
  readonly depth = this.#folders.u16();
  readonly childrenFrom = this.#folders.u32();
  readonly childrenTo = this.#folders.u32();
  count = 0;
  directories = 0;

  /** `parent` is the number of a directory, -1 for the root. Returns the entry's number. */
  add(parent: number, name: Uint8Array, nameLength: number, row: Row, twin: number): number {
    const entry = this.count;
    this.#rows.reach(entry);
    this.count += 1;
    this.parent[entry] = parent;
    this.nameAt[entry] = this.texts.add(name, nameLength);
    this.nameLength[entry] = nameLength;
    this.kind[entry] = row.kind;
    this.mode[entry] = row.mode;
    this.uid[entry] = row.uid;
    this.gid[entry] = row.gid;
    this.mtimeSeconds[entry] = row.mtimeSeconds;
    this.mtimeNanoseconds[entry] = row.mtimeNanoseconds;
    this.xattrs[entry] = row.xattrs;
    this.a[entry] = row.kind === DIRECTORY ? this.directories : row.a;
    this.b[entry] = row.b;
    this.twin[entry] = twin;
    if (row.kind === DIRECTORY) this.#addDirectory(entry, parent);
    return entry;
  }

  #addDirectory(entry: number, parent: number): void {
    const depth = parent < 0 ? 0 : (this.depth[parent] as number) + 1;
    if (depth > MAX_DEPTH) throw new StasisError('LIMIT_EXCEEDED', `the tree is more than ${MAX_DEPTH} directories deep`);
    this.#folders.reach(this.directories);
    this.directoryEntry[this.directories] = entry;
    this.depth[this.directories] = depth;
    this.directories += 1;
  }

  name(entry: number): Buffer {
    return this.texts.get(this.nameAt[entry] as number, this.nameLength[entry] as number);
  }

  target(entry: number): Buffer {
    return this.texts.get(this.a[entry] as number, this.b[entry] as number);
  }

  /** Path of a directory below the root: "" for the root, else "a/b". */
  directoryPath(directory: number): Buffer {
    const names: Buffer[] = [];
    for (let at = directory; at > 0; ) {
      const entry = this.directoryEntry[at] as number;
      names.push(this.name(entry));
      at = this.parent[entry] as number;
    }
    return joined(names.toReversed());
  }

  path(entry: number): Buffer {
    const directory = this.parent[entry] as number;
    if (directory < 0) return Buffer.alloc(0);
    const above = this.directoryPath(directory);
    return above.length === 0 ? Buffer.from(this.name(entry)) : joined([above, this.name(entry)]);
  }
}

function joined(names: readonly Buffer[]): Buffer {
  const slash = Buffer.of(0x2f);
  return Buffer.concat(names.flatMap((name, i) => (i === 0 ? [name] : [slash, name])));
}
