/** The repository: who opens what in which order. The work is done by writer, reader, verify and garbage. */
import type { Clock } from '../core/clock.ts';
import { isStasisError, StasisError } from '../core/errors.ts';
import type { CheckpointId, LineageId } from '../core/ids.ts';
import { newLineageId } from '../core/ids.ts';
import { MiB } from '../core/units.ts';
import { loadSodium } from './crypto/sodium.ts';
import type { SodiumChoice } from './crypto/sodium.ts';
import type { Sodium } from './crypto/port.ts';
import { cipherByName } from './format/algorithms.ts';
import { writerName } from './format/names.ts';
import { encodeWriterMark } from './format/writer-mark.ts';
import { Garbage } from './garbage.ts';
import type { KeyProvider } from './keys.ts';
import { Lineages } from './lineages.ts';
import { Manifests } from './manifests.ts';
import type { LineageCache, OpenManifest } from './manifests.ts';
import { Ancestor } from './ancestor.ts';
import { ChunkPlaces } from './places.ts';
import { Reader } from './reader.ts';
import { StagePool } from './stage/pool.ts';
import type { Store } from './store/store.ts';
import { hex, Trust } from './trust.ts';
import type { CheckpointReader, CheckpointSummary, CheckpointWriter, Repository, VerifyReport } from './types.ts';
import { verifyCheckpoint } from './verify.ts';
import { Writer } from './writer.ts';

export interface RepositoryOptions {
  readonly store: Store;
  readonly keys: KeyProvider;
  readonly clock: Clock;
  /** Stage threads; as many as processors is right. */
  readonly workers: number;
  /** Hard limit of pack buffers and workers' scratch memory; 64 MiB unless told. Fewer workers run if it is too little. */
  readonly memoryBytes?: number;
  /** Hexadecimal Ed25519 public keys that are trusted beside the node's own. */
  readonly trustedSigners?: readonly string[];
  /** For tests and for machines without the addon. */
  readonly sodium?: SodiumChoice;
}

interface Options {
  readonly signal: AbortSignal | undefined;
}

/** Four packs of 16 MiB and the scratch of two workers. More did not make two workers faster (measured). */
const DEFAULT_MEMORY_BYTES = 64 * MiB;
/** How many checkpoints' lineages are remembered; they never change. */
const REMEMBERED = 10_000;

/** Starts the stage workers, so that the first checkpoint does not wait for them. */
export async function openRepository(options: RepositoryOptions): Promise<Repository> {
  const choice = options.sodium ?? 'auto';
  const sodium = await loadSodium(choice);
  const pool = new StagePool({ workers: options.workers, memoryBytes: options.memoryBytes ?? DEFAULT_MEMORY_BYTES, sodium: choice });
  await pool.ready();
  return new StoreRepository(options, sodium, pool);
}

class StoreRepository implements Repository {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #sodium: Sodium;
  readonly #pool: StagePool;
  readonly #lineages: Lineages;
  readonly #manifests: Manifests;
  readonly #garbage: Garbage;
  readonly #lineageOf = new Map<CheckpointId, LineageId>();

  constructor({ store, keys, clock, trustedSigners = [] }: RepositoryOptions, sodium: Sodium, pool: StagePool) {
    const trust = new Trust(sodium, [hex(keys.signer), ...trustedSigners]);
    this.#store = store;
    this.#clock = clock;
    this.#sodium = sodium;
    this.#pool = pool;
    this.#lineages = new Lineages(store, keys, sodium, trust);
    this.#manifests = new Manifests(store, keys, sodium, trust, this.#lineages);
    this.#garbage = new Garbage(store, this.#manifests);
  }

  async begin({ id, lineage, cipher = 'xchacha20-poly1305' }: { id: CheckpointId; lineage: LineageId | undefined; cipher?: string }, { signal }: Options): Promise<CheckpointWriter> {
    const cipherId = cipherByName(cipher);
    if (await this.#manifests.exists(id, { signal })) throw new StasisError('CHECKPOINT_IN_USE', `checkpoint ${id} is there already`, { hint: 'every checkpoint needs an id of its own' });
    const common = { id, cipher: cipherId, store: this.#store, manifests: this.#manifests, pool: this.#pool, clock: this.#clock };
    if (lineage === undefined) return new Writer({ ...common, lineage: await this.#lineages.create(newLineageId()), ancestor: undefined, places: new ChunkPlaces(this.#pool.indexes.take()) });
    const open = await this.#lineages.open(lineage, { signal });
    const mark = writerName(lineage, id);
    await this.#store.put(mark, [encodeWriterMark(lineage, id)], { signal });
    const places = new ChunkPlaces(this.#pool.indexes.take());
    try {
      const base = await this.#newest(lineage, { signal });
      // Chunks of another cipher cannot stand in one checkpoint with these.
      const ancestor = base?.cipher === cipherId ? await Ancestor.open(base, places, { store: this.#store, pool: this.#pool, sodium: this.#sodium, signal }) : undefined;
      return new Writer({ ...common, lineage: open, ancestor, places });
    } catch (error) {
      this.#pool.indexes.give(places.shared);
      await this.#store.delete(mark, { signal: undefined }).catch(() => undefined);
      throw error;
    }
  }

  async *list({ signal, onProblem }: Options & { onProblem?: (object: string, error: Error) => void }): AsyncIterable<CheckpointSummary> {
    const cache: LineageCache = new Map();
    for await (const id of this.#manifests.ids({ signal, onProblem })) {
      let summary: CheckpointSummary;
      try {
        summary = await this.#manifests.summary(id, { signal, cache });
      } catch (error) {
        // Deleted meanwhile: then it is simply not in the list.
        if (isStasisError(error, 'CHECKPOINT_NOT_FOUND')) continue;
        if (!isStasisError(error) || error.code === 'STORE_UNAVAILABLE') throw error;
        onProblem?.(`manifests/${id}`, error);
        continue;
      }
      yield summary;
    }
  }

  async open(id: CheckpointId, { signal }: Options): Promise<CheckpointReader> {
    return new Reader(await this.#manifests.open(id, { signal }), this.#store, this.#pool, this.#sodium);
  }

  verify(id: CheckpointId, options: Options & { onBytes?: (count: number, total: number) => void }): Promise<VerifyReport> {
    return verifyCheckpoint(id, this.#store, this.#manifests, this.#pool, options);
  }

  delete(id: CheckpointId, options: Options): Promise<void> {
    return this.#garbage.delete(id, options);
  }

  exists(id: CheckpointId, options: Options): Promise<boolean> {
    return this.#manifests.exists(id, options);
  }

  discard(id: CheckpointId, options: Options): Promise<void> {
    return this.#garbage.discard(id, options);
  }

  freeBytes(): Promise<number | undefined> {
    return this.#store.freeBytes();
  }

  close(): Promise<void> {
    return this.#pool.close();
  }

  /** The newest checkpoint of a lineage that can be read. One that cannot only costs the chance to reuse its chunks. */
  async #newest(lineage: LineageId, { signal }: Options): Promise<OpenManifest | undefined> {
    const ids = await Array.fromAsync(this.#manifests.ids({ signal }));
    for (const id of ids.reverse()) {
      try {
        if ((await this.#lineage(id, { signal })) === lineage) return await this.#manifests.open(id, { signal });
      } catch (error) {
        if (!isStasisError(error) || error.code === 'STORE_UNAVAILABLE') throw error;
      }
    }
    return undefined;
  }

  async #lineage(id: CheckpointId, { signal }: Options): Promise<LineageId> {
    const known = this.#lineageOf.get(id);
    if (known !== undefined) return known;
    const lineage = await this.#manifests.lineageOf(id, { signal });
    if (this.#lineageOf.size >= REMEMBERED) this.#lineageOf.clear();
    this.#lineageOf.set(id, lineage);
    return lineage;
  }
}
