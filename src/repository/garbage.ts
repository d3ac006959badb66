/** Deleting: manifest first, then only what nobody else needs. When in doubt, garbage stays. */
import { isStasisError, StasisError } from '../core/errors.ts';
import type { CheckpointId, LineageId } from '../core/ids.ts';
import { asBuffer } from './format/bytes.ts';
import { packObject } from './format/body.ts';
import { lineageName, manifestName, packsOf, parseWriterName, writerName, WRITERS, writersOf } from './format/names.ts';
import { PACK_HEADER_BYTES, packLineage } from './format/pack.ts';
import type { LineageCache, Manifests } from './manifests.ts';
import type { Store } from './store/store.ts';

interface Options {
  readonly signal: AbortSignal | undefined;
}

/** Packs that other checkpoints of a lineage name, and whether there are such checkpoints; `unknown` when not all could be read. */
type References = { readonly packs: ReadonlySet<string>; readonly checkpoints: number } | 'unknown';

export class Garbage {
  readonly #store: Store;
  readonly #manifests: Manifests;

  constructor(store: Store, manifests: Manifests) {
    this.#store = store;
    this.#manifests = manifests;
  }

  async delete(id: CheckpointId, { signal }: Options): Promise<void> {
    if (!(await this.#manifests.exists(id, { signal }))) {
      throw new StasisError('CHECKPOINT_NOT_FOUND', `there is no checkpoint ${id} in ${this.#store.description}`, { hint: 'stasis list shows what is there' });
    }
    const lineage = await this.#lineageOf(id, { signal });
    const packs = await this.#packsOf(id, { signal });
    await this.#store.delete(manifestName(id), { signal });
    if (lineage === undefined) return;
    await this.#sweep(lineage, id, packs, { signal });
    await this.#store.delete(writerName(lineage, id), { signal });
  }

  async discard(id: CheckpointId, { signal }: Options): Promise<void> {
    if (await this.#manifests.exists(id, { signal })) {
      throw new StasisError('CHECKPOINT_IN_USE', `checkpoint ${id} is complete; it is not garbage`, { hint: 'delete it instead' });
    }
    const packs = await this.#writtenBy(id, { signal });
    const marked = await this.#markOf(id, { signal });
    const lineage = marked ?? (await this.#lineageOfPacks(packs, { signal }));
    if (lineage === undefined) return;
    // A mark is left only by a writer that never committed, and what it wrote nobody else can have seen.
    if (marked !== undefined) for (const name of packs) await this.#store.delete(name, { signal });
    await this.#sweep(lineage, id, packs, { signal });
    await this.#store.delete(writerName(lineage, id), { signal });
  }

  /** Removes those of `packs` that no checkpoint names, and the lineage key with the last checkpoint. */
  async #sweep(lineage: LineageId, id: CheckpointId, packs: readonly string[], { signal }: Options): Promise<void> {
    // The order matters: a writer that is not seen here has its manifest in place for the next look.
    if (await this.#hasOtherWriters(lineage, id, { signal })) return;
    const references = await this.#references(lineage, { signal });
    if (references === 'unknown') return;
    for (const name of packs) {
      if (!references.packs.has(name)) await this.#store.delete(name, { signal });
    }
    if (references.checkpoints === 0) await this.#store.delete(lineageName(lineage), { signal });
  }

  async #references(lineage: LineageId, { signal }: Options): Promise<References> {
    const packs = new Set<string>();
    const cache: LineageCache = new Map();
    let checkpoints = 0;
    for await (const other of this.#manifests.ids({ signal })) {
      try {
        if ((await this.#manifests.lineageOf(other, { signal })) !== lineage) continue;
        const { tables } = await this.#manifests.open(other, { signal, cache });
        for (const pack of tables.packs) packs.add(packObject(pack));
        checkpoints += 1;
      } catch (error) {
        if (isGone(error)) continue;
        if (isAboutObject(error)) return 'unknown';
        throw error;
      }
    }
    return { packs, checkpoints };
  }

  async #hasOtherWriters(lineage: LineageId, id: CheckpointId, { signal }: Options): Promise<boolean> {
    for await (const { name } of this.#store.list(writersOf(lineage), { signal })) {
      const mark = parseWriterName(name);
      if (mark === undefined || mark.checkpoint === id) continue;
      // One that has committed is seen by its manifest; its mark was only not removed.
      if (!(await this.#manifests.exists(mark.checkpoint, { signal }))) return true;
    }
    return false;
  }

  async #lineageOf(id: CheckpointId, { signal }: Options): Promise<LineageId | undefined> {
    try {
      return await this.#manifests.lineageOf(id, { signal });
    } catch (error) {
      if (isAboutObject(error)) return undefined;
      throw error;
    }
  }

  /** What a checkpoint names; what its writer wrote, if the manifest cannot be read any more. */
  async #packsOf(id: CheckpointId, { signal }: Options): Promise<string[]> {
    try {
      const { tables } = await this.#manifests.open(id, { signal });
      return tables.packs.map(packObject);
    } catch (error) {
      if (isAboutObject(error)) return this.#writtenBy(id, { signal });
      throw error;
    }
  }

  async #writtenBy(id: CheckpointId, { signal }: Options): Promise<string[]> {
    const names: string[] = [];
    for await (const { name } of this.#store.list(packsOf(id), { signal })) names.push(name);
    return names;
  }

  async #markOf(id: CheckpointId, { signal }: Options): Promise<LineageId | undefined> {
    for await (const { name } of this.#store.list(WRITERS, { signal })) {
      const mark = parseWriterName(name);
      if (mark?.checkpoint === id) return mark.lineage;
    }
    return undefined;
  }

  async #lineageOfPacks(packs: readonly string[], { signal }: Options): Promise<LineageId | undefined> {
    for (const name of packs) {
      try {
        return packLineage(asBuffer(await this.#store.get(name, { offset: 0, length: PACK_HEADER_BYTES }, { signal })), name);
      } catch (error) {
        if (!isAboutObject(error)) throw error;
      }
    }
    return undefined;
  }
}

const isGone = (error: unknown): boolean => isStasisError(error, 'OBJECT_MISSING') || isStasisError(error, 'CHECKPOINT_NOT_FOUND');

/** The object cannot be read, as opposed to the store. */
function isAboutObject(error: unknown): boolean {
  const codes = ['OBJECT_CORRUPT', 'OBJECT_MISSING', 'CHECKPOINT_NOT_FOUND', 'SIGNATURE_INVALID', 'SIGNER_UNTRUSTED', 'KEY_MISSING', 'KEY_WRONG', 'FORMAT_UNSUPPORTED', 'LIMIT_EXCEEDED'] as const;
  return codes.some((code) => isStasisError(error, code));
}
