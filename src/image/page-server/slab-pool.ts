/** Staging memory for pages on their way from criu to the repository: a fixed number of slabs, touched before they are needed. */
import { setImmediate } from 'node:timers/promises';
import { StasisError } from '../../core/errors.ts';
import { MiB } from '../../core/units.ts';

export interface Slab {
  readonly buffer: SharedArrayBuffer;
  readonly bytes: Uint8Array;
}

/** At the end of a slab up to one piece (1 MiB) moves on to the next one: 3 % of the bytes are copied twice. */
const SLAB_BYTES = 32 * MiB;
/** A slab must hold more than the uncut rest of the one before; and there must be several to overlap. */
const MIN_SLAB_BYTES = 4 * MiB;
const MIN_SLABS = 4;
const PAGE = 4096;

/** Shared by all dumps of an agent; who finds it empty waits until slabs come back. */
export class SlabPool {
  readonly slabBytes: number;
  readonly totalBytes: number;
  readonly #free: Slab[];
  readonly #waiting = new Set<() => void>();

  private constructor(slabs: Slab[], slabBytes: number) {
    this.#free = slabs;
    this.slabBytes = slabBytes;
    this.totalBytes = slabs.length * slabBytes;
  }

  /** `bytes` are rounded down to whole slabs. Throws CONFIG_INVALID below 16 MiB. */
  static async create(bytes: number, { signal }: { signal: AbortSignal | undefined }): Promise<SlabPool> {
    const slabBytes = Math.min(SLAB_BYTES, Math.floor(bytes / MIN_SLABS / MiB) * MiB);
    if (slabBytes < MIN_SLAB_BYTES) {
      throw new StasisError('CONFIG_INVALID', `${bytes} bytes of staging memory are too little for a page server`, { hint: 'give it at least 16 MiB' });
    }
    const slabs: Slab[] = [];
    for (let i = 0; i < Math.floor(bytes / slabBytes); i++) {
      const buffer = new SharedArrayBuffer(slabBytes);
      slabs.push({ buffer, bytes: new Uint8Array(buffer) });
    }
    for (const slab of slabs) await touch(slab, signal);
    return new SlabPool(slabs, slabBytes);
  }

  take(): Slab | undefined {
    return this.#free.pop();
  }

  give(slab: Slab): void {
    this.#free.push(slab);
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }

  /** Calls `wake` once when a slab has come back. Returns how to give up waiting. */
  onFree(wake: () => void): () => void {
    this.#waiting.add(wake);
    return () => this.#waiting.delete(wake);
  }

  get freeSlabs(): number {
    return this.#free.length;
  }
}

/** One byte of each page, so that the kernel has given it before anything is frozen; a part at a time, the agent goes on serving. */
async function touch({ bytes }: Slab, signal: AbortSignal | undefined): Promise<void> {
  for (let at = 0; at < bytes.length; at += PAGE) {
    bytes[at] = 0;
    if (at % (4 * MiB) !== 0) continue;
    signal?.throwIfAborted();
    await setImmediate();
  }
}
