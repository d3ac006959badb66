/**
 * Staging: a private tmpfs for plaintext on its way between criu and the repository. It is bounded, is never swapped
 * where the kernel can promise that (6.4), and its space is there, and touched, before anything is frozen.
 */
import { statfsSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { freemem, totalmem } from 'node:os';
import { join } from 'node:path';
import { StasisError, asStasisError, errnoCode } from '../core/errors.ts';
import type { OperationId } from '../core/ids.ts';
import { MiB, formatBytes } from '../core/units.ts';
import { listDirectory, makePrivateDirectory } from './files.ts';
import { MNT_DETACH, MS_NODEV, MS_NOEXEC, MS_NOSUID, mount, umount } from './libc.ts';
import { readMountinfo } from './mountinfo.ts';

export interface Reservation {
  /** Gives the memory to whoever writes next: right before the dump. Twice is fine. */
  release(): Promise<void>;
  /** After release: takes it back, or a part of it, and touches it again, when what was written meanwhile is gone. Throws NO_SPACE. */
  refill(options: { signal: AbortSignal | undefined; bytes?: number | undefined }): Promise<void>;
}

export interface StagingArea extends AsyncDisposable {
  /** Empty directory of one operation, mode 0700. */
  readonly directory: string;
  /**
   * Allocates and touches `bytes` and holds them until release; they stay this operation's until it ends.
   * Throws NO_SPACE (staging) or NO_MEMORY (machine) with the sizes.
   */
  reserve(bytes: number, options: { signal: AbortSignal | undefined }): Promise<Reservation>;
  /** Books `bytes` for this operation without touching them. Throws like reserve. */
  require(bytes: number, options: { signal: AbortSignal | undefined }): Promise<void>;
}

export interface Staging extends AsyncDisposable {
  readonly sizeBytes: number;
  /** False where a page of it could reach a swap device: the kernel knows no noswap. */
  readonly unswappable: boolean;
  usedBytes(): number;
  /** What no operation uses or has booked. */
  availableBytes(): number;
  /** The first one removes what a dead agent left, so recovery must have looked at it before. */
  open(operation: OperationId): Promise<StagingArea>;
  /** Removes every directory that was not opened by this process. */
  sweep(): Promise<void>;
}

const MS_REMOUNT = 32;
/**
 * Large pages shorten a dump; the least wanted option is given up first. Not huge=always: it gives a whole huge page to each
 * of the small images, and CRIU writes about eight of them for a process (500 processes: 7 GiB for nothing).
 */
const OPTIONS = [['huge=within_size', 'noswap'], ['noswap'], ['huge=within_size'], []] as const;

/** Creates or takes over the file system at `directory`. Only one agent may use it: the caller holds the lock of the agent. */
export async function openStaging(directory: string, { sizeBytes }: { sizeBytes: number }): Promise<Staging> {
  makePrivateDirectory(directory);
  const present = readMountinfo('self').findLast(({ mountPoint }) => mountPoint === directory);
  if (present !== undefined && present.fsType !== 'tmpfs') {
    throw new StasisError('CONFIG_INVALID', `${directory} is a mount point of ${present.fsType}`, { hint: 'staging needs a directory of its own' });
  }
  if (present === undefined) mountTmpfs(directory, sizeBytes);
  else resize(directory, sizeBytes);
  return new TmpfsStaging(directory, sizeBytes);
}

function mountTmpfs(directory: string, sizeBytes: number): void {
  for (const extra of OPTIONS) {
    try {
      mount('stasis', directory, 'tmpfs', MS_NOSUID | MS_NODEV | MS_NOEXEC, ['mode=0700', `size=${sizeBytes}`, ...extra].join(','));
      return;
    } catch (error) {
      if (extra.length > 0 && errnoCode(error) === 'EINVAL') continue;
      throw asStasisError(error, `staging cannot be mounted at ${directory}`);
    }
  }
}

/** True when it worked; it cannot while what a dead agent left takes more than the new size. */
function resize(directory: string, sizeBytes: number): boolean {
  try {
    mount('stasis', directory, 'tmpfs', MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOEXEC, `size=${sizeBytes}`);
    return true;
  } catch (error) {
    if (errnoCode(error) === 'EINVAL') return false;
    throw asStasisError(error, `staging at ${directory} cannot be resized`);
  }
}

class TmpfsStaging implements Staging {
  readonly sizeBytes: number;
  readonly unswappable: boolean;
  readonly #directory: string;
  readonly #areas = new Map<string, Area>();
  #swept = false;

  constructor(directory: string, sizeBytes: number) {
    this.#directory = directory;
    this.sizeBytes = sizeBytes;
    const mounted = readMountinfo('self').findLast(({ mountPoint }) => mountPoint === directory);
    this.unswappable = mounted?.superOptions.includes('noswap') ?? false;
  }

  usedBytes(): number {
    const { blocks, bfree, bsize } = statfsSync(this.#directory);
    return (blocks - bfree) * bsize;
  }

  availableBytes(): number {
    const booked = [...this.#areas.values()].reduce((sum, area) => sum + area.bookedBytes, 0);
    return Math.max(0, this.sizeBytes - Math.max(booked, this.usedBytes()));
  }

  async open(operation: OperationId): Promise<StagingArea> {
    if (!this.#swept) await this.sweep();
    if (this.#areas.has(operation)) throw new StasisError('INTERNAL', `operation ${operation} has staging already`);
    const directory = join(this.#directory, operation);
    const area = new Area(directory, this, () => this.#areas.delete(operation));
    this.#areas.set(operation, area);
    await rm(directory, { recursive: true, force: true });
    makePrivateDirectory(directory);
    return area;
  }

  async sweep(): Promise<void> {
    this.#swept = true;
    for (const name of listDirectory(this.#directory)) {
      if (!this.#areas.has(name)) await rm(join(this.#directory, name), { recursive: true, force: true });
    }
    resize(this.#directory, this.sizeBytes);
  }

  /** What is in it is gone with the last process that has it open. */
  async [Symbol.asyncDispose](): Promise<void> {
    umount(this.#directory, MNT_DETACH);
  }
}

class Area implements StagingArea {
  readonly directory: string;
  bookedBytes = 0;
  readonly #staging: Staging;
  readonly #forget: () => void;
  #balloons = 0;

  constructor(directory: string, staging: Staging, forget: () => void) {
    this.directory = directory;
    this.#staging = staging;
    this.#forget = forget;
  }

  async require(bytes: number): Promise<void> {
    this.#book(bytes);
  }

  async reserve(bytes: number, { signal }: { signal: AbortSignal | undefined }): Promise<Reservation> {
    this.#book(bytes);
    try {
      const balloon = new Balloon(join(this.directory, `reserved-${this.#balloons++}`), bytes);
      await balloon.refill({ signal });
      return balloon;
    } catch (error) {
      this.bookedBytes -= bytes;
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
    this.#forget();
  }

  #book(bytes: number): void {
    const available = this.#staging.availableBytes();
    if (bytes > available) {
      throw new StasisError('NO_SPACE', `${formatBytes(bytes)} of staging memory are needed, ${formatBytes(available)} of ${formatBytes(this.#staging.sizeBytes)} are free`, {
        hint: bytes > this.#staging.sizeBytes ? 'raise staging.size' : 'wait until other operations have ended, or raise staging.size',
        details: { needed: bytes, available },
      });
    }
    requireMemory(bytes);
    this.bookedBytes += bytes;
  }
}

/** Left to the machine, so that filling the staging does not bring the kernel to kill somebody. */
const MEMORY_MARGIN_BYTES = Math.max(256 * MiB, totalmem() / 64);

function requireMemory(bytes: number): void {
  const available = freemem();
  if (bytes + MEMORY_MARGIN_BYTES <= available) return;
  throw new StasisError('NO_MEMORY', `${formatBytes(bytes)} of memory are needed for staging, and the machine has ${formatBytes(available)} available, of which ${formatBytes(MEMORY_MARGIN_BYTES)} are left alone`, {
    hint: 'free memory on this node, or let the memory path be page-server, which needs less',
    details: { needed: bytes, available },
  });
}

/** Two threads of the pool fill it: memory that a virtual machine never used comes at a fifth of the speed of the rest. */
const WRITERS = 2;
const STEP_BYTES = 4 * MiB;
/** Others take memory too: look again this often. */
const CHECK_BYTES = 256 * MiB;

/** A file of zeros that holds the place. Written rather than fallocated: that runs in the threads of the pool and is as fast. */
class Balloon implements Reservation {
  readonly #path: string;
  readonly #bytes: number;
  #file: FileHandle | undefined;

  constructor(path: string, bytes: number) {
    this.#path = path;
    this.#bytes = bytes;
  }

  async refill({ signal, bytes: wanted = this.#bytes }: { signal: AbortSignal | undefined; bytes?: number | undefined }): Promise<void> {
    const bytes = Math.min(wanted, this.#bytes);
    const file = await open(this.#path, 'wx', 0o600);
    this.#file = file;
    const zeros = Buffer.alloc(Math.min(STEP_BYTES, bytes));
    let next = 0;
    const fill = async (): Promise<void> => {
      while (next < bytes) {
        signal?.throwIfAborted();
        const at = next;
        next += STEP_BYTES;
        if (at % CHECK_BYTES === 0) requireMemory(bytes - at);
        await writeAll(file, zeros.subarray(0, Math.min(STEP_BYTES, bytes - at)), at);
      }
    };
    const results = await Promise.allSettled(Array.from({ length: WRITERS }, fill));
    const failed = results.find((result) => result.status === 'rejected');
    if (failed === undefined) return;
    await this.release();
    throw asStasisError(failed.reason, 'reserving staging memory');
  }

  async release(): Promise<void> {
    const file = this.#file;
    if (file === undefined) return;
    this.#file = undefined;
    await file.truncate(0);
    await file.close();
    await rm(this.#path, { force: true });
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await file.write(bytes, at, bytes.length - at, position + at)).bytesWritten;
}
