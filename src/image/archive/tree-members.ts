/**
 * The members of a tar file as a saved tree: contents go straight into the checkpoint's data blob, all else is
 * collected and becomes the tree's index. No file is made on the way, so there is nothing that a path could lead to.
 */
import { StasisError } from '../../core/errors.ts';
import type { Piece } from '../../repository/stage/port.ts';
import type { CheckpointWriter } from '../../repository/types.ts';
import { encodeIndex } from '../tree/encode.ts';
import { Extents } from '../tree/extents.ts';
import { IMPLICIT } from '../tree/overlay.ts';
import { writeIndex } from '../tree/save.ts';
import { BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, SYMLINK, Table, WHITEOUT } from '../tree/table.ts';
import type { Row, TreeKind } from '../tree/table.ts';
import { XattrSets } from '../tree/xattrs.ts';
import type { Xattr } from '../tree/xattrs.ts';
import { MAX_TREE_ENTRIES, PIECE_BYTES } from './limits.ts';
import type { NameBudget } from './limits.ts';
import { escapes, invalid, paxBytes, pathOf, shown } from './read.ts';
import type { ArchiveMember, MemberHeader } from './read.ts';

interface Inode {
  readonly row: Omit<Row, 'a' | 'b'>;
  /** Number of the content of a file. */
  readonly content: number;
  /** Of a symlink: Latin-1 text of its bytes. Small buffers would each keep a pool of 8 KiB. */
  readonly target: string | undefined;
  readonly device: readonly [number, number] | undefined;
  readonly children: Map<string, Inode> | undefined;
  opaque: boolean;
}

export interface TreeMemberCounts {
  readonly entries: number;
  readonly files: number;
  readonly dataBytes: number;
}

const kinds: Readonly<Record<string, number>> = { file: FILE, directory: DIRECTORY, symlink: SYMLINK, fifo: FIFO, 'character-device': CHARACTER, 'block-device': BLOCK };
const MAX_ID = 2 ** 32 - 2;
const MAX_SECONDS = 2 ** 40;
const MAX_TARGET_BYTES = 4095;
const XATTR = 'SCHILY.xattr.';

export class TreeMembers {
  readonly warnings: string[] = [];
  readonly #writer: CheckpointWriter;
  readonly #prefix: string;
  readonly #kind: TreeKind;
  readonly #names: NameBudget;
  readonly #extents = new Extents();
  readonly #sets = new XattrSets();
  readonly #implicit = this.#sets.intern([{ name: Buffer.from(IMPLICIT), value: Buffer.alloc(0) }]);
  readonly #root = this.#directory(this.#implicit);
  #entries = 1;
  #dataBytes = 0;

  constructor(writer: CheckpointWriter, prefix: string, kind: TreeKind, names: NameBudget) {
    this.#names = names;
    this.#writer = writer;
    this.#prefix = prefix;
    this.#kind = kind;
  }

  /** `layer`: whiteouts are files named ".wh.…", as in the layer of an image. */
  async read(members: AsyncIterable<ArchiveMember>, { layer, signal, onBytes }: { layer: boolean; signal: AbortSignal | undefined; onBytes: (count: number) => void }): Promise<void> {
    await this.#writer.append(`${this.#prefix}data`, this.#pieces(members, layer), { signal, onPiece: ({ length }) => onBytes(length) });
  }

  async *#pieces(members: AsyncIterable<ArchiveMember>, layer: boolean): AsyncGenerator<Piece> {
    let buffer = new SharedArrayBuffer(PIECE_BYTES);
    let used = 0;
    for await (const member of members) {
      const bytes = this.#add(member, layer);
      if (bytes === 0) continue;
      for await (const part of member.content) {
        for (let at = 0; at < part.length; ) {
          const count = Math.min(part.length - at, PIECE_BYTES - used);
          new Uint8Array(buffer, used, count).set(part.subarray(at, at + count));
          at += count;
          used += count;
          if (used < PIECE_BYTES) continue;
          yield { source: { kind: 'memory', buffer, offset: 0, length: used }, zeroPages: false };
          buffer = new SharedArrayBuffer(PIECE_BYTES);
          used = 0;
        }
      }
    }
    if (used > 0) yield { source: { kind: 'memory', buffer, offset: 0, length: used }, zeroPages: false };
  }

  /** Returns how many bytes of content follow. */
  #add({ path, header }: ArchiveMember, layer: boolean): number {
    const { type } = header;
    const name = path.at(-1);
    if (layer && name?.startsWith('.wh.') === true) {
      this.#whiteoutFile(path, name);
      return 0;
    }
    if (name === undefined) {
      if (type !== 'directory') throw invalid('the root of a tar file is no directory');
      this.#replaceRoot(this.#inode(header, DIRECTORY));
      return 0;
    }
    const parent = this.#parent(path);
    if (type === 'link') {
      this.#put(parent, path, this.#linked(header, path));
      return 0;
    }
    const kind = type === null ? undefined : kinds[type];
    if (kind === undefined) throw new StasisError('FORMAT_UNSUPPORTED', `the archive has ${shown(path.join('/'))}, of a kind that is not known (sparse files are not read)`, { hint: 'write it without sparse files' });
    this.#put(parent, path, this.#inode(header, kind));
    return kind === FILE ? header.size : 0;
  }

  #put(parent: Map<string, Inode>, path: readonly string[], inode: Inode): void {
    const name = path.at(-1) ?? '';
    const there = parent.get(name);
    if (there !== undefined) {
      // A directory may be spoken of after what is in it.
      if (there.children === undefined || inode.children === undefined || there.row.xattrs !== this.#implicit) throw invalid(`the archive has ${shown(path.join('/'))} twice`);
      for (const [child, below] of there.children) inode.children.set(child, below);
      inode.opaque = there.opaque;
    } else this.#count(name.length + (inode.target?.length ?? 0));
    parent.set(own(name), inode);
  }

  #count(bytes: number): void {
    this.#names.take(bytes);
    this.#entries += 1;
    if (this.#entries > MAX_TREE_ENTRIES) throw new StasisError('LIMIT_EXCEEDED', `the archive has more than ${MAX_TREE_ENTRIES} files in one tree`);
  }

  /** The directory that holds the last component; what the archive does not speak of is made, and marked so. */
  #parent(path: readonly string[]): Map<string, Inode> {
    let children = this.#root.children as Map<string, Inode>;
    for (const name of path.slice(0, -1)) {
      let next = children.get(name);
      if (next === undefined) {
        next = this.#directory(this.#implicit);
        this.#count(name.length);
        children.set(own(name), next);
      }
      if (next.children === undefined) throw escapes('a path through what is no directory', path.join('/'));
      children = next.children;
    }
    return children;
  }

  #directory(xattrs: number): Inode {
    return { row: { kind: DIRECTORY, mode: 0o755, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanoseconds: 0, xattrs }, content: 0, target: undefined, device: undefined, children: new Map(), opaque: false };
  }

  #replaceRoot(inode: Inode): void {
    Object.assign(this.#root, { row: inode.row });
  }

  #linked(header: MemberHeader, path: readonly string[]): Inode {
    const text = header.pax['linkpath'] === undefined ? (header.linkname ?? '') : paxBytes(header.pax['linkpath'], 'a link');
    const to = pathOf(text);
    let found: Inode | undefined = this.#root;
    for (const name of to) found = found?.children?.get(name);
    if (found === undefined || found.children !== undefined || found.row.kind === WHITEOUT) throw escapes('a hard link to what it does not hold', `${path.join('/')} -> ${text}`);
    return found;
  }

  #inode(header: MemberHeader, kind: number): Inode {
    const { pax } = header;
    const [mtimeSeconds, mtimeNanoseconds] = modified(header, pax);
    const row = {
      kind, mode: header.mode & 0o7777, uid: id(pax['uid'], header.uid), gid: id(pax['gid'], header.gid),
      mtimeSeconds, mtimeNanoseconds, xattrs: this.#xattrs(pax),
    };
    return {
      row, content: kind === FILE ? this.#content(header.size) : 0, target: kind === SYMLINK ? target(header, pax) : undefined,
      device: kind === CHARACTER || kind === BLOCK ? this.#device(header, kind) : undefined, children: kind === DIRECTORY ? new Map() : undefined, opaque: false,
    };
  }

  #content(size: number): number {
    const content = this.#extents.begin(size);
    if (size > 0) this.#extents.add(0, size, this.#dataBytes);
    this.#dataBytes += size;
    return content;
  }

  #device({ devmajor, devminor }: MemberHeader, kind: number): [number, number] {
    const numbers: [number, number] = [devmajor, devminor];
    if (!numbers.every((number) => Number.isInteger(number) && number >= 0 && number < 2 ** 32)) throw invalid('the archive has a device with impossible numbers');
    if (kind === CHARACTER && numbers[0] === 0 && numbers[1] === 0 && this.#kind !== 'plain') throw invalid('the archive has the device 0:0, which an overlay would take for a deletion');
    return numbers;
  }

  /** What else there may be belongs to the file system or the policy of the node that wrote it. */
  #xattrs(pax: Readonly<Record<string, string>>): number {
    const kept: Xattr[] = [];
    for (const [key, value] of Object.entries(pax)) {
      if (!key.startsWith(XATTR)) continue;
      const name = key.slice(XATTR.length);
      if (!/^user\.[^\0]{1,240}$/.test(name) && name !== 'security.capability') this.#warn(`the attribute ${shown(name)}`);
      else kept.push({ name: Buffer.from(paxBytes(name, 'an attribute'), 'latin1'), value: Buffer.from(paxBytes(value, 'an attribute'), 'latin1') });
      if (value.length > 65_536) throw new StasisError('LIMIT_EXCEEDED', 'the archive has an extended attribute larger than 64 KiB');
    }
    return this.#sets.intern(kept);
  }

  #warn(text: string): void {
    if (this.warnings.length < 100 && !this.warnings.includes(text)) this.warnings.push(text);
  }

  #whiteoutFile(path: readonly string[], name: string): void {
    if (name === '.wh..wh..opq') {
      let at = this.#root;
      const parent = path.slice(0, -1);
      this.#parent(path);
      for (const part of parent) at = at.children?.get(part) ?? at;
      at.opaque = true;
      return;
    }
    this.delete(`/${[...path.slice(0, -1), name.slice('.wh.'.length)].join('/')}`);
  }

  /** A path of the image, from the container's root, that does not exist any more. Latin-1 text of its bytes. */
  delete(text: string): void {
    const path = pathOf(text, { absolute: true });
    if (path.length === 0) throw escapes('the deletion of the root', text);
    const parent = this.#parent(path);
    const name = path.at(-1) ?? '';
    const there = parent.get(name);
    if (there !== undefined && there.row.kind !== WHITEOUT) throw invalid(`the archive has ${shown(text)}, and says that it was deleted`);
    if (there === undefined) this.#count(name.length);
    parent.set(own(name), { ...this.#directory(0), row: { ...this.#directory(0).row, kind: WHITEOUT, mode: 0 }, children: undefined });
  }

  /** Writes the index. */
  async finish({ signal }: { signal: AbortSignal | undefined }): Promise<TreeMemberCounts> {
    const encoded = encodeIndex({ table: this.#table(), extents: this.#extents, sets: this.#sets, kind: this.#kind, dataLength: this.#dataBytes });
    await writeIndex(this.#writer, this.#prefix, encoded, signal);
    return { entries: encoded.entries, files: encoded.files, dataBytes: this.#dataBytes };
  }

  #table(): Table {
    const table = new Table();
    const numbers = new Map<Inode, number>();
    const add = (parent: number, name: Buffer, inode: Inode): number => {
      const twin = numbers.get(inode) ?? -1;
      const entry = table.add(parent, name, name.length, { ...inode.row, ...places(table, inode) }, twin);
      if (twin < 0) numbers.set(inode, entry);
      return entry;
    };
    add(-1, Buffer.alloc(0), this.#root);
    const queue: Inode[] = [this.#root];
    for (let directory = 0; directory < queue.length; directory++) {
      table.childrenFrom[directory] = table.count;
      for (const [name, inode] of queue[directory]?.children ?? []) {
        add(directory, Buffer.from(name, 'latin1'), inode);
        if (inode.children !== undefined) queue.push(inode);
      }
      table.childrenTo[directory] = table.count;
    }
    return table;
  }
}

/** A copy. A part of a path keeps the whole path in memory: 4 KiB for a name of 13 bytes. */
function own(name: string): string {
  return Buffer.from(name, 'latin1').toString('latin1');
}

/** The two fields of a row that depend on its kind. */
function places(table: Table, { row: { kind }, content, target, device, opaque }: Inode): { a: number; b: number } {
  if (kind === FILE) return { a: content, b: 0 };
  if (kind === DIRECTORY) return { a: 0, b: opaque ? 1 : 0 };
  if (target !== undefined) return { a: table.texts.add(Buffer.from(target, 'latin1'), target.length), b: target.length };
  return { a: device?.[0] ?? 0, b: device?.[1] ?? 0 };
}

function target(header: MemberHeader, pax: Readonly<Record<string, string>>): string {
  const text = pax['linkpath'] === undefined ? (header.linkname ?? '') : paxBytes(pax['linkpath'], 'a link');
  if (text === '' || text.includes('\0')) throw invalid('the archive has a symlink to nothing');
  if (text.length > MAX_TARGET_BYTES) throw new StasisError('LIMIT_EXCEEDED', `the archive has a symlink of ${text.length} bytes, at most ${MAX_TARGET_BYTES} are possible`);
  return text;
}

function id(fromPax: string | undefined, fromHeader: number): number {
  const number = fromPax === undefined ? fromHeader : Number(/^\d{1,10}$/.exec(fromPax)?.[0] ?? NaN);
  if (Number.isInteger(number) && number >= 0 && number <= MAX_ID) return number;
  throw invalid(`the archive has an owner that is no id: ${shown(String(fromPax ?? fromHeader))}`);
}

function modified(header: MemberHeader, pax: Readonly<Record<string, string>>): [number, number] {
  const exact = /^(-?\d{1,13})(?:\.(\d{1,9})\d*)?$/.exec(pax['mtime'] ?? '');
  const seconds = exact === null ? Math.floor((header.mtime.getTime()) / 1000) : Number(exact[1]);
  if (!Number.isInteger(seconds) || Math.abs(seconds) > MAX_SECONDS) throw invalid('the archive has a file with an impossible time');
  const fraction = Number((exact?.[2] ?? '').padEnd(9, '0'));
  if (fraction === 0 || !(exact?.[1] ?? '').startsWith('-')) return [seconds, fraction];
  return [seconds - 1, 1_000_000_000 - fraction];
}
