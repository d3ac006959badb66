/** The repository: who opens what in which order. The work is done by writer, reader, verify and garbage. */
import type { Clock } from '../core/clock.ts';
import { createHash, randomBytes } from 'node:crypto';
import { isStasisError, StasisError } from '../core/errors.ts';
import type { CheckpointId, LineageId } from '../core/ids.ts';
import { newLineageId } from '../core/ids.ts';
import { ordered } from '../core/ordered.ts';
import { MiB } from '../core/units.ts';
import { loadSodium } from './crypto/sodium.ts';
import type { SodiumChoice } from './crypto/sodium.ts';
import type { Sodium } from './crypto/port.ts';
import { cipherByName } from './format/algorithms.ts';
import { markName } from './format/names.ts';
import { Garbage } from './garbage.ts';
import { StoreKeyring } from './keyring.ts';
import type { KeyMemory } from './key-memory.ts';
import type { KeyProvider } from './keys/port.ts';
import { Lineages } from './lineages.ts';
import type { OpenLineage } from './lineages.ts';
import { StoreMaintenance } from './maintenance.ts';
import { Manifests } from './manifests.ts';
import type { LineageCache, OpenManifest } from './manifests.ts';
import { Ancestor } from './ancestor.ts';
import { Marks } from './marks.ts';
import { ChunkPlaces } from './places.ts';
import { Reader } from './reader.ts';
import { StagePool } from './stage/pool.ts';
import type { Store } from './store/store.ts';
import { isAboutObject, Sweeper } from './sweeper.ts';
import { hex, Trust } from './trust.ts';
import type { CheckpointReader, CheckpointSummary, CheckpointWriter, Keyring, Maintenance, Repository, VerifyReport } from './types.ts';
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
  /** A name of this agent that stays the same over restarts: marks of its former life are its own. Random unless told. */
  readonly owner?: string;
  /** How long a writer, reader or sweeper must have been silent before prune gives it up for dead; 12 hours unless told. */
  readonly graceMs?: number;
  /** How far the lists of the store may lag behind its objects; 0 unless told. Whoever removes waits for it. */
  readonly listLagMs?: number;
  /** What was known of the keys of lineages before; lasts as long as the process unless told. */
  readonly keyMemory?: KeyMemory;
  /** For tests and for machines without the addon. */
  readonly sodium?: SodiumChoice;
}

interface Options {
  readonly signal: AbortSignal | undefined;
}

/** Four packs of 16 MiB and the scratch of two workers. More did not make two workers faster (measured). */
const DEFAULT_MEMORY_BYTES = 64 * MiB;
const DEFAULT_GRACE_MS = 12 * 3_600_000;
/** Manifests that are read at the same time for a list: each may be of 64 MiB. */
const LISTED_AT_ONCE = 4;

export async function openRepository(options: RepositoryOptions): Promise<Repository> {
  const choice = options.sodium ?? 'auto';
  const sodium = await loadSodium(choice);
  const pool = new StagePool({ workers: options.workers, memoryBytes: options.memoryBytes ?? DEFAULT_MEMORY_BYTES, sodium: choice });
  return new StoreRepository(options, sodium, pool);
}

class StoreRepository implements Repository {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #sodium: Sodium;
  readonly #pool: StagePool;
  readonly #keys: KeyProvider;
  readonly #lineages: Lineages;
  readonly #manifests: Manifests;
  readonly #marks: Marks;
  readonly #garbage: Garbage;
  readonly maintenance: Maintenance;
  readonly keyring: Keyring;

  constructor({ store, keys, clock, trustedSigners = [], owner = randomBytes(16).toString('hex'), graceMs = DEFAULT_GRACE_MS, listLagMs = 0, keyMemory }: RepositoryOptions, sodium: Sodium, pool: StagePool) {
    const trust = new Trust(sodium, keys, trustedSigners);
    this.#store = store;
    this.#keys = keys;
    this.#clock = clock;
    this.#sodium = sodium;
    this.#pool = pool;
    this.#lineages = new Lineages(store, keys, sodium, trust, keyMemory);
    this.#manifests = new Manifests(store, keys, sodium, trust, this.#lineages);
    this.#marks = new Marks(store);
    const ownerId = createHash('sha256').update(owner).digest('hex').slice(0, 20) as CheckpointId;
    const sweeper = new Sweeper({ store, manifests: this.#manifests, marks: this.#marks, clock, owner: ownerId, graceMs, listLagMs });
    this.#garbage = new Garbage(store, this.#manifests, this.#marks, sweeper);
    const parts = { store, manifests: this.#manifests, marks: this.#marks, sweeper, garbage: this.#garbage, graceMs };
    this.keyring = new StoreKeyring(store, keys, this.#lineages, this.#manifests, sweeper);
    this.maintenance = new StoreMaintenance(parts, ownerId, (id, options) => this.verify(id, options));
  }

  async begin({ id, lineage, cipher = 'xchacha20-poly1305', reservedBytes = 0 }: { id: CheckpointId; lineage: LineageId | undefined; cipher?: string; reservedBytes?: number }, { signal }: Options): Promise<CheckpointWriter> {
    const cipherId = cipherByName(cipher);
    if (await this.#manifests.exists(id, { signal })) throw new StasisError('CHECKPOINT_IN_USE', `checkpoint ${id} is there already`, { hint: 'every checkpoint needs an id of its own' });
    const wanted = lineage ?? newLineageId();
    // Before anything is read or written: whoever deletes sees either this mark or the manifest that ends it.
    const mark = await this.#marks.set(wanted, id, 'write', { signal, reservedBytes });
    const common = { id, mark, cipher: cipherId, store: this.#store, manifests: this.#manifests, marks: this.#marks, garbage: this.#garbage, pool: this.#pool, clock: this.#clock };
    const places = new ChunkPlaces(this.#pool.indexes.take());
    try {
      if (lineage === undefined) return new Writer({ ...common, lineage: await this.#lineages.create(wanted), ancestor: undefined, places });
      const open = await this.#continue(lineage, { signal });
      const base = await this.#newest(lineage, { signal });
      // Chunks of another cipher cannot stand in one checkpoint with these.
      const ancestor = base?.cipher === cipherId ? await Ancestor.open(base, places, { store: this.#store, pool: this.#pool, sodium: this.#sodium, signal }) : undefined;
      return new Writer({ ...common, lineage: open, ancestor, places });
    } catch (error) {
      this.#pool.indexes.give(places.shared);
      await this.#marks.remove(mark, { signal: undefined }).catch(() => undefined);
      throw error;
    }
  }

  async *list({ signal, onProblem }: Options & { onProblem?: (object: string, error: Error) => void }): AsyncIterable<CheckpointSummary> {
    const cache: LineageCache = new Map();
    const summary = async (id: CheckpointId): Promise<CheckpointSummary | undefined> => {
      try {
        return await this.#manifests.summary(id, { signal, cache });
      } catch (error) {
        // Deleted meanwhile: then it is simply not in the list.
        if (isStasisError(error, 'CHECKPOINT_NOT_FOUND')) return undefined;
        if (!isStasisError(error) || isAway(error)) throw error;
        onProblem?.(`manifests/${id}`, error);
        return undefined;
      }
    };
    for await (const one of ordered(this.#manifests.ids({ signal, onProblem }), LISTED_AT_ONCE, summary)) if (one !== undefined) yield one;
  }

  async open(id: CheckpointId, { signal }: Options): Promise<CheckpointReader> {
    return new Reader(await this.#manifests.open(id, { signal }), this.#store, this.#pool, this.#sodium);
  }

  async verify(id: CheckpointId, options: Options & { onBytes?: (count: number, total: number) => void }): Promise<VerifyReport> {
    // What is damaged at its first bytes cannot be held, and there is nothing to lose.
    await using _held = await this.maintenance.hold(id, options).catch((error: unknown) => {
      if (isStasisError(error, 'CHECKPOINT_NOT_FOUND') || !isAboutObject(error)) throw error;
      return undefined;
    });
    return await verifyCheckpoint(id, this.#store, this.#manifests, this.#pool, options);
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

  /** To whom a node's checkpoints are wrapped also holds for those that go on in an older lineage. Throws KEY_MISSING, KEY_WRONG: begin a new one. */
  async #continue(lineage: LineageId, { signal }: Options): Promise<OpenLineage> {
    const open = await this.#lineages.open(lineage, { signal });
    if (open.ended) throw new StasisError('KEY_MISSING', `lineage ${lineage} has ended: no checkpoint goes on in it`, { hint: 'begin a new one' });
    const wanted = (await this.#keys.keys()).recipients.map(hex);
    if (wanted.every((recipient) => open.recipients.includes(recipient))) return open;
    try {
      await this.keyring.rewrap(lineage, ({ recipients, ended }) => ({ recipients: [...recipients, ...wanted], ended }), { signal });
    } catch (error) {
      if (!isStasisError(error) || !['CHECKPOINT_IN_USE', 'WRITER_FENCED', 'USAGE'].includes(error.code)) throw error;
      throw new StasisError('KEY_WRONG', `the key of lineage ${lineage} could not be wrapped to all recipients: ${error.message}`, { cause: error, hint: 'begin a new lineage' });
    }
    return this.#continue(lineage, { signal });
  }

  /**
   * The newest checkpoint of a lineage that can be read. One that cannot only costs the chance to reuse its chunks. A lineage
   * without any has ended: its key may be on its way out, so nobody brings it back to life (KEY_MISSING).
   */
  async #newest(lineage: LineageId, { signal }: Options): Promise<OpenManifest | undefined> {
    const ids = await Array.fromAsync(this.#manifests.ids({ signal }));
    let alive = false;
    for (const id of ids.reverse()) {
      try {
        if ((await this.#manifests.lineageOf(id, { signal })) !== lineage) continue;
        // It came too late, or may have: its packs and its key may be on their way out, so nobody builds on it.
        if (await this.#marks.isFenced(markName(lineage, id, 'write'), { signal })) continue;
        return await this.#manifests.open(id, { signal });
      } catch (error) {
        if (!isStasisError(error) || isAway(error)) throw error;
        alive ||= error.code !== 'CHECKPOINT_NOT_FOUND' && error.code !== 'OBJECT_MISSING';
      }
    }
    if (alive) return undefined;
    throw new StasisError('KEY_MISSING', `lineage ${lineage} has no checkpoints any more`, { hint: 'it ended with its last checkpoint; begin a new one' });
  }
}

/** The store, or whoever has the keys, cannot be reached: nothing is said about the object. */
function isAway(error: StasisError): boolean {
  return error.code === 'STORE_UNAVAILABLE' || error.code === 'KEY_UNAVAILABLE';
}
