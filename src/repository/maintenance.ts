/** Care for the repository as a whole: prune, figures, a check of everything, pins, and holding what is being read. */
import { asStasisError, isStasisError, StasisError } from '../core/errors.ts';
import type { CheckpointId } from '../core/ids.ts';
import { packObject } from './format/body.ts';
import { LINEAGES, MANIFESTS, manifestName, markName, PACKS, pinName, PINS, WRITERS } from './format/names.ts';
import type { LineageCache } from './manifests.ts';
import { readPins, writePin } from './pins.ts';
import { prune, survey } from './prune.ts';
import type { PruneParts } from './prune.ts';
import { isAboutObject } from './sweeper.ts';
import type { CheckReport, Maintenance, Pin, PruneReport, RepositoryStats, VerifyReport } from './types.ts';

interface Options {
  readonly signal: AbortSignal | undefined;
}

type Verify = (id: CheckpointId, options: Options) => Promise<VerifyReport>;

const OWNER_DIGITS = 12;

export class StoreMaintenance implements Maintenance {
  readonly #parts: PruneParts;
  readonly #owner: CheckpointId;
  readonly #verify: Verify;
  /** Each reader has a mark of its own: the owner's first digits, then this number. */
  #readers = 0;

  constructor(parts: PruneParts, owner: CheckpointId, verify: Verify) {
    this.#parts = parts;
    this.#owner = owner;
    this.#verify = verify;
  }

  prune(options: Options & { dryRun: boolean; onLineage?: (done: number, total: number) => void }): Promise<PruneReport> {
    return prune(this.#parts, options);
  }

  async usedBytes({ signal }: Options): Promise<number> {
    let bytes = 0;
    for (const prefix of [PACKS, LINEAGES, WRITERS, PINS, MANIFESTS]) for await (const { size } of this.#parts.store.list(prefix, { signal })) bytes += size;
    return bytes;
  }

  async stats({ signal }: Options): Promise<RepositoryStats> {
    const { store, manifests } = this.#parts;
    const { suspects, strangers } = await survey(this.#parts, { signal });
    const loose = [...suspects.values()].flatMap(({ orphans }) => orphans).concat(strangers);
    const totals = new Map<string, { count: number; bytes: number }>();
    for (const prefix of [PACKS, LINEAGES, WRITERS, PINS, MANIFESTS]) {
      const total = { count: 0, bytes: 0 };
      for await (const { size } of store.list(prefix, { signal })) {
        total.count += 1;
        total.bytes += size;
      }
      totals.set(prefix, total);
    }
    const saved = { raw: 0, zero: 0, reused: 0, stored: 0 };
    const cache: LineageCache = new Map();
    let unreadable = 0;
    for await (const id of manifests.ids({ signal })) {
      try {
        const { bytes } = await manifests.summary(id, { signal, cache });
        for (const name of ['raw', 'zero', 'reused', 'stored'] as const) saved[name] += bytes[name];
      } catch (error) {
        if (!isAboutObject(error)) throw error;
        unreadable += 1;
      }
    }
    const of = (prefix: string): { count: number; bytes: number } => totals.get(prefix) ?? { count: 0, bytes: 0 };
    return {
      checkpoints: of(MANIFESTS).count, lineages: of(LINEAGES).count, pins: of(PINS).count, packs: of(PACKS).count,
      bytes: [...totals.values()].reduce((sum, { bytes }) => sum + bytes, 0), packBytes: of(PACKS).bytes,
      loose: { packs: loose.length, bytes: loose.reduce((sum, { size }) => sum + size, 0) }, saved, unreadable,
    };
  }

  async check({ signal, readData, onCheckpoint }: Options & { readData: boolean; onCheckpoint?: (done: number, total: number) => void }): Promise<CheckReport> {
    const problems: CheckReport['problems'][number][] = [];
    const note = (object: string, error: unknown): void => {
      const { code, message, details } = asStasisError(error, object);
      problems.push({ object: String(details['object'] ?? object), code, message });
    };
    const ids = await Array.fromAsync(this.#parts.manifests.ids({ signal, onProblem: note }));
    let [sealed, objects, bytes] = [0, 0, 0];
    for (const [i, id] of ids.entries()) {
      signal?.throwIfAborted();
      try {
        const seen = readData ? await this.#verify(id, { signal }) : await this.#structure(id, { signal });
        // Its own checkpoint may be for the eyes of others only.
        if (seen.problems.length > 0 && seen.problems.every(({ code }) => code === 'KEY_WRONG')) sealed += 1;
        else problems.push(...seen.problems);
        objects += seen.objects;
        bytes += seen.bytes;
      } catch (error) {
        if (!isAboutObject(error)) throw error;
        // Deleted meanwhile.
        if (!isStasisError(error, 'CHECKPOINT_NOT_FOUND')) note(manifestName(id), error);
      }
      onCheckpoint?.(i + 1, ids.length);
    }
    return { checkpoints: ids.length, sealed, objects, bytes, problems };
  }

  async #structure(id: CheckpointId, { signal }: Options): Promise<Pick<VerifyReport, 'objects' | 'bytes' | 'problems'>> {
    const { manifests, store } = this.#parts;
    const problems: VerifyReport['problems'][number][] = [];
    let packs;
    try {
      ({ tables: { packs } } = await manifests.open(id, { signal }));
    } catch (error) {
      if (!isAboutObject(error) || isStasisError(error, 'CHECKPOINT_NOT_FOUND')) throw error;
      const { code, message, details } = asStasisError(error, id);
      return { objects: 1, bytes: 0, problems: [{ object: String(details['object'] ?? manifestName(id)), code, message }] };
    }
    let bytes = 0;
    for (const pack of packs) {
      const object = packObject(pack);
      const info = await store.head(object, { signal });
      if (info === undefined) problems.push({ object, code: 'OBJECT_MISSING', message: `${object} is not in the store` });
      else if (info.size !== pack.size) problems.push({ object, code: 'OBJECT_CORRUPT', message: `${object} has ${info.size} bytes instead of ${pack.size}` });
      bytes += info?.size ?? 0;
    }
    return { objects: packs.length + 2, bytes, problems };
  }

  /** The mark first, then a look at the manifest: who deletes it sees the mark, or this does not see the manifest. */
  async hold(id: CheckpointId, { signal }: Options): Promise<AsyncDisposable> {
    const { manifests, marks } = this.#parts;
    const lineage = await manifests.lineageOf(id, { signal }).catch((error: unknown) => {
      throw isStasisError(error, 'OBJECT_MISSING') ? this.#missing(id) : error;
    });
    const holder = `${this.#owner.slice(0, OWNER_DIGITS)}${(this.#readers++).toString(16).padStart(20 - OWNER_DIGITS, '0')}` as CheckpointId;
    // One that stays only keeps garbage, until the next start or prune.
    const release = (): Promise<void> => marks.remove(markName(lineage, holder, 'read'), { signal: undefined }).catch(() => undefined);
    try {
      await marks.set(lineage, holder, 'read', { signal });
      await this.#requireCheckpoint(id, { signal });
    } catch (error) {
      // A volume that is mounted read-only can be read all the same.
      if (!isStasisError(error, 'STORE_READ_ONLY')) {
        await release();
        throw error;
      }
    }
    return { [Symbol.asyncDispose]: release };
  }

  async pin(pin: Pin, { signal }: Options): Promise<void> {
    await this.#requireCheckpoint(pin.checkpoint, { signal });
    await writePin(this.#parts.store, pin, { signal });
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
      if (kind !== 'write' && holder.startsWith(this.#owner.slice(0, OWNER_DIGITS))) await marks.remove(name, { signal });
    }
  }

  async #requireCheckpoint(id: CheckpointId, { signal }: Options): Promise<void> {
    if (await this.#parts.manifests.exists(id, { signal })) return;
    throw this.#missing(id);
  }

  #missing(id: CheckpointId): StasisError {
    return new StasisError('CHECKPOINT_NOT_FOUND', `there is no checkpoint ${id} in ${this.#parts.store.description}`, { hint: 'stasis list shows what is there' });
  }
}
