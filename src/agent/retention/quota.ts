/** The quotas of the repository and of namespaces: what a checkpoint may need is reserved before its container is frozen. */
import type { Clock } from '../../core/clock.ts';
import { StasisError } from '../../core/errors.ts';
import type { CheckpointId } from '../../core/ids.ts';
import { formatBytes, MiB } from '../../core/units.ts';
import type { Repository } from '../../repository/types.ts';
import type { NamespaceQuota } from './configured.ts';
import type { Holdings } from './holdings.ts';

/** Counting every object takes a while in a large store: the figure is used again for so long, plus what was written here since. */
const FRESH_MS = 60_000;

export interface QuotaParts {
  readonly repository: Pick<Repository, 'maintenance'>;
  readonly holdings: Pick<Holdings, 'bytesOf'>;
  readonly clock: Clock;
  /** Of the whole repository; 0 for none. */
  readonly bytes: number;
  readonly namespaces: readonly NamespaceQuota[];
}

/** Disposing of it gives back what was not used. */
export interface Reservation extends Disposable {
  readonly bytes: number;
  /** The writer has begun, and its mark tells other agents of the reservation: now theirs count here, too. Throws NO_SPACE. */
  begun(checkpoint: CheckpointId, options: { signal: AbortSignal }): Promise<void>;
  /** Beside what was reserved, so much was written already (files, read ahead). Throws NO_SPACE. */
  wrote(bytes: number, options: { signal: AbortSignal }): Promise<void>;
}

/** What memory of this size may take in the store: seals, tables and page digests of data that does not compress. */
export function mostStored(memoryBytes: number): number {
  return memoryBytes + Math.ceil(memoryBytes / 64) + MiB;
}

interface Reserved {
  readonly namespace: string;
  bytes: number;
  checkpoint: CheckpointId | undefined;
}

export class Quota {
  readonly #parts: QuotaParts;
  readonly #reserved = new Set<Reserved>();
  #counted: { bytes: number; readonly atMs: number } | undefined;

  constructor(parts: QuotaParts) {
    this.#parts = parts;
  }

  /** Throws NO_SPACE. */
  async reserve({ namespace, bytes }: { namespace: string; bytes: number }, { signal }: { signal: AbortSignal }): Promise<Reservation> {
    const mine: Reserved = { namespace, bytes, checkpoint: undefined };
    this.#reserved.add(mine);
    try {
      await this.#require(mine, 0, signal);
    } catch (error) {
      this.#reserved.delete(mine);
      throw error;
    }
    let written = 0;
    return {
      bytes,
      [Symbol.dispose]: () => void this.#reserved.delete(mine),
      begun: async (checkpoint, options) => {
        mine.checkpoint = checkpoint;
        await this.#require(mine, 0, options.signal);
      },
      wrote: async (now, options) => {
        mine.bytes += now - written;
        written = now;
        await this.#require(mine, written, options.signal);
      },
    };
  }

  /** A checkpoint was made: counts with what it wrote, until everything is counted again. */
  wrote(bytes: number): void {
    if (this.#counted !== undefined) this.#counted.bytes += bytes;
  }

  /** `written`: of what is asked for, so much may be in the store already. */
  async #require(mine: Reserved, written: number, signal: AbortSignal): Promise<void> {
    const { bytes: all, namespaces, holdings } = this.#parts;
    if (all > 0) {
      // Before our own mark is set others' need not be asked: who comes second sees the other.
      const elsewhere = mine.checkpoint === undefined ? 0 : await this.#elsewhere(signal);
      const needed = mine.bytes + this.#others(mine, () => true) + elsewhere;
      // An old figure may only let pass, not refuse.
      if ((await this.#used(false, signal)) + needed > all) {
        const used = Math.max(0, (await this.#used(true, signal)) - written);
        if (used + needed > all) throw full('the repository', { used, reserved: needed - mine.bytes, needed: mine.bytes, quota: all });
      }
    }
    const quota = namespaces.find((one) => one.namespaces.test(mine.namespace))?.bytes;
    if (quota === undefined) return;
    const used = await holdings.bytesOf(mine.namespace, { signal });
    const reserved = this.#others(mine, ({ namespace }) => namespace === mine.namespace);
    if (used + reserved + mine.bytes > quota) throw full(`namespace ${JSON.stringify(mine.namespace)}`, { used, reserved, needed: mine.bytes, quota });
  }

  /** Of writers of other agents. */
  async #elsewhere(signal: AbortSignal): Promise<number> {
    const own = new Set([...this.#reserved].map(({ checkpoint }) => checkpoint));
    let bytes = 0;
    for (const [checkpoint, reserved] of await this.#parts.repository.maintenance.reserved({ signal })) if (!own.has(checkpoint)) bytes += reserved;
    return bytes;
  }

  #others(mine: Reserved, counts: (one: Reserved) => boolean): number {
    return [...this.#reserved].reduce((sum, one) => sum + (one !== mine && counts(one) ? one.bytes : 0), 0);
  }

  async #used(anew: boolean, signal: AbortSignal): Promise<number> {
    const { clock, repository } = this.#parts;
    const now = clock.monotonic();
    if (anew || this.#counted === undefined || now - this.#counted.atMs > FRESH_MS) {
      this.#counted = { bytes: await repository.maintenance.usedBytes({ signal }), atMs: now };
    }
    return this.#counted.bytes;
  }
}

function full(whose: string, { used, reserved, needed, quota }: { used: number; reserved: number; needed: number; quota: number }): StasisError {
  return new StasisError('NO_SPACE', `${whose} holds ${formatBytes(used)} of its quota of ${formatBytes(quota)}, others reserve ${formatBytes(reserved)}, and this checkpoint may need ${formatBytes(needed)}`, {
    hint: 'delete checkpoints (stasis rm, stasis repo prune) or raise the quota', details: { used, reserved, needed, quota },
  });
}
