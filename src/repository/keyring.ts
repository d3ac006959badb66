/** The keys of lineages as a person sees them: to whom each is wrapped; wrapped anew without touching a pack; destroyed. */
import type { LineageId } from '../core/ids.ts';
import { StasisError } from '../core/errors.ts';
import { lineageName, LINEAGES } from './format/names.ts';
import type { Lineages } from './lineages.ts';
import type { Manifests } from './manifests.ts';
import type { Store } from './store/store.ts';
import type { Sweeper } from './sweeper.ts';
import { isAboutObject } from './sweeper.ts';
import type { Keyring, LineageKeyInfo } from './types.ts';

interface Options {
  readonly signal: AbortSignal | undefined;
}

export class StoreKeyring implements Keyring {
  readonly #store: Store;
  readonly #lineages: Lineages;
  readonly #manifests: Manifests;
  readonly #sweeper: Sweeper;

  constructor(store: Store, lineages: Lineages, manifests: Manifests, sweeper: Sweeper) {
    this.#store = store;
    this.#lineages = lineages;
    this.#manifests = manifests;
    this.#sweeper = sweeper;
  }

  async list({ signal, onProblem }: Options & { onProblem?: (object: string, error: Error) => void }): Promise<LineageKeyInfo[]> {
    const checkpoints = new Map<LineageId, number>();
    for await (const id of this.#manifests.ids({ signal })) {
      try {
        const lineage = await this.#manifests.lineageOf(id, { signal });
        checkpoints.set(lineage, (checkpoints.get(lineage) ?? 0) + 1);
      } catch (error) {
        if (!isAboutObject(error)) throw error;
      }
    }
    const found: LineageKeyInfo[] = [];
    for await (const { name } of this.#store.list(LINEAGES, { signal })) {
      if (!/^lineages\/[0-9a-f]{32}$/.test(name)) continue;
      const lineage = name.slice(LINEAGES.length) as LineageId;
      try {
        found.push({ lineage, ...(await this.#lineages.inspect(lineage, { signal })), checkpoints: checkpoints.get(lineage) ?? 0 });
      } catch (error) {
        if (!isAboutObject(error)) throw error;
        onProblem?.(name, error as Error);
      }
    }
    return found;
  }

  /** As the only sweeper, so that two changes at once do not undo each other. */
  rewrap(lineage: LineageId, change: (recipients: readonly string[]) => readonly string[], { signal }: Options): Promise<number> {
    return this.#sweeper.exclusive(lineage, { signal }, async (turn) => {
      const { object, epoch } = await this.#lineages.rewrap(lineage, change, { signal });
      await turn.requireHeld({ signal });
      await this.#store.put(lineageName(lineage), object, { signal });
      return epoch;
    });
  }

  shred(lineage: LineageId, { signal }: Options): Promise<void> {
    return this.#sweeper.exclusive(lineage, { signal }, async (turn) => {
      if ((await this.#store.head(lineageName(lineage), { signal })) === undefined) {
        throw new StasisError('KEY_MISSING', `there is no key of lineage ${lineage}`, { hint: 'stasis keys list shows what is there' });
      }
      // A writer at work would bring it back, or end with a checkpoint that nobody can read.
      const writer = (await turn.others({ signal })).find(({ kind }) => kind === 'write');
      if (writer !== undefined) throw new StasisError('CHECKPOINT_IN_USE', `checkpoint ${writer.holder} of lineage ${lineage} is being written`, { hint: 'wait until it is done' });
      await turn.requireHeld({ signal });
      await this.#store.delete(lineageName(lineage), { signal });
    });
  }
}
