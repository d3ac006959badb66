/** Deleting: manifest first, then only what nobody else needs. When in doubt, garbage stays, and a later prune takes it. */
import { StasisError } from '../core/errors.ts';
import type { CheckpointId, LineageId } from '../core/ids.ts';
import { asBuffer } from './format/bytes.ts';
import { packObject } from './format/body.ts';
import { manifestName, markName, packsOf, pinName } from './format/names.ts';
import { PACK_HEADER_BYTES, packLineage } from './format/pack.ts';
import type { Manifests } from './manifests.ts';
import type { Marks } from './marks.ts';
import type { Store } from './store/store.ts';
import type { Sweeper } from './sweeper.ts';
import { isAboutObject } from './sweeper.ts';

interface Options {
  readonly signal: AbortSignal | undefined;
}

export class Garbage {
  readonly #store: Store;
  readonly #manifests: Manifests;
  readonly #marks: Marks;
  readonly #sweeper: Sweeper;

  constructor(store: Store, manifests: Manifests, marks: Marks, sweeper: Sweeper) {
    this.#store = store;
    this.#manifests = manifests;
    this.#marks = marks;
    this.#sweeper = sweeper;
  }

  async delete(id: CheckpointId, { signal }: Options): Promise<void> {
    if (!(await this.#manifests.exists(id, { signal }))) {
      throw new StasisError('CHECKPOINT_NOT_FOUND', `there is no checkpoint ${id} in ${this.#store.description}`, { hint: 'stasis list shows what is there' });
    }
    await this.#requireUnpinned(id, { signal });
    const lineage = await this.#lineageOf(id, { signal });
    // Damaged beyond its first bytes: nothing else can be found through it.
    if (lineage === undefined) return this.#store.delete(manifestName(id), { signal });
    await this.#sweeper.exclusive(lineage, { signal }, async (turn) => {
      const packs = await this.#packsOf(id, lineage, { signal });
      // Pins are set by whoever is alone in the lineage, so none comes between this and the end of the manifest.
      await this.#requireUnpinned(id, { signal });
      await turn.requireHeld({ signal });
      await this.#store.delete(manifestName(id), { signal });
      await turn.sweep(packs, { own: id, signal });
      await this.#marks.remove(markName(lineage, id, 'write'), { signal });
    });
  }

  async discard(id: CheckpointId, { signal }: Options): Promise<void> {
    if (await this.#manifests.exists(id, { signal })) {
      throw new StasisError('CHECKPOINT_IN_USE', `checkpoint ${id} is complete; it is not garbage`, { hint: 'delete it instead' });
    }
    const packs = await this.writtenBy(id, { signal });
    const marked = (await this.#marks.list(undefined, { signal })).find(({ holder, kind }) => kind === 'write' && holder === id)?.lineage;
    const lineage = marked ?? (await this.lineageOfPacks(packs, { signal }));
    if (lineage === undefined) return;
    await this.#marks.giveUp(lineage, id, { signal });
    await this.#sweeper.exclusive(lineage, { signal }, (turn) => turn.sweep(packs, { own: id, signal }));
    await this.#marks.remove(markName(lineage, id, 'write'), { signal });
  }

  async #requireUnpinned(id: CheckpointId, { signal }: Options): Promise<void> {
    if ((await this.#store.head(pinName(id), { signal })) === undefined) return;
    throw new StasisError('CHECKPOINT_IN_USE', `checkpoint ${id} is pinned`, { hint: `take the pin away first: stasis unpin ${id}` });
  }

  /** After a writer's manifest was written, or may have been, and must not stay. */
  async takeBack(id: CheckpointId, lineage: LineageId, { signal }: Options): Promise<void> {
    await this.#marks.giveUp(lineage, id, { signal });
    await this.#sweeper.exclusive(lineage, { signal }, async (turn) => {
      await turn.requireHeld({ signal });
      await this.#store.delete(manifestName(id), { signal });
      await turn.sweep(await this.writtenBy(id, { signal }), { own: id, signal });
    });
    await this.#marks.remove(markName(lineage, id, 'write'), { signal });
  }

  async writtenBy(id: CheckpointId, { signal }: Options): Promise<string[]> {
    const names: string[] = [];
    for await (const { name } of this.#store.list(packsOf(id), { signal })) names.push(name);
    return names;
  }

  /** The lineage that these packs of one writer say they are of; undefined when none can be read, or one says otherwise: its header is damaged. */
  async lineageOfPacks(packs: readonly string[], { signal }: Options): Promise<LineageId | undefined> {
    let told: LineageId | undefined;
    for (const name of packs) {
      try {
        const lineage = packLineage(asBuffer(await this.#store.get(name, { offset: 0, length: PACK_HEADER_BYTES }, { signal })), name);
        if (told !== undefined && told !== lineage) return undefined;
        told = lineage;
      } catch (error) {
        if (!isAboutObject(error)) throw error;
      }
    }
    return told;
  }

  async #lineageOf(id: CheckpointId, { signal }: Options): Promise<LineageId | undefined> {
    try {
      return await this.#manifests.lineageOf(id, { signal });
    } catch (error) {
      if (isAboutObject(error)) return undefined;
      throw error;
    }
  }

  /**
   * What a checkpoint names; what its writer wrote, if the manifest cannot be read any more. Such a manifest may be wrong about its
   * lineage, too, and then others need these packs: only those go that say themselves that they are of this lineage.
   */
  async #packsOf(id: CheckpointId, lineage: LineageId, { signal }: Options): Promise<string[]> {
    try {
      const { tables } = await this.#manifests.open(id, { signal });
      return tables.packs.map(packObject);
    } catch (error) {
      if (!isAboutObject(error)) throw error;
      const packs: string[] = [];
      for (const name of await this.writtenBy(id, { signal })) if ((await this.lineageOfPacks([name], { signal })) === lineage) packs.push(name);
      return packs;
    }
  }
}
