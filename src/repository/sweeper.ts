/**
 * Removing in a lineage. One sweeper at a time, since nobody can tell what a lineage needs while somebody else takes manifests
 * out of it; and only while nobody writes or reads there. The order of the steps is the argument: docs/FORMAT.md, "Marks".
 */
import { randomBytes, randomInt } from 'node:crypto';
import type { Clock } from '../core/clock.ts';
import { isStasisError, StasisError } from '../core/errors.ts';
import type { CheckpointId, LineageId } from '../core/ids.ts';
import { ordered } from '../core/ordered.ts';
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
  /** How far the store's lists may lag behind; 0 where they do not. */
  readonly listLagMs: number;
}

/** Packs that the checkpoints of a lineage name, and which checkpoints were looked at; `unknown` when not all could be read. */
interface References {
  readonly packs: Set<string>;
  readonly seen: Set<CheckpointId>;
  checkpoints: number;
}

export interface Swept {
  /** Objects that were removed. */
  readonly removed: readonly string[];
  /** Why nothing was. */
  readonly kept: 'in use' | 'unreadable' | undefined;
}

const ATTEMPTS = 20;
/** Manifests that are looked at, and packs that are deleted, at the same time. */
const PARALLEL = 8;
/** Of the names of marks, as much tells the owner; the rest is drawn anew for each, so that a late request for one never meets the next. */
const OWNER_DIGITS = 12;
const DRAWN_BYTES = 4;

/** The holder of a mark that a sweeper or reader sets. */
export function markHolder(owner: CheckpointId): CheckpointId {
  return `${owner.slice(0, OWNER_DIGITS)}${randomBytes(DRAWN_BYTES).toString('hex')}` as CheckpointId;
}

export function isOwn(holder: CheckpointId, owner: CheckpointId): boolean {
  return holder.startsWith(owner.slice(0, OWNER_DIGITS));
}

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
    for (let attempt = 1; ; attempt += 1) {
      const holder = markHolder(owner);
      const name = markName(lineage, holder, 'sweep');
      try {
        await marks.set(lineage, holder, 'sweep', { signal });
        const turn = new SweeperTurn(this.#options, lineage, name);
        if (attempt === 1) await first?.(turn);
        await turn.settle({ signal });
        const { marks: found, own, nowMs } = await turn.look({ signal });
        for (const { name: old } of own) await marks.remove(old, { signal });
        const other = found.find((mark) => mark.kind === 'sweep' && turn.isAlive(mark, nowMs));
        if (other === undefined) return await body(turn);
        if (attempt === ATTEMPTS) throw busy(lineage, other);
      } finally {
        await marks.remove(name, { signal: undefined }).catch(() => undefined);
      }
      // Both step back, and come again at different times.
      await clock.sleep(randomInt(20, 200), { signal });
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
    return marks.filter((mark) => this.isAlive(mark, nowMs));
  }

  /** All marks of others, what we left in a former life, and the time on the store's clock, which is that of our own mark. */
  async look({ signal }: Options): Promise<{ marks: Mark[]; own: Mark[]; nowMs: number }> {
    const { marks, owner } = this.#options;
    const nowMs = await marks.requireHeld(this.#mark, { signal });
    const all = await marks.list(this.#lineage, { signal });
    // Of ours only one sweeps at a time: any other is of a former life, or could not be removed.
    const { own = [], others = [] } = Object.groupBy(all.filter(({ name }) => name !== this.#mark), ({ kind, holder }) => (kind === 'sweep' && isOwn(holder, owner) ? 'own' : 'others'));
    return { marks: others, own: own.filter(({ setMs }) => setMs !== undefined), nowMs };
  }

  isAlive(mark: Mark, nowMs: number): boolean {
    return mark.setMs !== undefined && !this.isDead(mark, nowMs);
  }

  isDead({ fencedMs }: Mark, nowMs: number): boolean {
    return fencedMs !== undefined && nowMs - fencedMs >= this.#options.graceMs;
  }

  /** Right before a manifest goes: nobody else has been taken for the only sweeper. */
  async requireHeld(options: Options): Promise<void> {
    await this.#options.marks.requireHeld(this.#mark, options);
  }

  /** Until a list shows what was there before this call. */
  async settle({ signal }: Options): Promise<void> {
    if (this.#options.listLagMs > 0) await this.#options.clock.sleep(this.#options.listLagMs, { signal });
  }

  /** Removes those of `packs` that no checkpoint names, and the lineage key with the last checkpoint. `own`: a mark that does not count. */
  async sweep(packs: readonly string[], { own, signal }: Options & { own: CheckpointId | undefined }): Promise<Swept> {
    const { store } = this.#options;
    const inUse = async (): Promise<boolean> => (await this.others({ signal })).some(({ kind, holder }) => kind !== 'write' || holder !== own);
    await this.settle({ signal });
    if (await inUse()) return { removed: [], kept: 'in use' };
    await this.settle({ signal });
    const references: References = { packs: new Set(), seen: new Set(), checkpoints: 0 };
    if (!(await this.#read(references, { signal }))) return { removed: [], kept: 'unreadable' };
    // Still alone, and still unfenced: so no manifest was taken away while they were read.
    if (await inUse()) return { removed: [], kept: 'in use' };
    await this.settle({ signal });
    // Whoever came and went in between has a manifest now.
    if (!(await this.#read(references, { signal }))) return { removed: [], kept: 'unreadable' };
    const removed = packs.filter((name) => !references.packs.has(name));
    for await (const _ of ordered(removed, PARALLEL, (name) => store.delete(name, { signal })));
    if (references.checkpoints > 0) return { removed, kept: undefined };
    await store.delete(lineageName(this.#lineage), { signal });
    return { removed: [...removed, lineageName(this.#lineage)], kept: undefined };
  }

  /** Adds what checkpoints that were not seen yet refer to. False when one of them cannot be read. */
  async #read(references: References, { signal }: Options): Promise<boolean> {
    const { manifests } = this.#options;
    const cache: LineageCache = new Map();
    const fresh = (await manifests.freshIds()).filter((id) => !references.seen.has(id));
    signal?.throwIfAborted();
    const mine = async (id: CheckpointId): Promise<{ id: CheckpointId; packs: readonly string[] | 'unknown' | 'other' }> => {
      try {
        if ((await manifests.lineageOf(id, { signal })) !== this.#lineage) return { id, packs: 'other' };
        return { id, packs: (await manifests.open(id, { signal, cache })).tables.packs.map(packObject) };
      } catch (error) {
        if (isGone(error)) return { id, packs: 'other' };
        if (isAboutObject(error)) return { id, packs: 'unknown' };
        throw error;
      }
    };
    for await (const { id, packs } of ordered(fresh, PARALLEL, mine)) {
      if (packs === 'unknown') return false;
      references.seen.add(id);
      if (packs === 'other') continue;
      for (const pack of packs) references.packs.add(pack);
      references.checkpoints += 1;
    }
    return true;
  }
}

const isGone = (error: unknown): boolean => isStasisError(error, 'OBJECT_MISSING') || isStasisError(error, 'CHECKPOINT_NOT_FOUND');

/** The object cannot be read, as opposed to the store. */
export function isAboutObject(error: unknown): boolean {
  const codes = ['OBJECT_CORRUPT', 'OBJECT_MISSING', 'CHECKPOINT_NOT_FOUND', 'SIGNATURE_INVALID', 'SIGNER_UNTRUSTED', 'KEY_MISSING', 'KEY_WRONG', 'FORMAT_UNSUPPORTED', 'LIMIT_EXCEEDED'] as const;
  return codes.some((code) => isStasisError(error, code));
}
