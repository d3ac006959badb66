/** Care for the repository as a whole: prune, figures, a check of everything, pins, and holding what is being read. */
import { isStasisError, StasisError } from '../core/errors.ts';
import type { CheckpointId, LineageId } from '../core/ids.ts';
import { ordered } from '../core/ordered.ts';
import { checkRepository } from './check.ts';
import type { CheckOptions } from './check.ts';
import { packObject } from './format/body.ts';
import { LINEAGES, MANIFESTS, manifestName, markName, PACKS, pinName, PINS, WRITERS } from './format/names.ts';
import type { LineageCache } from './manifests.ts';
import { readPins, writePin } from './pins.ts';
import { Packs } from './packs.ts';
import { prune } from './prune.ts';
import type { PruneParts } from './prune.ts';
import { isAboutObject, isOwn, markHolder } from './sweeper.ts';
import type { CheckReport, Footprint, Maintenance, Pin, PruneReport, RepositoryStats, VerifyReport } from './types.ts';

interface Options {
  readonly signal: AbortSignal | undefined;
}

type Verify = (id: CheckpointId, options: Options) => Promise<VerifyReport>;

/** Manifests that are open at the same time: each may be of 64 MiB. */
const PARALLEL = 4;

export class StoreMaintenance implements Maintenance {
  readonly #parts: PruneParts;
  readonly #owner: CheckpointId;
  readonly #verify: Verify;

  constructor(parts: PruneParts, owner: CheckpointId, verify: Verify) {
    this.#parts = parts;
    this.#owner = owner;
    this.#verify = verify;
  }

  prune(options: Options & { dryRun: boolean; onLineage?: (done: number, total: number) => void }): Promise<PruneReport> {
    return prune(this.#parts, options);
  }

  async *footprints({ signal, known, onProblem }: Options & { known: (id: CheckpointId) => boolean; onProblem: (object: string, error: Error) => void }): AsyncIterable<{ id: CheckpointId; footprint: Footprint | undefined }> {
    const { manifests } = this.#parts;
    const cache: LineageCache = new Map();
    const open = async (id: CheckpointId): Promise<{ id: CheckpointId; footprint: Footprint | undefined } | undefined> => {
      if (known(id)) return { id, footprint: undefined };
      try {
        const { summary, tables } = await manifests.open(id, { signal, cache });
        return { id, footprint: { summary, packs: tables.packs.map((pack) => ({ name: packObject(pack), size: pack.size })) } };
      } catch (error) {
        if (!isStasisError(error) || !isAboutObject(error)) throw error;
        if (error.code !== 'CHECKPOINT_NOT_FOUND') onProblem(manifestName(id), error);
        return undefined;
      }
    };
    for await (const one of ordered(manifests.ids({ signal, onProblem }), PARALLEL, open)) if (one !== undefined) yield one;
  }

  reserved(options: Options): Promise<ReadonlyMap<CheckpointId, number>> {
    return this.#parts.marks.reserved(options);
  }

  async usedBytes({ signal }: Options): Promise<number> {
    let bytes = 0;
    for (const prefix of [PACKS, LINEAGES, WRITERS, PINS, MANIFESTS]) for await (const { size } of this.#parts.store.list(prefix, { signal })) bytes += size;
    return bytes;
  }

  async stats({ signal }: Options): Promise<RepositoryStats> {
    const { store } = this.#parts;
    const packs = await Packs.list(store, { signal });
    const totals = new Map<string, { count: number; bytes: number }>([[PACKS, { count: packs.count, bytes: packs.bytes }]]);
    for (const prefix of [LINEAGES, WRITERS, PINS, MANIFESTS]) {
      const total = { count: 0, bytes: 0 };
      for await (const { size } of store.list(prefix, { signal })) {
        total.count += 1;
        total.bytes += size;
      }
      totals.set(prefix, total);
    }
    const saved = { raw: 0, zero: 0, reused: 0, stored: 0 };
    let unreadable = 0;
    const onProblem = (object: string): void => {
      unreadable += 1;
      packs.keepOf(object.slice(MANIFESTS.length) as CheckpointId);
    };
    for await (const { footprint } of this.footprints({ signal, known: () => false, onProblem })) {
      if (footprint === undefined) continue;
      for (const name of ['raw', 'zero', 'reused', 'stored'] as const) saved[name] += footprint.summary.bytes[name];
      for (const { name } of footprint.packs) packs.use(name);
    }
    const of = (prefix: string): { count: number; bytes: number } => totals.get(prefix) ?? { count: 0, bytes: 0 };
    return {
      checkpoints: of(MANIFESTS).count, lineages: of(LINEAGES).count, pins: of(PINS).count, packs: packs.count,
      bytes: [...totals.values()].reduce((sum, { bytes }) => sum + bytes, 0), packBytes: packs.bytes, loose: packs.loose(), saved, unreadable,
    };
  }

  check(options: CheckOptions): Promise<CheckReport> {
    return checkRepository(this.#parts, this.#verify, options);
  }

  /** The mark first, then a look at the manifest: who deletes it sees the mark, or this does not see the manifest. */
  async hold(id: CheckpointId, { signal }: Options): Promise<AsyncDisposable> {
    const { marks } = this.#parts;
    const lineage = await this.#lineageOf(id, { signal });
    const holder = markHolder(this.#owner);
    // One that stays only keeps garbage, until the next start or prune.
    const release = (): Promise<void> => marks.remove(markName(lineage, holder, 'read'), { signal: undefined }).catch(() => undefined);
    try {
      await marks.set(lineage, holder, 'read', { signal });
      await this.#requireCheckpoint(id, { signal });
    } catch (error) {
      // A volume that is mounted read-only, or a bucket of which we may only read, can be read all the same.
      if (!isStasisError(error, 'STORE_READ_ONLY') && !isStasisError(error, 'PERMISSION_DENIED')) {
        await release();
        throw error;
      }
    }
    return { [Symbol.asyncDispose]: release };
  }

  async pin(pin: Pin, { signal }: Options): Promise<void> {
    await this.#requireCheckpoint(pin.checkpoint, { signal });
    const lineage = await this.#lineageOf(pin.checkpoint, { signal });
    // Alone, as whoever deletes it has to be: so either it is pinned or it is gone.
    await this.#parts.sweeper.exclusive(lineage, { signal }, async (turn) => {
      await this.#requireCheckpoint(pin.checkpoint, { signal });
      await turn.requireHeld({ signal });
      await writePin(this.#parts.store, pin, { signal });
      // If we slept in between, somebody else may have been alone here.
      if (await this.#parts.manifests.exists(pin.checkpoint, { signal })) return;
      await this.#parts.store.delete(pinName(pin.checkpoint), { signal });
      throw this.#missing(pin.checkpoint);
    });
  }

  async unpin(id: CheckpointId, { signal }: Options): Promise<void> {
    await this.#parts.store.delete(pinName(id), { signal });
  }

  pins(options: Options): Promise<Pin[]> {
    return readPins(this.#parts.store, options);
  }

  async releaseOwn({ signal }: Options): Promise<void> {
    const { marks } = this.#parts;
    for (const { name, kind, holder } of await marks.list(undefined, { signal })) {
      if (kind !== 'write' && isOwn(holder, this.#owner)) await marks.remove(name, { signal });
    }
  }

  async #lineageOf(id: CheckpointId, { signal }: Options): Promise<LineageId> {
    return this.#parts.manifests.lineageOf(id, { signal }).catch((error: unknown) => {
      throw isStasisError(error, 'OBJECT_MISSING') ? this.#missing(id) : error;
    });
  }

  async #requireCheckpoint(id: CheckpointId, { signal }: Options): Promise<void> {
    if (await this.#parts.manifests.exists(id, { signal })) return;
    throw this.#missing(id);
  }

  #missing(id: CheckpointId): StasisError {
    return new StasisError('CHECKPOINT_NOT_FOUND', `there is no checkpoint ${id} in ${this.#parts.store.description}`, { hint: 'stasis list shows what is there' });
  }
}
