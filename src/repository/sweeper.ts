/**
 * Removing in a lineage. One sweeper at a time, since nobody can tell what a lineage needs while somebody else takes manifests
 * out of it; and only while nobody writes or reads there. The order of the steps is the argument: docs/FORMAT.md, "Marks".
 */
import { randomInt } from 'node:crypto';
import type { Clock } from '../core/clock.ts';
import { isStasisError, StasisError } from '../core/errors.ts';
import type { CheckpointId, LineageId } from '../core/ids.ts';
import { packObject } from './format/body.ts';
import { lineageName, markName } from './format/names.ts';
import type { LineageCache, Manifests } from './manifests.ts';
import type { Mark, Marks } from './marks.ts';
import type { Store } from './store/store.ts';

interface Options {
  readonly signal: AbortSignal | undefined;
}

export interface SweeperOptions {
  readonly store: Store;
  readonly manifests: Manifests;
  readonly marks: Marks;
  readonly clock: Clock;
  /** Who we are, the same over restarts: our own mark of a former life is no obstacle. */
  readonly owner: CheckpointId;
  /** How long a mark, and then its fence, must have been there before its holder counts as dead. */
  readonly graceMs: number;
}

/** Packs that the checkpoints of a lineage name, and how many there are; `unknown` when not all could be read. */
type References = { readonly packs: ReadonlySet<string>; readonly checkpoints: number } | 'unknown';

export interface Swept {
  /** Objects that were removed. */
  readonly removed: readonly string[];
  /** Why nothing was. */
  readonly kept: 'in use' | 'unreadable' | undefined;
}

const ATTEMPTS = 20;

export class Sweeper {
  readonly #options: SweeperOptions;
  readonly #busy = new Map<LineageId, Promise<unknown>>();

  constructor(options: SweeperOptions) {
    this.#options = options;
  }

  /**
   * Alone in a lineage. Throws CHECKPOINT_IN_USE when another agent stays in the way. `first` is called when our mark is set
   * and before it is clear that we are alone.
   */
  async exclusive<T>(lineage: LineageId, { signal, first }: Options & { first?: (turn: SweeperTurn) => Promise<void> }, body: (turn: SweeperTurn) => Promise<T>): Promise<T> {
    const before = this.#busy.get(lineage) ?? Promise.resolve();
    const mine = before.catch(() => undefined).then(() => this.#alone(lineage, signal, first, body));
    this.#busy.set(lineage, mine);
    try {
      return await mine;
    } finally {
      if (this.#busy.get(lineage) === mine) this.#busy.delete(lineage);
    }
  }

  async #alone<T>(lineage: LineageId, signal: AbortSignal | undefined, first: ((turn: SweeperTurn) => Promise<void>) | undefined, body: (turn: SweeperTurn) => Promise<T>): Promise<T> {
    const { marks, owner, clock } = this.#options;
    const name = markName(lineage, owner, 'sweep');
    try {
      for (let attempt = 1; ; attempt += 1) {
        await marks.unfence(name, { signal });
        await marks.set(lineage, owner, 'sweep', { signal });
        const turn = new SweeperTurn(this.#options, lineage, name);
        if (attempt === 1) await first?.(turn);
        const other = (await turn.others({ signal })).find(({ kind }) => kind === 'sweep');
        if (other === undefined) return await body(turn);
        if (attempt === ATTEMPTS) throw busy(lineage, other);
        // Both step back, and come again at different times.
        await marks.remove(name, { signal });
        await clock.sleep(randomInt(20, 200), { signal });
      }
    } finally {
      await marks.remove(name, { signal: undefined }).catch(() => undefined);
    }
  }
}

function busy(lineage: LineageId, other: Mark): StasisError {
  return new StasisError('CHECKPOINT_IN_USE', `another agent is removing checkpoints of lineage ${lineage}`, {
    hint: 'try again in a moment; the mark of an agent that died is removed by stasis repo prune after repository.grace',
    details: { object: other.name },
  });
}

/** What the one sweeper of a lineage may do while its mark holds. */
export class SweeperTurn {
  readonly #options: SweeperOptions;
  readonly #lineage: LineageId;
  readonly #mark: string;

  constructor(options: SweeperOptions, lineage: LineageId, mark: string) {
    this.#options = options;
    this.#lineage = lineage;
    this.#mark = mark;
  }

  /** Marks of others that count: not of the dead. Throws WRITER_FENCED when we are the dead. */
  async others({ signal }: Options): Promise<Mark[]> {
    const { marks, nowMs } = await this.look({ signal });
    return marks.filter((mark) => mark.setMs !== undefined && !this.isDead(mark, nowMs));
  }

  /** All marks of others, and the time on the store's clock, which is that of our own mark. */
  async look({ signal }: Options): Promise<{ marks: Mark[]; nowMs: number }> {
    const all = await this.#options.marks.list(this.#lineage, { signal });
    const own = all.find(({ name }) => name === this.#mark);
    if (own?.setMs === undefined || own.fencedMs !== undefined) {
      throw new StasisError('WRITER_FENCED', `${this.#mark} was fenced: another agent thought that this one was dead`, { hint: 'try again', details: { object: this.#mark } });
    }
    return { marks: all.filter((mark) => mark !== own), nowMs: own.setMs };
  }

  isDead({ fencedMs }: Mark, nowMs: number): boolean {
    return fencedMs !== undefined && nowMs - fencedMs >= this.#options.graceMs;
  }

  /** Right before a manifest goes: nobody else has been taken for the only sweeper. */
  async requireHeld(options: Options): Promise<void> {
    await this.#options.marks.requireHeld(this.#mark, options);
  }

  /** Removes those of `packs` that no checkpoint names, and the lineage key with the last checkpoint. `own`: a mark that does not count. */
  async sweep(packs: readonly string[], { own, signal }: Options & { own: CheckpointId | undefined }): Promise<Swept> {
    const { store } = this.#options;
    const inUse = async (): Promise<boolean> => (await this.others({ signal })).some(({ kind, holder }) => kind !== 'write' || holder !== own);
    if (await inUse()) return { removed: [], kept: 'in use' };
    const references = await this.#references({ signal });
    if (references === 'unknown') return { removed: [], kept: 'unreadable' };
    // Still alone, and still unfenced: so no manifest was taken away while they were read.
    if (await inUse()) return { removed: [], kept: 'in use' };
    const removed = packs.filter((name) => !references.packs.has(name));
    for (const name of removed) await store.delete(name, { signal });
    if (references.checkpoints > 0) return { removed, kept: undefined };
    await store.delete(lineageName(this.#lineage), { signal });
    return { removed: [...removed, lineageName(this.#lineage)], kept: undefined };
  }

  async #references({ signal }: Options): Promise<References> {
    const { manifests } = this.#options;
    const packs = new Set<string>();
    const cache: LineageCache = new Map();
    let checkpoints = 0;
    for await (const other of manifests.ids({ signal })) {
      try {
        if ((await manifests.lineageOf(other, { signal })) !== this.#lineage) continue;
        const { tables } = await manifests.open(other, { signal, cache });
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
}

const isGone = (error: unknown): boolean => isStasisError(error, 'OBJECT_MISSING') || isStasisError(error, 'CHECKPOINT_NOT_FOUND');

/** The object cannot be read, as opposed to the store. */
export function isAboutObject(error: unknown): boolean {
  const codes = ['OBJECT_CORRUPT', 'OBJECT_MISSING', 'CHECKPOINT_NOT_FOUND', 'SIGNATURE_INVALID', 'SIGNER_UNTRUSTED', 'KEY_MISSING', 'KEY_WRONG', 'FORMAT_UNSUPPORTED', 'LIMIT_EXCEEDED'] as const;
  return codes.some((code) => isStasisError(error, code));
}
