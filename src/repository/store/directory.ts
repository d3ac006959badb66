/**
 * Objects as files below a directory. An object is written beside its place, flushed, renamed and its
 * directory flushed, so it is whole and durable or not there. Several agents may share the directory.
 */
import { constants } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { lstat, mkdir, open, readdir, rename, statfs, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoCode, StasisError } from '../../core/errors.ts';
import { ordered } from '../../core/ordered.ts';
import { isObjectName, isObjectPrefix } from '../format/names.ts';
import { DirectorySync } from './directory-sync.ts';
import { DirectoryWriter } from './directory-writer.ts';
import { storeError, tooShort } from './errors.ts';
import type { ObjectInfo, Store } from './store.ts';

/** Files that are looked at at the same time, when many are listed. */
const LOOKS = 32;
const FOLDERS = ['packs', 'manifests', 'lineages', 'writers', 'pins'] as const;

export interface DirectoryStore extends Store {
  /** Gives up the claim on temporary files. The objects stay. */
  close(): Promise<void>;
}

/** Makes the directory (0700) if needed and removes what dead writers left half-written. A read-only volume can be opened for reading. */
export async function openDirectoryStore(directory: string): Promise<DirectoryStore> {
  try {
    for (const folder of FOLDERS) await mkdir(join(directory, folder), { recursive: true, mode: 0o700 });
    const writer = await DirectoryWriter.open(directory, FOLDERS);
    return new FileStore(directory, writer);
  } catch (error) {
    if (errnoCode(error) === 'EROFS') return new FileStore(directory, undefined);
    throw storeError(error, directory, 'open the repository directory');
  }
}

class FileStore implements DirectoryStore {
  readonly description: string;
  readonly #root: string;
  /** Absent on a read-only volume. */
  readonly #writer: DirectoryWriter | undefined;
  readonly #sync: DirectorySync;

  constructor(root: string, writer: DirectoryWriter | undefined) {
    this.description = `directory:${root}`;
    this.#root = root;
    this.#writer = writer;
    this.#sync = new DirectorySync();
  }

  async put(name: string, parts: readonly Uint8Array[], { signal }: { signal: AbortSignal | undefined }): Promise<void> {
    signal?.throwIfAborted();
    const path = this.#path(name);
    const folder = path.slice(0, path.lastIndexOf('/'));
    if (this.#writer === undefined) throw new StasisError('STORE_READ_ONLY', `cannot write ${name}: ${this.#root} is on a read-only file system`, { hint: 'remount it read-write' });
    const temporary = join(folder, this.#writer.temporaryName());
    try {
      await writeDurably(temporary, parts, signal);
      await rename(temporary, path);
    } catch (error) {
      await unlink(temporary).catch(() => undefined);
      signal?.throwIfAborted();
      throw storeError(error, name, 'write');
    }
    try {
      await this.#sync.sync(folder);
    } catch (error) {
      // Nobody was told that it is there, so it must not be.
      await unlink(path).catch(() => undefined);
      throw storeError(error, name, 'write');
    }
  }

  async get(name: string, range: { offset: number; length: number } | undefined, { signal, into }: { signal: AbortSignal | undefined; into?: Uint8Array }): Promise<Uint8Array> {
    signal?.throwIfAborted();
    const path = this.#path(name);
    try {
      const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      try {
        return await readRange(name, file, range, into);
      } finally {
        await file.close();
      }
    } catch (error) {
      throw storeError(error, name, 'read');
    }
  }

  async head(name: string, { signal }: { signal: AbortSignal | undefined }): Promise<ObjectInfo | undefined> {
    signal?.throwIfAborted();
    try {
      const info = await lstat(this.#path(name));
      return info.isFile() ? { name, size: info.size, modifiedMs: info.mtimeMs } : undefined;
    } catch (error) {
      if (errnoCode(error) === 'ENOENT') return undefined;
      throw storeError(error, name, 'look at');
    }
  }

  async *list(prefix: string, { signal }: { signal: AbortSignal | undefined }): AsyncIterable<ObjectInfo> {
    signal?.throwIfAborted();
    if (!isObjectPrefix(prefix)) throw new StasisError('PATH_ESCAPES', `${JSON.stringify(prefix)} is not a prefix of objects`);
    const folder = prefix.slice(0, prefix.indexOf('/') + 1);
    const names = await readdir(join(this.#root, folder)).catch((error: unknown) => {
      if (errnoCode(error) === 'ENOENT') return [];
      throw storeError(error, prefix, 'list');
    });
    const wanted = names.map((entry) => folder + entry).filter((entry) => entry.startsWith(prefix) && isObjectName(entry)).sort();
    for await (const info of ordered(wanted, LOOKS, (name) => this.head(name, { signal }))) if (info !== undefined) yield info;
  }

  async delete(name: string, { signal }: { signal: AbortSignal | undefined }): Promise<void> {
    signal?.throwIfAborted();
    const path = this.#path(name);
    try {
      await unlink(path);
      await this.#sync.sync(path.slice(0, path.lastIndexOf('/')));
    } catch (error) {
      if (errnoCode(error) !== 'ENOENT') throw storeError(error, name, 'delete');
    }
  }

  async freeBytes(): Promise<number | undefined> {
    const info = await statfs(this.#root);
    return info.bavail * info.bsize;
  }

  async close(): Promise<void> {
    await this.#writer?.close();
  }

  #path(name: string): string {
    if (!isObjectName(name)) throw new StasisError('PATH_ESCAPES', `${JSON.stringify(name)} is not the name of an object`);
    return join(this.#root, name);
  }
}

async function writeDurably(path: string, parts: readonly Uint8Array[], signal: AbortSignal | undefined): Promise<void> {
  const file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600);
  try {
    for (const part of parts) {
      for (let at = 0; at < part.length; ) {
        signal?.throwIfAborted();
        at += (await file.write(part, at, Math.min(part.length - at, WRITE_BYTES), null)).bytesWritten;
      }
    }
    // The length counts as data here: fdatasync flushes it, and leaves the times alone.
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** Short enough to be cancelled between two writes. */
const WRITE_BYTES = 4 * 1024 * 1024;

async function readRange(name: string, file: FileHandle, range: { offset: number; length: number } | undefined, into: Uint8Array | undefined): Promise<Uint8Array> {
  const wanted = range ?? { offset: 0, length: await sizeOf(name, file) };
  const target = into?.subarray(0, wanted.length) ?? Buffer.allocUnsafeSlow(wanted.length);
  for (let at = 0; at < wanted.length; ) {
    const { bytesRead } = await file.read(target, at, wanted.length - at, wanted.offset + at);
    if (bytesRead === 0) throw tooShort(name, (await file.stat()).size, wanted);
    at += bytesRead;
  }
  return target;
}

/** The most that is read without a range: a manifest. Packs are read by ranges. */
const WHOLE_BYTES = 80 * 1024 * 1024;

async function sizeOf(name: string, file: FileHandle): Promise<number> {
  const info = await file.stat();
  if (info.size > WHOLE_BYTES) throw new StasisError('LIMIT_EXCEEDED', `${name} has ${info.size} bytes; at most ${WHOLE_BYTES} are read at once`, { details: { object: name } });
  return info.size;
}

