/**
 * Reads the index of a tree. Whatever the bytes are, the result is a tree or an error: a child's parent is always a
 * directory of this index, a name is one component, a link refers to an earlier entry that is no directory, and no byte of
 * the data belongs to two files.
 */
import { StasisError } from '../../core/errors.ts';
import { END, HAS_XATTRS, LINK, MAGIC, OPAQUE, SAME_MODE, SAME_OWNER } from './encode.ts';
import { Extents } from './extents.ts';
import { MAX_ENTRIES, MAX_EXTENTS, MAX_INDEX_BYTES, MAX_NAME_BYTES, MAX_TARGET_BYTES, MAX_XATTRS, MAX_XATTR_NAME_BYTES, MAX_XATTR_VALUE_BYTES } from './limits.ts';
import { mayRestore, overlayPrefix } from './overlay.ts';
import { BLOCK, CHARACTER, DIRECTORY, FILE, SYMLINK, Table, WHITEOUT } from './table.ts';
import type { Row, TreeKind } from './table.ts';
import { ByteReader } from './varint.ts';
import { XattrSets } from './xattrs.ts';
import type { Xattr } from './xattrs.ts';

export interface DecodedTree {
  readonly kind: TreeKind;
  readonly table: Table;
  readonly extents: Extents;
  readonly sets: XattrSets;
}

const U32 = 2 ** 32 - 1;
/** uid and gid -1 mean "leave as it is" to chown(2). */
const MAX_ID = U32 - 1;
/** Seconds in either direction, far beyond what any file system holds. */
const MAX_SECONDS = 2 ** 40;
const namespaces = ['user.', 'trusted.', 'security.', 'system.'];

/** Throws OBJECT_CORRUPT, PATH_ESCAPES, LIMIT_EXCEEDED or FORMAT_UNSUPPORTED. `dataLength` is that of the data blob. */
export function decodeIndex(bytes: Buffer, dataLength: number): DecodedTree {
  if (bytes.length > MAX_INDEX_BYTES) throw new StasisError('LIMIT_EXCEEDED', `the index of the tree has ${bytes.length} bytes, at most ${MAX_INDEX_BYTES} are read`);
  const decoder = new Decoder(new ByteReader(bytes));
  decoder.all(dataLength);
  return decoder;
}

class Decoder implements DecodedTree {
  kind: TreeKind = 'plain';
  readonly table = new Table();
  readonly extents = new Extents();
  readonly sets = new XattrSets();
  readonly #in: ByteReader;
  readonly #numbered: number[] = [];
  #dataLength = 0;
  #uid = 0;
  #gid = 0;
  #mode = 0;
  #seconds = 0;
  #dataAt = 0;

  constructor(reader: ByteReader) {
    this.#in = reader;
  }

  all(dataLength: number): void {
    this.#header(dataLength);
    this.#entry(-1, Buffer.alloc(0));
    if (this.table.kind[0] !== DIRECTORY) throw this.#in.corrupt('the root is not a directory');
    for (let directory = 0; directory < this.table.directories; directory++) this.#directory(directory);
    if (this.#in.varint(MAX_ENTRIES, 'the number of entries') !== this.table.count) throw this.#in.corrupt('the number of entries differs');
    if (!this.#in.bytes(END.length).equals(END) || this.#in.left > 0) throw this.#in.corrupt('it does not end where it should');
    this.#checkDisjoint();
  }

  #header(dataLength: number): void {
    const magic = this.#in.bytes(MAGIC.length);
    if (!magic.subarray(0, -1).equals(MAGIC.subarray(0, -1))) throw this.#in.corrupt('it does not begin as an index of a tree');
    if (magic.at(-1) !== MAGIC.at(-1)) {
      throw new StasisError('FORMAT_UNSUPPORTED', `the index of the tree has version ${magic.at(-1)}, this program reads version ${MAGIC.at(-1)}`, { hint: 'use a newer version of Stasis' });
    }
    const kind = this.#in.byte();
    if (kind > 1) throw this.#in.corrupt(`the kind of tree is ${kind}`);
    this.kind = kind === 1 ? 'overlay-upper' : 'plain';
    this.#dataLength = this.#in.varint(Number.MAX_SAFE_INTEGER, 'the length of the data');
    if (this.#dataLength !== dataLength) throw this.#in.corrupt(`it belongs to ${this.#dataLength} bytes of data, but there are ${dataLength}`);
  }

  #directory(directory: number): void {
    const count = this.#in.varint(Math.min(MAX_ENTRIES, this.#in.left), 'the number of names in a directory');
    this.table.childrenFrom[directory] = this.table.count;
    let previous: Buffer = Buffer.alloc(0);
    for (let i = 0; i < count; i++) {
      const shared = this.#in.varint(previous.length, 'the shared part of a name');
      const rest = this.#in.bytes(this.#in.varint(MAX_NAME_BYTES, 'the length of a name'));
      const name = Buffer.concat([previous.subarray(0, shared), rest]);
      checkName(name);
      if (Buffer.compare(previous, name) >= 0) throw this.#in.corrupt(`the name ${JSON.stringify(name.toString())} is there twice or out of order`);
      this.#entry(directory, name);
      previous = name;
    }
    this.table.childrenTo[directory] = this.table.count;
  }

  #entry(parent: number, name: Buffer): void {
    const head = this.#in.byte();
    if (head === LINK) return this.#link(parent, name);
    const kind = head & 0x0f;
    if (kind > WHITEOUT) throw this.#in.corrupt(`the kind of an entry is ${kind}`);
    const overlay = kind === WHITEOUT || (head & OPAQUE) !== 0;
    if (overlay && this.kind === 'plain') throw this.#in.corrupt('a plain tree has a mark of overlayfs');
    if ((head & OPAQUE) !== 0 && kind !== DIRECTORY) throw this.#in.corrupt('what is opaque is not a directory');
    this.table.add(parent, name, name.length, this.#inode(head, kind), -1);
  }

  #link(parent: number, name: Buffer): void {
    const first = this.#in.varint(Math.max(0, this.table.count - 1), 'the target of a hard link');
    const kind = this.table.kind[first];
    if (parent < 0 || kind === undefined || kind === DIRECTORY || kind === WHITEOUT || (this.table.twin[first] as number) >= 0) {
      throw this.#in.corrupt('a hard link refers to what cannot have one');
    }
    const { table } = this;
    const row: Row = {
      kind,
      mode: table.mode[first] as number,
      uid: table.uid[first] as number,
      gid: table.gid[first] as number,
      mtimeSeconds: table.mtimeSeconds[first] as number,
      mtimeNanoseconds: table.mtimeNanoseconds[first] as number,
      xattrs: table.xattrs[first] as number,
      a: table.a[first] as number,
      b: table.b[first] as number,
    };
    table.add(parent, name, name.length, row, first);
  }

  #inode(head: number, kind: number): Row {
    const reader = this.#in;
    if ((head & SAME_OWNER) === 0) {
      this.#uid = reader.varint(MAX_ID, 'a user id');
      this.#gid = reader.varint(MAX_ID, 'a group id');
    }
    if ((head & SAME_MODE) === 0) this.#mode = reader.varint(0o7777, 'a mode');
    this.#seconds += reader.signed(2 * MAX_SECONDS, 'a time');
    if (Math.abs(this.#seconds) > MAX_SECONDS) throw reader.corrupt('a time is out of range');
    const mtimeNanoseconds = reader.varint(999_999_999, 'the nanoseconds of a time');
    const xattrs = (head & HAS_XATTRS) === 0 ? 0 : this.#xattrs();
    const [a, b] = this.#body(head, kind);
    return { kind, mode: this.#mode, uid: this.#uid, gid: this.#gid, mtimeSeconds: this.#seconds, mtimeNanoseconds, xattrs, a, b };
  }

  #body(head: number, kind: number): readonly [number, number] {
    if (kind === FILE) return [this.#content(), 0];
    if (kind === DIRECTORY) return [0, (head & OPAQUE) === 0 ? 0 : 1];
    if (kind === CHARACTER || kind === BLOCK) return this.#device(kind);
    if (kind !== SYMLINK) return [0, 0];
    const target = this.#in.bytes(this.#in.varint(MAX_TARGET_BYTES, 'the length of a symlink'));
    if (target.length === 0 || target.includes(0)) throw this.#in.corrupt('a symlink has no possible target');
    return [this.table.texts.add(target, target.length), target.length];
  }

  #device(kind: number): readonly [number, number] {
    const major = this.#in.varint(U32, 'a device number');
    const minor = this.#in.varint(U32, 'a device number');
    if (kind === CHARACTER && major === 0 && minor === 0 && this.kind !== 'plain') throw this.#in.corrupt('a whiteout is written as a device');
    return [major, minor];
  }

  #content(): number {
    const reader = this.#in;
    const size = reader.varint(Number.MAX_SAFE_INTEGER, 'the size of a file');
    const count = reader.varint(Math.min(MAX_EXTENTS, reader.left), 'the number of data extents');
    const content = this.extents.begin(size);
    let fileAt = 0;
    for (let i = 0; i < count; i++) {
      fileAt += reader.varint(size - fileAt, 'the offset of a data extent');
      const length = reader.varint(size - fileAt, 'the length of a data extent');
      const dataAt = this.#dataAt + reader.signed(2 ** 51, 'a place in the data');
      if (length === 0 || dataAt < 0 || dataAt + length > this.#dataLength) throw reader.corrupt('a data extent lies outside of the data');
      this.extents.add(fileAt, length, dataAt);
      fileAt += length;
      this.#dataAt = dataAt + length;
    }
    return content;
  }

  #xattrs(): number {
    const number = this.#in.varint(this.#numbered.length, 'the number of an attribute set');
    if (number > 0) return this.#numbered[number - 1] as number;
    const attributes: Xattr[] = [];
    const count = this.#in.varint(MAX_XATTRS, 'the number of attributes');
    if (count === 0) throw this.#in.corrupt('an attribute set is empty');
    for (let i = 0; i < count; i++) attributes.push(this.#xattr(attributes.at(-1)));
    const set = this.sets.intern(attributes);
    this.#numbered.push(set);
    return set;
  }

  #xattr(previous: Xattr | undefined): Xattr {
    const name = Buffer.from(this.#in.bytes(this.#in.varint(MAX_XATTR_NAME_BYTES, 'the length of an attribute’s name')));
    const value = Buffer.from(this.#in.bytes(this.#in.varint(MAX_XATTR_VALUE_BYTES, 'the length of an attribute’s value')));
    const text = name.toString('latin1');
    const plausible = !name.includes(0) && namespaces.some((space) => text.startsWith(space) && text.length > space.length);
    const ordered = previous === undefined || Buffer.compare(previous.name, name) < 0;
    const allowed = this.kind === 'plain' || mayRestore(text, overlayPrefix(false));
    if (!plausible || !ordered || !allowed) throw this.#in.corrupt(`the attribute ${JSON.stringify(text)} is not possible here`);
    return { name, value };
  }

  /** Every byte of the data belongs to one file at most, so that a small archive cannot become a huge tree. */
  #checkDisjoint(): void {
    const { dataAt, length } = this.extents;
    let end = 0;
    for (const extent of this.extents.byData()) {
      if ((dataAt[extent] as number) < end) throw this.#in.corrupt('two files share a part of the data, found');
      end = (dataAt[extent] as number) + (length[extent] as number);
    }
  }
}

function checkName(name: Buffer): void {
  const dots = name.equals(Buffer.from('.')) || name.equals(Buffer.from('..'));
  if (name.length === 0 || name.length > MAX_NAME_BYTES || dots || name.includes(0) || name.includes(0x2f)) {
    throw new StasisError('PATH_ESCAPES', `the index of the tree has ${JSON.stringify(name.toString().slice(0, 80))} as the name of a file`, {
      hint: 'the checkpoint was made to write outside its place; do not trust who made it',
    });
  }
}
