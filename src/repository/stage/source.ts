/** Reads a piece into a buffer, inside a worker. */
import type { BigIntStats } from 'node:fs';
import { closeSync, constants, fstatSync, readSync } from 'node:fs';
import { errnoCode, StasisError } from '../../core/errors.ts';
import { openat2, RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS } from '../../host/libc.ts';
import type { FileList } from './file-list.ts';
import { unpackFiles } from './file-list.ts';
import type { WireSource } from './messages.ts';

export const STAT_COLUMNS = 5;
const RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
const READ_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY;
/** What a path can become while a container runs: gone, a symlink, a directory in its way, a socket, a device (EACCES: on a view mounted nodev). */
const VANISHED = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'EXDEV', 'ENXIO', 'ENODEV', 'EISDIR', 'EACCES']);

/** Fills the start of `target`. Returns the stats of the slices of a `files` source. */
export function readSource(source: WireSource, target: Buffer): BigInt64Array<ArrayBuffer> | undefined {
  switch (source.kind) {
    case 'fd': {
      const count = readFully(source.fd, target, 0, source.length, source.offset);
      if (count < source.length) {
        throw new StasisError('INTERNAL', `descriptor ${source.fd} ended ${source.length - count} bytes before byte ${source.offset + source.length}`, { hint: 'the file became shorter while it was read' });
      }
      return undefined;
    }
    case 'memory':
      // Copied first: shared memory may change between the hash and the seal.
      target.set(new Uint8Array(source.buffer, source.offset, source.length));
      return undefined;
    case 'bytes':
      target.set(source.bytes);
      return undefined;
    case 'files':
      return readFiles(source.root, source.list, target);
  }
}

function readFully(fd: number, target: Buffer, at: number, length: number, offset: number): number {
  let done = 0;
  while (done < length) {
    const count = readSync(fd, target, at + done, length - done, offset + done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

function readFiles(root: number, list: FileList, target: Buffer): BigInt64Array<ArrayBuffer> {
  const stats = new BigInt64Array(list.ends.length * STAT_COLUMNS);
  let at = 0;
  for (const file of unpackFiles(list)) {
    const seen = readFile(root, file, target, at);
    const torn = seen === undefined || seen.count < file.length;
    if (torn) target.fill(0, at + (seen?.count ?? 0), at + file.length);
    stats.set([torn ? 1n : 0n, seen?.stat.ino ?? 0n, seen?.stat.size ?? 0n, seen?.stat.mtimeNs ?? 0n, seen?.stat.ctimeNs ?? 0n], file.index * STAT_COLUMNS);
    at += file.length;
  }
  return stats;
}

function readFile(root: number, file: { path: Buffer; offset: number; length: number }, target: Buffer, at: number): { count: number; stat: BigIntStats } | undefined {
  let fd: number;
  try {
    fd = openat2(root, file.path, READ_FLAGS, 0, RESOLVE);
  } catch (error) {
    if (VANISHED.has(errnoCode(error) ?? '')) return undefined;
    throw error;
  }
  try {
    // Before the read: reading from a device or a pipe has effects.
    if (!fstatSync(fd).isFile()) return undefined;
    const count = readFully(fd, target, at, file.length, file.offset);
    return { count, stat: fstatSync(fd, { bigint: true }) };
  } finally {
    closeSync(fd);
  }
}
