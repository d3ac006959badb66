/**
 * Who writes into a directory: a locked file per open store. Temporary files carry its name, so a later
 * start can tell a dead writer's left-overs (its lock is free) from those of a living one on another node.
 */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { open, readdir, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { tryLock } from '../../host/libc.ts';

const TEMPORARY = /^\.tmp-([0-9a-f]{16})-\d+$/;
const LOCK = /^\.writer-([0-9a-f]{16})$/;

export class DirectoryWriter {
  readonly #digits: string;
  readonly #path: string;
  readonly #lock: FileHandle;
  #count = 0;

  private constructor(digits: string, path: string, lock: FileHandle) {
    this.#digits = digits;
    this.#path = path;
    this.#lock = lock;
  }

  static async open(directory: string, folders: readonly string[]): Promise<DirectoryWriter> {
    await removeStale(directory, folders);
    for (;;) {
      const digits = randomBytes(8).toString('hex');
      const path = join(directory, `.writer-${digits}`);
      const lock = await open(path, 'wx', 0o600);
      // Another start may have seen the file before it was locked, and taken it for a dead one's.
      if (tryLock(lock.fd) && (await sameFile(path, lock))) return new DirectoryWriter(digits, path, lock);
      await lock.close();
    }
  }

  temporaryName(): string {
    return `.tmp-${this.#digits}-${this.#count++}`;
  }

  async close(): Promise<void> {
    await unlink(this.#path).catch(() => undefined);
    await this.#lock.close();
  }
}

async function sameFile(path: string, file: FileHandle): Promise<boolean> {
  const [there, here] = await Promise.all([stat(path).catch(() => undefined), file.stat()]);
  return there !== undefined && there.ino === here.ino && there.dev === here.dev;
}

async function removeStale(directory: string, folders: readonly string[]): Promise<void> {
  for (const entry of await readdir(directory)) {
    const digits = LOCK.exec(entry)?.[1];
    if (digits === undefined) continue;
    const path = join(directory, entry);
    const lock = await open(path, constants.O_RDWR | constants.O_NOFOLLOW).catch(() => undefined);
    if (lock === undefined) continue;
    try {
      if (!tryLock(lock.fd)) continue;
      // The lock file goes last: while it is there, a crash here leaves the rest for the next start.
      await removeTemporaries(directory, folders, digits);
      await unlink(path).catch(() => undefined);
    } finally {
      await lock.close();
    }
  }
}

async function removeTemporaries(directory: string, folders: readonly string[], digits: string): Promise<void> {
  for (const folder of folders) {
    for (const entry of await readdir(join(directory, folder))) {
      if (TEMPORARY.exec(entry)?.[1] === digits) await unlink(join(directory, folder, entry)).catch(() => undefined);
    }
  }
}
