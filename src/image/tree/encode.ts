/** Writes the index of a tree; docs/FORMAT-TREE.md describes the bytes. */
import type { Extents } from './extents.ts';
import { BLOCK, CHARACTER, DIRECTORY, FILE, SYMLINK } from './table.ts';
import type { Table, TreeKind } from './table.ts';
import { ByteWriter } from './varint.ts';
import type { XattrSets } from './xattrs.ts';

export const MAGIC = Buffer.from('STTREE\n\x01', 'latin1');
export const END = Buffer.from('END\n', 'latin1');
/** In the place of a kind: another name of an earlier entry. */
export const LINK = 8;
export const SAME_OWNER = 0x10;
export const SAME_MODE = 0x20;
export const HAS_XATTRS = 0x40;
export const OPAQUE = 0x80;

export interface Encoded {
  readonly chunks: readonly SharedArrayBuffer[];
  readonly length: number;
  readonly entries: number;
  readonly files: number;
  /** Bytes of the data blob that the index refers to. */
  readonly dataBytes: number;
}

export function encodeIndex(tree: { table: Table; extents: Extents; sets: XattrSets; kind: TreeKind; dataLength: number }): Encoded {
  const encoder = new Encoder(tree.table, tree.extents, tree.sets);
  encoder.out.bytes(MAGIC);
  encoder.out.byte(tree.kind === 'overlay-upper' ? 1 : 0);
  encoder.out.varint(tree.dataLength);
  encoder.all();
  encoder.out.varint(encoder.entries);
  encoder.out.bytes(END);
  return { chunks: encoder.out.chunks, length: encoder.out.length, entries: encoder.entries, files: encoder.files, dataBytes: encoder.dataBytes };
}

class Encoder {
  readonly out = new ByteWriter();
  readonly #table: Table;
  readonly #extents: Extents;
  readonly #sets: XattrSets;
  /** Position in the index of the first name of an inode, by the table's first entry of it. */
  readonly #written = new Map<number, number>();
  readonly #setNumbers = new Map<number, number>();
  readonly #linked: Set<number>;
  entries = 0;
  files = 0;
  dataBytes = 0;
  #uid = 0;
  #gid = 0;
  #mode = 0;
  #seconds = 0;
  #dataAt = 0;

  constructor(table: Table, extents: Extents, sets: XattrSets) {
    this.#table = table;
    this.#extents = extents;
    this.#sets = sets;
    this.#linked = new Set(table.twin.subarray(0, table.count).filter((twin) => twin >= 0));
  }

  all(): void {
    this.#entry(0);
    const queue = [0];
    for (let i = 0; i < queue.length; i++) this.#directory(queue[i] as number, queue);
  }

  #directory(directory: number, queue: number[]): void {
    const children = this.#sorted(directory);
    this.out.varint(children.length);
    let previous: Buffer = Buffer.alloc(0);
    for (const entry of children) {
      const name = this.#table.name(entry);
      const shared = sharedLength(previous, name);
      this.out.varint(shared);
      this.out.varint(name.length - shared);
      this.out.bytes(name.subarray(shared));
      this.#entry(entry);
      previous = name;
      if (this.#table.kind[entry] === DIRECTORY) queue.push(this.#table.a[entry] as number);
    }
  }

  /** Children in the order of their names. A directory that is changed while it is listed can show a name twice. */
  #sorted(directory: number): number[] {
    const { childrenFrom, childrenTo } = this.#table;
    const from = childrenFrom[directory] as number;
    const children = Array.from({ length: (childrenTo[directory] as number) - from }, (_, i) => from + i);
    children.sort((x, y) => Buffer.compare(this.#table.name(x), this.#table.name(y)));
    return children.filter((entry, i) => i === 0 || Buffer.compare(this.#table.name(entry), this.#table.name(children[i - 1] as number)) !== 0);
  }

  #entry(entry: number): void {
    const position = this.entries++;
    const twin = this.#table.twin[entry] as number;
    const first = twin >= 0 ? twin : entry;
    const written = this.#written.get(first);
    if (written !== undefined) {
      this.out.byte(LINK);
      this.out.varint(written);
      return;
    }
    if (twin >= 0 || this.#linked.has(entry)) this.#written.set(first, position);
    this.#inode(entry);
  }

  #inode(entry: number): void {
    const { table, out } = { table: this.#table, out: this.out };
    const [kind, mode, uid, gid, xattrs] = [table.kind[entry] as number, table.mode[entry] as number, table.uid[entry] as number, table.gid[entry] as number, table.xattrs[entry] as number];
    const sameOwner = uid === this.#uid && gid === this.#gid;
    const opaque = kind === DIRECTORY && table.b[entry] === 1;
    out.byte(kind | (sameOwner ? SAME_OWNER : 0) | (mode === this.#mode ? SAME_MODE : 0) | (xattrs === 0 ? 0 : HAS_XATTRS) | (opaque ? OPAQUE : 0));
    if (!sameOwner) {
      out.varint(uid);
      out.varint(gid);
    }
    if (mode !== this.#mode) out.varint(mode);
    out.signed((table.mtimeSeconds[entry] as number) - this.#seconds);
    out.varint(table.mtimeNanoseconds[entry] as number);
    [this.#uid, this.#gid, this.#mode, this.#seconds] = [uid, gid, mode, table.mtimeSeconds[entry] as number];
    if (xattrs !== 0) this.#xattrs(xattrs);
    if (kind === FILE) this.#content(table.a[entry] as number);
    else if (kind === SYMLINK) {
      const target = table.target(entry);
      out.varint(target.length);
      out.bytes(target);
    } else if (kind === CHARACTER || kind === BLOCK) {
      out.varint(table.a[entry] as number);
      out.varint(table.b[entry] as number);
    }
  }

  #xattrs(set: number): void {
    const known = this.#setNumbers.get(set);
    this.out.varint(known ?? 0);
    if (known !== undefined) return;
    this.#setNumbers.set(set, this.#setNumbers.size + 1);
    const attributes = this.#sets.get(set);
    this.out.varint(attributes.length);
    for (const { name, value } of attributes) {
      this.out.varint(name.length);
      this.out.bytes(name);
      this.out.varint(value.length);
      this.out.bytes(value);
    }
  }

  #content(content: number): void {
    const { extents, out } = { extents: this.#extents, out: this.out };
    const first = extents.first[content] as number;
    const count = extents.extents[content] as number;
    out.varint(extents.size[content] as number);
    out.varint(count);
    let fileAt = 0;
    for (let i = first; i < first + count; i++) {
      const length = extents.length[i] as number;
      out.varint((extents.fileAt[i] as number) - fileAt);
      out.varint(length);
      out.signed((extents.dataAt[i] as number) - this.#dataAt);
      fileAt = (extents.fileAt[i] as number) + length;
      this.#dataAt = (extents.dataAt[i] as number) + length;
      this.dataBytes += length;
    }
    this.files += 1;
  }
}

function sharedLength(x: Buffer, y: Buffer): number {
  const most = Math.min(x.length, y.length);
  let i = 0;
  while (i < most && x[i] === y[i]) i += 1;
  return i;
}
