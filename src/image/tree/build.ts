/**
 * The loading side of a tree inside its worker. First everything that holds no data, and the plan of where the data
 * goes; after the data has been written: hard links, owners, modes, attributes, and times last, directories after what is in them.
 * Every call names one component below a descriptor of a directory that was reached without following any link.
 */
import { constants } from 'node:fs';
import { allowsDevice, deviceOf, isWhiteout } from '../../core/devices.ts';
import { StasisError } from '../../core/errors.ts';
import { linkat, makeDevice, mkdirat, mknodat, openat2, symlinkat } from '../../host/libc.ts';
import { CONFINED, StatBuffer, XattrAccess, chmodAt, chownAt, closeFd, openConfined, statAt, truncate } from '../../host/tree-calls.ts';
import { clearDirectory, removeTree } from './clear.ts';
import type { DecodedTree } from './decode.ts';
import { plan } from './extraction-plan.ts';
import { MAX_WARNINGS } from './limits.ts';
import { IMPLICIT, mayRestore, overlayPrefix } from './overlay.ts';
import type { CreateOptions, ExtractionPlan } from './port.ts';
import { BLOCK, DIRECTORY, FIFO, FILE, SOCKET, SYMLINK, WHITEOUT } from './table.ts';

export interface BuildOptions extends CreateOptions {
  readonly checkCancelled: () => void;
}

const here = Buffer.from('.\0');
const CREATE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
const DIRECTORY_FLAGS = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

export class TreeBuilder {
  readonly warnings: string[] = [];
  readonly #tree: DecodedTree;
  readonly #options: BuildOptions;
  readonly #access = new XattrAccess();
  readonly #stat = new StatBuffer();
  /** Entries that were left out: devices. */
  readonly #skipped = new Set<number>();
  /** Directories that were there before (by number): what is in them may be in the way. */
  readonly #existing = new Set<number>([0]);
  /** By content: 1 when bytes arrive for it, 2 when its size must be set. */
  #needs: Uint8Array = new Uint8Array(0);

  constructor(tree: DecodedTree, options: BuildOptions) {
    this.#tree = tree;
    this.#options = options;
  }

  /** Everything but the data of files and what must come after it. */
  create(): ExtractionPlan {
    const { table, extents } = this.#tree;
    const planned = plan(table, extents, this.#options.zeroRuns);
    this.#needs = planned.needs;
    for (let directory = 0; directory < table.directories; directory++) {
      this.#options.checkCancelled();
      this.#inDirectory(directory, (dirfd) => {
        if (directory === 0 && this.#options.merge && table.b[0] === 1) clearDirectory(dirfd);
        const [from, to] = [table.childrenFrom[directory] as number, table.childrenTo[directory] as number];
        const crowded = this.#options.merge && this.#existing.has(directory);
        for (let entry = from; entry < to; entry++) this.#createEntry(dirfd, entry, crowded);
      });
    }
    return planned.plan;
  }

  #createEntry(dirfd: number, entry: number, crowded: boolean): void {
    const { table } = this.#tree;
    const name = table.name(entry);
    const kind = table.kind[entry] as number;
    if (kind === DIRECTORY) return this.#createDirectory(dirfd, entry, name, crowded);
    if (crowded) removeTree(dirfd, name);
    if ((table.twin[entry] as number) >= 0) return;
    if (kind === FILE) this.#createEmpty(dirfd, entry, name);
    else if (kind === SYMLINK) symlinkat(table.target(entry), dirfd, name);
    else if (kind === FIFO) mknodat(dirfd, name, constants.S_IFIFO | 0o600, 0n);
    else if (kind === SOCKET) mknodat(dirfd, name, constants.S_IFSOCK | 0o600, 0n);
    else if (kind === WHITEOUT) {
      if (!this.#options.merge) mknodat(dirfd, name, constants.S_IFCHR, 0n);
    } else this.#createDevice(dirfd, entry, name, kind);
  }

  #createDirectory(dirfd: number, entry: number, name: Buffer, crowded: boolean): void {
    const { table } = this.#tree;
    if (crowded && statAt(dirfd, terminated(name), this.#stat)) {
      if ((this.#stat.mode & constants.S_IFMT) === constants.S_IFDIR && table.b[entry] !== 1) {
        this.#existing.add(table.a[entry] as number);
        return;
      }
      // Its files would land somewhere else than where the archive had them.
      if (this.#isImplicit(entry) && (this.#stat.mode & constants.S_IFMT) !== constants.S_IFDIR) throw new StasisError('RESTORE_FAILED', `${JSON.stringify(table.path(entry).toString())} is no directory here, and the archive has files below it`, { hint: 'restore with a bundle of the same image' });
      removeTree(dirfd, name);
    }
    mkdirat(dirfd, name, 0o700);
  }

  /** Files that get data are created with it. The others are nothing but a size. */
  #createEmpty(dirfd: number, entry: number, name: Buffer): void {
    const content = this.#tree.table.a[entry] as number;
    if ((this.#needs[content] as number) & 1) return;
    const fd = openat2(dirfd, name, CREATE, 0o600, CONFINED);
    try {
      const size = this.#tree.extents.size[content] as number;
      if (size > 0) truncate(fd, size);
    } finally {
      closeFd(fd);
    }
  }

  #createDevice(dirfd: number, entry: number, name: Buffer, kind: number): void {
    const { table } = this.#tree;
    const device = deviceOf(kind === BLOCK, table.a[entry] as number, table.b[entry] as number);
    const what = `${JSON.stringify(table.path(entry).toString())}, the ${device.kind} device `
      + `${device.major}:${device.minor}, was left out`;
    try {
      if (isWhiteout(device) || allowsDevice(this.#options.devices, device)) {
        const type = kind === BLOCK ? constants.S_IFBLK : constants.S_IFCHR;
        mknodat(dirfd, name, type | 0o600, makeDevice(device.major, device.minor));
        return;
      }
      this.#warn(`${what}: the container may not have it`);
    } catch (error) {
      if ((error as { code?: string }).code !== 'EPERM') throw error;
      this.#warn(`${what}: the agent may not make it (CAP_MKNOD, or it runs in a user namespace)`);
    }
    this.#skipped.add(entry);
  }

  /** After the data has been written. */
  complete(): void {
    const { table } = this.#tree;
    for (let directory = 0; directory < table.directories; directory++) this.#completeDirectory(directory);
    for (let directory = table.directories - 1; directory >= 0; directory--) {
      const entry = table.directoryEntry[directory] as number;
      this.#inDirectory(directory, (dirfd) => {
        const there = this.#options.merge && this.#existing.has(directory);
        if (there && this.#isImplicit(entry)) return;
        if (there) this.#removeXattrs(dirfd, entry);
        this.#setMetadata(dirfd, here, entry);
        if (table.b[entry] === 1 && !this.#options.merge) this.#access.set(dirfd, here, Buffer.from(`${overlayPrefix(this.#options.userxattr)}opaque`), Buffer.from('y'));
      });
    }
  }

  #completeDirectory(directory: number): void {
    const { table } = this.#tree;
    this.#options.checkCancelled();
    const [from, to] = [table.childrenFrom[directory] as number, table.childrenTo[directory] as number];
    if (from === to) return;
    this.#inDirectory(directory, (dirfd) => {
      for (let entry = from; entry < to; entry++) {
        const kind = table.kind[entry];
        if (kind === DIRECTORY || (kind === WHITEOUT && this.#options.merge)) continue;
        if ((table.twin[entry] as number) >= 0) this.#link(dirfd, entry);
        else if (!this.#skipped.has(entry)) this.#completeEntry(dirfd, entry);
      }
    });
  }

  #completeEntry(dirfd: number, entry: number): void {
    const { table, extents } = this.#tree;
    const name = terminated(table.name(entry));
    const content = table.a[entry] as number;
    if (table.kind[entry] === FILE && ((this.#needs[content] as number) & 2) !== 0) {
      const fd = openat2(dirfd, table.name(entry), constants.O_WRONLY | constants.O_NOFOLLOW, 0, CONFINED);
      try {
        truncate(fd, extents.size[content] as number);
      } finally {
        closeFd(fd);
      }
    }
    this.#setMetadata(dirfd, name, entry);
  }

  /** To an entry of this tree that was made in this run, so it cannot lead out of it. Its own metadata is set where it stands first. */
  #link(dirfd: number, entry: number): void {
    const { table } = this.#tree;
    const first = table.twin[entry] as number;
    if (this.#skipped.has(first)) {
      this.#warn(`${JSON.stringify(table.path(entry).toString())} is another name of a device that was left out`);
      return;
    }
    this.#inDirectory(table.parent[first] as number, (from) => linkat(from, table.name(first), dirfd, table.name(entry)));
  }

  #setMetadata(dirfd: number, name: Buffer, entry: number): void {
    const { table, sets } = this.#tree;
    chownAt(dirfd, name, table.uid[entry] as number, table.gid[entry] as number);
    const xattrs = table.xattrs[entry] as number;
    if (xattrs !== 0) for (const { name: attribute, value } of sets.get(xattrs)) this.#setXattr(dirfd, name, entry, attribute, value);
    // After chown, which clears setuid; Linux knows no mode of a symlink.
    if (table.kind[entry] !== SYMLINK) chmodAt(dirfd, name, table.mode[entry] as number);
    this.#access.setModified(dirfd, name, table.mtimeSeconds[entry] as number, table.mtimeNanoseconds[entry] as number);
  }

  #isImplicit(entry: number): boolean {
    const set = this.#tree.table.xattrs[entry] as number;
    return set !== 0 && this.#tree.sets.get(set).some(({ name }) => name.toString('latin1') === IMPLICIT);
  }

  #setXattr(dirfd: number, name: Buffer, entry: number, attribute: Buffer, value: Buffer): void {
    const text = attribute.toString('latin1');
    if (text === IMPLICIT) return;
    if (this.#options.userxattr && !mayRestore(text, overlayPrefix(true))) {
      throw new StasisError('OBJECT_CORRUPT', `the tree has the attribute ${JSON.stringify(text)}, a mark of overlayfs that no checkpoint holds`);
    }
    try {
      this.#access.set(dirfd, name, attribute, value);
    } catch (error) {
      const code = (error as { code?: string }).code ?? '';
      const path = JSON.stringify(this.#tree.table.path(entry).toString());
      // A label belongs to the policy of a node; everything else is content.
      if (text === 'security.selinux' && ['EOPNOTSUPP', 'ENOTSUP', 'EINVAL', 'EPERM'].includes(code)) return this.#warn(`${path} did not get its SELinux label: ${code}`);
      throw new StasisError('RESTORE_FAILED', `the extended attribute ${JSON.stringify(text)} of ${path} cannot be set: ${code}`, {
        cause: error,
        hint: 'restore to a file system that has extended attributes of this kind and room for them (ext4, xfs, btrfs)',
      });
    }
  }

  #removeXattrs(dirfd: number, entry: number): void {
    const wanted = new Set(this.#tree.sets.get(this.#tree.table.xattrs[entry] as number).map((x) => x.name.toString('latin1')));
    for (const attribute of this.#access.list(dirfd, here).map((name) => Buffer.from(name))) {
      const text = attribute.toString('latin1');
      if (!wanted.has(text) && text !== 'security.selinux') this.#access.remove(dirfd, here, attribute);
    }
  }

  #inDirectory(directory: number, use: (dirfd: number) => void): void {
    const dirfd = openConfined(this.#options.root, this.#tree.table.directoryPath(directory), DIRECTORY_FLAGS, 0);
    try {
      use(dirfd);
    } finally {
      closeFd(dirfd);
    }
  }

  #warn(text: string): void {
    if (this.warnings.length < MAX_WARNINGS) this.warnings.push(text);
  }
}

function terminated(name: Buffer): Buffer {
  return Buffer.concat([name, Buffer.of(0)]);
}
