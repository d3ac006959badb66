/** Everything about a tree of files that a user could notice, as comparable text, read by other means than the code under test. */
import { createHash } from 'node:crypto';
import { closeSync, constants, lstatSync, openSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { dataExtents, lgetxattr, llistxattr } from '../../src/host/libc.ts';

export interface SnapshotOptions {
  /** Names (latin1) of attributes that do not count. */
  readonly ignoreXattrs?: (name: string) => boolean;
  /** Where the holes are. File systems round: only for trees that were made for it. */
  readonly holes?: boolean;
  readonly ignoreTimes?: boolean;
}

/** Path (latin1) → description. */
export function snapshot(root: string, options: SnapshotOptions = {}): Map<string, string> {
  const found = new Map<string, string>();
  const inodes = new Map<bigint, string>();
  const visit = (path: Buffer, name: string): void => {
    const stat = lstatSync(path, { bigint: true });
    const parts = [`mode ${stat.mode.toString(8)}`, `owner ${stat.uid}:${stat.gid}`];
    if (options.ignoreTimes !== true) parts.push(`mtime ${stat.mtimeNs}`);
    // overlayfs makes all its whiteouts one inode, to save inodes.
    const whiteout = stat.isCharacterDevice() && stat.rdev === 0n;
    if (!stat.isDirectory() && !whiteout && stat.nlink > 1n) {
      const first = inodes.get(stat.ino) ?? name;
      inodes.set(stat.ino, first);
      parts.push(`same as ${first}`);
    }
    if (stat.isCharacterDevice() || stat.isBlockDevice()) parts.push(`rdev ${stat.rdev}`);
    if (stat.isSymbolicLink()) parts.push(`to ${readlinkSync(path, 'latin1')}`);
    if (stat.isFile()) parts.push(...fileParts(path, Number(stat.size), options));
    parts.push(...xattrParts(path, options));
    found.set(name, parts.join(', '));
    if (stat.isDirectory()) {
      for (const child of readdirSync(path, { encoding: 'buffer' }).toSorted(Buffer.compare)) {
        visit(Buffer.concat([path, Buffer.from('/'), child]), name === '' ? child.toString('latin1') : `${name}/${child.toString('latin1')}`);
      }
    }
  };
  visit(Buffer.from(root), '');
  return found;
}

function fileParts(path: Buffer, size: number, options: SnapshotOptions): string[] {
  const parts = [`size ${size}`];
  if (size <= 64 * 1024 * 1024) parts.push(`sha ${createHash('sha256').update(readFileSync(path)).digest('hex').slice(0, 16)}`);
  if (options.holes === true) {
    const fd = openSync(path, constants.O_RDONLY);
    parts.push(`data ${JSON.stringify(dataExtents(fd, size))}`);
    closeSync(fd);
  }
  return parts;
}

function xattrParts(path: Buffer, options: SnapshotOptions): string[] {
  return llistxattr(path)
    .map((name) => Buffer.from(name))
    .filter((name) => options.ignoreXattrs?.(name.toString('latin1')) !== true)
    .toSorted(Buffer.compare)
    .map((name) => `${name.toString('latin1')}=${lgetxattr(path, name)?.toString('hex') ?? ''}`);
}
