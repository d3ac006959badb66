/** The saving side of a tree inside its worker: walks it, decides what must be read, and keeps the table of the last walk. */
import { constants } from 'node:fs';
import { StasisError } from '../../core/errors.ts';
import { dataExtents } from '../../host/libc.ts';
import { O_PATH, StatBuffer, XattrAccess, closeFd, isGone, openConfined, openRegular, readLink, statAt } from '../../host/tree-calls.ts';
import { MAX_FROZEN_READS, MAX_WARNINGS } from './limits.ts';
import { judge, overlayPrefix } from './overlay.ts';
import { Planner } from './planner.ts';
import { Readings, inodeKey } from './readings.ts';
import type { InodeKey } from './readings.ts';
import { BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, SOCKET, SYMLINK, Table, WHITEOUT } from './table.ts';
import type { Row, TreeKind } from './table.ts';
import { walk } from './walk.ts';
import type { Found } from './walk.ts';
import { XattrSets } from './xattrs.ts';
import type { Xattr } from './xattrs.ts';

export interface ScanOptions {
  readonly root: number;
  readonly kind: TreeKind;
  readonly userxattr: boolean;
  readonly checkCancelled: () => void;
}

const kindOfType = new Map([
  [constants.S_IFREG, FILE],
  [constants.S_IFDIR, DIRECTORY],
  [constants.S_IFLNK, SYMLINK],
  [constants.S_IFIFO, FIFO],
  [constants.S_IFSOCK, SOCKET],
  [constants.S_IFCHR, CHARACTER],
  [constants.S_IFBLK, BLOCK],
]);

/** Keyed to this host: IMA and EVM make them again, or would refuse the file elsewhere. */
const hostAttributes = new Set(['security.ima', 'security.evm']);

const here = Buffer.from('.\0');

export class TreeScan {
  readonly readings = new Readings();
  readonly sets = new XattrSets();
  readonly planner = new Planner(this.readings);
  readonly warnings: string[] = [];
  table = new Table();
  readonly #options: ScanOptions;
  readonly #prefix: string;
  readonly #home: { major: number; minor: number };
  readonly #access = new XattrAccess();
  readonly #stat = new StatBuffer();
  #twins = new Map<InodeKey, number>();
  #frozen = false;
  #attempts = 0;

  constructor(options: ScanOptions) {
    this.#options = options;
    this.#prefix = overlayPrefix(options.userxattr);
    statAt(options.root, here, this.#stat);
    this.#home = { major: this.#stat.onMajor, minor: this.#stat.onMinor };
  }

  /** One walk while the container runs: nothing of it counts but what has been read. */
  *readAhead(nowMs: number): Generator<void, void, void> {
    this.#frozen = false;
    yield* this.#walk(nowMs);
  }

  /** The walk that counts. `distrust` names files that can be written without a change of their times. */
  *delta(nowMs: number, distrust: readonly Uint8Array[]): Generator<void, void, void> {
    this.#frozen = true;
    this.#attempts = 1;
    for (const path of distrust) this.#distrust(Buffer.from(path));
    yield* this.#walk(nowMs);
  }

  *#walk(nowMs: number): Generator<void, void, void> {
    this.readings.beginRound(nowMs);
    this.table = new Table();
    this.#twins = new Map();
    this.warnings.length = 0;
    statAt(this.#options.root, here, this.#stat);
    const found = { directory: -1, dirfd: this.#options.root, directoryPath: Buffer.alloc(0) };
    this.#add(found, here, 0, this.#stat, DIRECTORY, this.#frozen ? this.#xattrs(found, here, 1) : { set: 0, opaque: false }, 0, 0);
    yield* walk(this.table, {
      root: this.#options.root,
      frozen: this.#frozen,
      checkCancelled: this.#options.checkCancelled,
      visit: (at, name, length, stat) => this.#visit(at, name, length, stat),
    });
    this.planner.flush();
  }

  #visit(found: Found, name: Buffer, length: number, stat: StatBuffer): void {
    const kind = this.#kind(stat);
    if (kind === undefined) return this.#warn(found, name, length, 'is of a type that is not known');
    if (stat.mountRoot && kind !== DIRECTORY) return this.#warn(found, name, length, 'is another mount and is left out');
    if (kind === FILE) return this.#file(found, name, length, stat);
    if (!this.#frozen) {
      if (kind === DIRECTORY) this.#add(found, name, length, stat, kind, { set: 0, opaque: false }, 0, 0);
      return;
    }
    const attributes = kind === WHITEOUT ? { set: 0, opaque: false } : this.#xattrs(found, name, length);
    if (kind === SYMLINK) {
      const target = readLink(found.dirfd, name);
      if (target === undefined) return;
      this.#add(found, name, length, stat, kind, attributes, this.table.texts.add(target, target.length), target.length);
    } else {
      const device = kind === CHARACTER || kind === BLOCK;
      this.#add(found, name, length, stat, kind, attributes, device ? stat.deviceMajor : 0, device ? stat.deviceMinor : 0);
    }
  }

  #kind(stat: StatBuffer): number | undefined {
    const kind = kindOfType.get(stat.mode & constants.S_IFMT);
    const whiteout = kind === CHARACTER && this.#options.kind === 'overlay-upper' && stat.deviceMajor === 0 && stat.deviceMinor === 0;
    return whiteout ? WHITEOUT : kind;
  }

  #file(found: Found, name: Buffer, length: number, stat: StatBuffer): void {
    const key = inodeKey(stat, this.#home);
    let content = this.readings.find(key, stat);
    if (content < 0) content = this.#read(found, name, length, stat, key);
    if (content < 0 || !this.#frozen) return;
    this.#add(found, name, length, stat, FILE, { set: this.readings.xattrs(content), opaque: false }, content, 0);
  }

  /** Plans the reading of a file. -1 when it is gone, which only happens while the container runs. */
  #read(found: Found, name: Buffer, length: number, stat: StatBuffer, key: InodeKey): number {
    const islands = this.#islands(found.dirfd, name.subarray(0, length), stat);
    if (islands === undefined) return -1;
    const content = this.readings.begin(key, stat, this.#xattrs(found, name, length).set);
    this.planner.add(content, { dirfd: found.dirfd, path: pathOf(found, name, length), name: Buffer.from(name.subarray(0, length)) }, islands);
    return content;
  }

  #islands(dirfd: number, name: Buffer, stat: StatBuffer): readonly (readonly [number, number])[] | undefined {
    if (stat.size === 0) return [];
    if (stat.allocated >= stat.size) return [[0, stat.size]];
    try {
      const fd = openRegular(dirfd, name);
      if (fd === undefined) return undefined;
      try {
        return dataExtents(fd, stat.size);
      } finally {
        closeFd(fd);
      }
    } catch (error) {
      if (!this.#frozen && isGone(error)) return undefined;
      throw error;
    }
  }

  #xattrs(found: Found, name: Buffer, length: number): { set: number; opaque: boolean } {
    const names = this.#access.list(found.dirfd, name).map((attribute) => Buffer.from(attribute));
    if (names.length === 0) return { set: 0, opaque: false };
    const kept: Xattr[] = [];
    let opaque = false;
    for (const attribute of names) {
      const text = attribute.toString('latin1');
      if (hostAttributes.has(text)) continue;
      const value = this.#access.get(found.dirfd, name, attribute);
      if (value === undefined) continue;
      if (this.#options.kind === 'overlay-upper' && text.startsWith(this.#prefix)) {
        const mark = judge(text.slice(this.#prefix.length), value, () => pathOf(found, name, length).toString());
        opaque ||= mark === 'opaque';
        if (mark !== 'keep') continue;
      }
      kept.push({ name: attribute, value });
    }
    return { set: this.sets.intern(kept), opaque };
  }

  #add(found: Found, name: Buffer, length: number, stat: StatBuffer, kind: number, attributes: { set: number; opaque: boolean }, a: number, b: number): void {
    const row: Row = {
      kind,
      mode: stat.mode & 0o7777,
      uid: stat.uid,
      gid: stat.gid,
      mtimeSeconds: stat.mtimeSeconds,
      mtimeNanoseconds: stat.mtimeNanoseconds,
      xattrs: attributes.set,
      a,
      b: kind === DIRECTORY ? Number(attributes.opaque) : b,
    };
    const linked = stat.links > 1 && kind !== DIRECTORY && kind !== WHITEOUT && this.#frozen;
    const key = linked ? inodeKey(stat, this.#home) : undefined;
    const twin = key === undefined ? -1 : (this.#twins.get(key) ?? -1);
    const entry = this.table.add(found.directory, name, length, row, twin);
    if (key !== undefined && twin < 0) this.#twins.set(key, entry);
  }

  /**
   * After the planned pieces were read: plans again what changed under the reading although the container is
   * frozen. Steps only while there is such a file; throws DUMP_FAILED when one never holds still.
   */
  *again(): Generator<void, void, void> {
    const { table, readings } = this;
    const restless: number[] = [];
    for (let entry = 0; entry < table.count; entry++) {
      if (table.kind[entry] === FILE && !readings.good(table.a[entry] as number)) restless.push(entry);
    }
    if (restless.length === 0) return;
    this.#attempts += 1;
    if (this.#attempts > MAX_FROZEN_READS) throw restlessError(table.path(restless[0] as number));
    for (const entry of restless) {
      this.#options.checkCancelled();
      this.#readAgain(entry);
      yield;
    }
    this.planner.flush();
  }

  #readAgain(entry: number): void {
    const { table } = this;
    const directory = table.parent[entry] as number;
    const directoryPath = table.directoryPath(directory);
    const dirfd = openConfined(this.#options.root, directoryPath, O_PATH | constants.O_DIRECTORY, 0);
    try {
      const length = table.nameLength[entry] as number;
      const name = Buffer.concat([table.name(entry), Buffer.of(0)]);
      const there = statAt(dirfd, name, this.#stat) && (this.#stat.mode & constants.S_IFMT) === constants.S_IFREG;
      if (!there) throw restlessError(table.path(entry));
      const found = { directory, dirfd, directoryPath };
      const key = inodeKey(this.#stat, this.#home);
      const known = this.readings.find(key, this.#stat);
      const content = known >= 0 ? known : this.#read(found, name, length, this.#stat, key);
      table.a[entry] = content;
      table.mode[entry] = this.#stat.mode & 0o7777;
      table.uid[entry] = this.#stat.uid;
      table.gid[entry] = this.#stat.gid;
      table.mtimeSeconds[entry] = this.#stat.mtimeSeconds;
      table.mtimeNanoseconds[entry] = this.#stat.mtimeNanoseconds;
      table.xattrs[entry] = this.readings.xattrs(content);
    } finally {
      closeFd(dirfd);
    }
  }

  #distrust(path: Buffer): void {
    try {
      // A process names its files from its own root, which is the root of the tree.
      const below = path[0] === 0x2f ? path.subarray(1) : path;
      const fd = openConfined(this.#options.root, below, O_PATH | constants.O_NOFOLLOW, 0);
      try {
        if (statAt(fd, Buffer.of(0), this.#stat)) this.readings.distrust(inodeKey(this.#stat, this.#home));
      } finally {
        closeFd(fd);
      }
    } catch (error) {
      if (!isGone(error)) throw error;
    }
  }

  #warn(found: Found, name: Buffer, length: number, what: string): void {
    if (this.warnings.length < MAX_WARNINGS) this.warnings.push(`${JSON.stringify(pathOf(found, name, length).toString())} ${what}`);
  }
}

function pathOf(found: Found, name: Buffer, length: number): Buffer {
  const own = name.subarray(0, length);
  return found.directoryPath.length === 0 ? Buffer.from(own) : Buffer.concat([found.directoryPath, Buffer.of(0x2f), own]);
}

function restlessError(path: Buffer): StasisError {
  return new StasisError('DUMP_FAILED', `the file ${JSON.stringify(path.toString())} kept changing while the container was frozen`, {
    hint: 'something outside the container writes to it; stop that, or leave this volume out of the checkpoint',
  });
}
