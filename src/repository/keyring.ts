/** The keys of lineages as a person sees them: to whom each is wrapped; wrapped anew without touching a pack; destroyed. */
import type { CheckpointId, LineageId } from '../core/ids.ts';
import { asStasisError, isStasisError, StasisError } from '../core/errors.ts';
import { asBuffer } from './format/bytes.ts';
import { MAX_LINEAGE_BYTES } from './format/lineage-key.ts';
import { lineageName, LINEAGES } from './format/names.ts';
import { inParallel } from './fetch.ts';
import type { Lineages } from './lineages.ts';
import type { Manifests } from './manifests.ts';
import type { Store } from './store/store.ts';
import type { Sweeper, SweeperTurn } from './sweeper.ts';
import { isAboutObject } from './sweeper.ts';
import type { KeyChange, KeyChangeReport, Keyring, LineageKeyInfo } from './types.ts';
import { hex } from './trust.ts';
import type { KeyProvider } from './keys/port.ts';

interface Options {
  readonly signal: AbortSignal | undefined;
}

/** Requests that wait for each other's answers; small objects, so latency is all there is. */
const PARALLEL = 8;

export class StoreKeyring implements Keyring {
  readonly #store: Store;
  readonly #provider: KeyProvider;
  readonly #lineages: Lineages;
  readonly #manifests: Manifests;
  readonly #sweeper: Sweeper;

  constructor(store: Store, provider: KeyProvider, lineages: Lineages, manifests: Manifests, sweeper: Sweeper) {
    this.#store = store;
    this.#provider = provider;
    this.#lineages = lineages;
    this.#manifests = manifests;
    this.#sweeper = sweeper;
  }

  async list({ signal, onProblem }: Options & { onProblem?: (object: string, error: Error) => void }): Promise<LineageKeyInfo[]> {
    const checkpoints = await this.checkpoints({ signal });
    const own = new Set((await this.#provider.keys()).own.map(hex));
    const found: LineageKeyInfo[] = [];
    await inParallel(await this.#all({ signal }), PARALLEL, async (lineage) => {
      try {
        const key = await this.#lineages.inspect(lineage, { signal });
        found.push({ lineage, ...key, openable: key.recipients.some((recipient) => own.has(recipient)), checkpoints: checkpoints.get(lineage) ?? [] });
      } catch (error) {
        if (!isAboutObject(error)) throw error;
        onProblem?.(lineageName(lineage), error as Error);
      }
    });
    return found.sort((a, b) => (a.lineage < b.lineage ? -1 : 1));
  }

  /** As the manifests claim: nothing of them is checked. */
  async checkpoints({ signal }: Options): Promise<Map<LineageId, CheckpointId[]>> {
    const checkpoints = new Map<LineageId, CheckpointId[]>();
    await inParallel(await Array.fromAsync(this.#manifests.ids({ signal })), PARALLEL, async (id) => {
      try {
        const lineage = await this.#manifests.lineageOf(id, { signal });
        checkpoints.set(lineage, [...(checkpoints.get(lineage) ?? []), id].sort());
      } catch (error) {
        if (!isAboutObject(error)) throw error;
      }
    });
    return checkpoints;
  }

  /** As the only sweeper, so that two changes at once do not undo each other. */
  async rewrap(lineage: LineageId, change: KeyChange, { signal }: Options): Promise<{ epoch: number; changed: boolean }> {
    const { epoch, ...state } = await this.#lineages.inspect(lineage, { signal });
    if (!this.#lineages.differs(state, change(state))) return { epoch, changed: false };
    return this.#sweeper.exclusive(lineage, { signal }, async (turn) => {
      const next = await this.#lineages.rewrap(lineage, change, { signal });
      if (next.object === undefined) return { epoch: next.epoch, changed: false };
      await turn.requireHeld({ signal });
      await this.#store.put(lineageName(lineage), next.object, { signal });
      // Who stood still between the two may have written over the change of another: then it must be made again.
      await turn.requireHeld({ signal });
      this.#lineages.learn(lineage, next);
      return { epoch: next.epoch, changed: true };
    });
  }

  async rewrapAll(lineages: readonly LineageId[] | undefined, change: KeyChange, { signal, dryRun, onLineage, onChanged }: Parameters<Keyring['rewrapAll']>[2]): Promise<KeyChangeReport> {
    const wanted = lineages ?? (await this.#all({ signal }));
    const report = { changed: [] as LineageId[], unchanged: 0, sealed: [] as LineageId[], problems: [] as KeyChangeReport['problems'][number][] };
    let done = 0;
    await inParallel([...new Set(wanted)], PARALLEL, async (lineage) => {
      try {
        const { changed, epoch } = dryRun ? await this.#wouldChange(lineage, change, { signal }) : await this.rewrap(lineage, change, { signal });
        if (changed) report.changed.push(lineage);
        else report.unchanged += 1;
        if (changed && !dryRun) onChanged?.(lineage, epoch);
      } catch (error) {
        signal?.throwIfAborted();
        if (isStasisError(error, 'KEY_WRONG') && error.details['recipient'] === false) report.sealed.push(lineage);
        // Ended meanwhile, with its last checkpoint.
        else if (!isStasisError(error, 'KEY_MISSING') || lineages !== undefined) report.problems.push(problemOf(lineage, error));
      }
      done += 1;
      onLineage?.(done, wanted.length);
    });
    report.changed.sort();
    report.sealed.sort();
    return report;
  }

  async #wouldChange(lineage: LineageId, change: KeyChange, { signal }: Options): Promise<{ changed: boolean; epoch: number }> {
    const { epoch, ...state } = await this.#lineages.inspect(lineage, { signal });
    const changed = this.#lineages.differs(state, change(state));
    if (changed) await this.#lineages.open(lineage, { signal });
    return { changed, epoch };
  }

  shred(lineage: LineageId, { signal }: Options): Promise<void> {
    const object = lineageName(lineage);
    return this.#sweeper.exclusive(lineage, { signal }, async (turn) => {
      const info = await this.#store.head(object, { signal });
      if (info === undefined) throw new StasisError('KEY_MISSING', `there is no key of lineage ${lineage}`, { hint: 'stasis repo keys shows what is there' });
      const key = asBuffer(await this.#store.get(object, { offset: 0, length: Math.min(info.size, MAX_LINEAGE_BYTES) }, { signal }));
      await requireNoWriter(turn, lineage, { signal });
      await turn.requireHeld({ signal });
      await this.#store.delete(object, { signal });
      try {
        await requireNoWriter(turn, lineage, { signal });
      } catch (error) {
        // It came in between and may have read the key: what it writes must stay readable, or it must not be told that it is.
        if (isStasisError(error, 'CHECKPOINT_IN_USE')) await this.#store.put(object, [key], { signal: undefined });
        throw error;
      }
    });
  }

  async #all({ signal }: Options): Promise<LineageId[]> {
    const names = await Array.fromAsync(this.#store.list(LINEAGES, { signal }));
    return names.filter(({ name }) => /^lineages\/[0-9a-f]{32}$/.test(name)).map(({ name }) => name.slice(LINEAGES.length) as LineageId);
  }
}

/** It would bring the key back, or end with a checkpoint that nobody can read. */
async function requireNoWriter(turn: SweeperTurn, lineage: LineageId, { signal }: Options): Promise<void> {
  const writer = (await turn.others({ signal })).find(({ kind }) => kind === 'write');
  if (writer !== undefined) throw new StasisError('CHECKPOINT_IN_USE', `checkpoint ${writer.holder} of lineage ${lineage} is being written`, { hint: 'wait until it is done' });
}

/** What is wrong with one lineage does not keep the others; what is wrong with the store, or with our keys, ends it. */
function problemOf(lineage: LineageId, thrown: unknown): KeyChangeReport['problems'][number] {
  const error = asStasisError(thrown, lineageName(lineage));
  const ours = ['CHECKPOINT_IN_USE', 'WRITER_FENCED', 'USAGE'] as const;
  if (!isAboutObject(error) && !ours.some((code) => code === error.code)) throw error;
  return { object: lineageName(lineage), code: error.code, message: error.message };
}
