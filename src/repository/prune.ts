/**
 * Prune: finds what crashed, paused and forgotten agents left, and removes it when that is safe. A first prune fences those
 * that seem dead, a later one, `grace` after it, removes what they left: so nothing orphaned survives two prunes.
 */
import { isStasisError } from '../core/errors.ts';
import type { CheckpointId, LineageId } from '../core/ids.ts';
import { ordered } from '../core/ordered.ts';
import { packObject } from './format/body.ts';
import { checkpointOfPack, lineageName, LINEAGES, manifestName, PACKS, packsOf, pinName } from './format/names.ts';
import type { Garbage } from './garbage.ts';
import type { Manifests } from './manifests.ts';
import type { Mark, Marks } from './marks.ts';
import type { ObjectInfo, Store } from './store/store.ts';
import { readPins } from './pins.ts';
import type { Sweeper, SweeperTurn, Swept } from './sweeper.ts';
import { isAboutObject } from './sweeper.ts';
import type { PruneReport } from './types.ts';

interface Options {
  readonly signal: AbortSignal | undefined;
}

export interface PruneParts {
  readonly store: Store;
  readonly manifests: Manifests;
  readonly marks: Marks;
  readonly sweeper: Sweeper;
  readonly garbage: Garbage;
  readonly graceMs: number;
}

/** A fence without a mark is kept for this many graces: a writer that slept longer would not be recognised by it. */
const FENCE_GRACES = 10;
/** Manifests that are looked at at the same time. */
const PARALLEL = 16;
/** They share the lists of all manifests that each of them needs. */
const LINEAGES_AT_ONCE = 32;

/** What a lineage has that may have to go. */
interface Suspect {
  orphans: ObjectInfo[];
  readonly marks: Mark[];
  /** Only headers of packs tell of this lineage. */
  byHeader: boolean;
}

export interface Survey {
  /** Packs whose writer has no manifest, marks, and a key without checkpoints, by lineage. */
  readonly suspects: ReadonlyMap<LineageId, Suspect>;
  /** Packs that do not even tell their lineage. */
  readonly strangers: ObjectInfo[];
  /** Names of the keys of lineages that have checkpoints. */
  readonly living: ReadonlySet<string>;
}

/**
 * What may have to go. Held in memory: the names of checkpoints, and what seems loose. A pack whose writer is seen with neither
 * mark nor manifest, looked for in the order in which writers make them, is an orphan; who removes it looks again.
 */
export async function survey(parts: PruneParts, { signal }: Options): Promise<Survey> {
  const { store, marks, manifests } = parts;
  const living = new Set<string>();
  const before = new Set<CheckpointId>();
  const about = (id: CheckpointId): Promise<readonly [CheckpointId, LineageId | undefined]> => ofManifest(manifests, id, { signal }).then((lineage) => [id, lineage]);
  for await (const [id, lineage] of ordered(manifests.ids({ signal }), PARALLEL, about)) {
    before.add(id);
    if (lineage !== undefined) living.add(lineageName(lineage));
  }
  const keys: string[] = [];
  for await (const { name } of store.list(LINEAGES, { signal })) if (!living.has(name) && /^lineages\/[0-9a-f]{32}$/.test(name)) keys.push(name);
  const loose = new Map<CheckpointId, ObjectInfo[]>();
  for await (const pack of store.list(PACKS, { signal })) {
    const checkpoint = checkpointOfPack(pack.name);
    if (checkpoint === undefined || before.has(checkpoint)) continue;
    const group = loose.get(checkpoint);
    if (group === undefined) loose.set(checkpoint, [pack]);
    else group.push(pack);
  }
  const allMarks = await marks.list(undefined, { signal });
  return { ...(await bySuspect(parts, { keys, loose, allMarks }, { signal })), living };
}

async function bySuspect({ manifests, garbage }: PruneParts, { keys, loose, allMarks }: { keys: readonly string[]; loose: ReadonlyMap<CheckpointId, ObjectInfo[]>; allMarks: readonly Mark[] }, { signal }: Options): Promise<Omit<Survey, 'living'>> {
  const suspects = new Map<LineageId, Suspect>();
  const of = (lineage: LineageId): Suspect => {
    const suspect = suspects.get(lineage) ?? { orphans: [], marks: [], byHeader: false };
    suspects.set(lineage, suspect);
    return suspect;
  };
  const strangers: ObjectInfo[] = [];
  const writers = new Map<CheckpointId, LineageId>();
  for (const mark of allMarks) {
    of(mark.lineage).marks.push(mark);
    if (mark.kind === 'write') writers.set(mark.holder, mark.lineage);
  }
  for (const [checkpoint, group] of loose) {
    if (await manifests.exists(checkpoint, { signal })) continue;
    const marked = writers.get(checkpoint);
    const lineage = marked ?? (await garbage.lineageOfPacks(group.map(({ name }) => name), { signal }));
    if (lineage === undefined) {
      strangers.push(...group);
      continue;
    }
    of(lineage).orphans.push(...group);
    if (marked === undefined) of(lineage).byHeader = true;
  }
  for (const key of keys) of(key.slice(LINEAGES.length) as LineageId);
  return { suspects, strangers };
}

/**
 * A lineage without any checkpoint is known by the headers of its packs alone, and a damaged header names such a one. So of these
 * only packs count that no checkpoint of whatever lineage needs; none, when not all checkpoints can be read.
 */
async function withhold({ manifests }: PruneParts, { suspects, living, strangers }: Survey, { signal }: Options): Promise<void> {
  const doubtful = [...suspects].flatMap(([lineage, suspect]) => (suspect.byHeader && !living.has(lineageName(lineage)) ? [suspect] : []));
  if (doubtful.length === 0) return;
  const { needed, all } = await neededPacks(manifests, { signal });
  for (const suspect of doubtful) {
    const free = suspect.orphans.filter(({ name }) => all && !needed.has(name));
    strangers.push(...suspect.orphans.filter((pack) => !free.includes(pack)));
    suspect.orphans = free;
  }
}

/** Packs that checkpoints of whatever lineage name; whether all checkpoints could be read. */
async function neededPacks(manifests: Manifests, { signal }: Options): Promise<{ needed: ReadonlySet<string>; all: boolean }> {
  const needed = new Set<string>();
  let all = true;
  for await (const id of manifests.ids({ signal })) {
    try {
      for (const pack of (await manifests.open(id, { signal })).tables.packs) needed.add(packObject(pack));
    } catch (error) {
      if (!isAboutObject(error)) throw error;
      all &&= isStasisError(error, 'CHECKPOINT_NOT_FOUND');
    }
  }
  return { needed, all };
}

async function ofManifest(manifests: Manifests, id: CheckpointId, options: Options): Promise<LineageId | undefined> {
  try {
    return await manifests.lineageOf(id, options);
  } catch (error) {
    if (isAboutObject(error)) return undefined;
    throw error;
  }
}

export async function prune(parts: PruneParts, { signal, dryRun, onLineage }: Options & { dryRun: boolean; onLineage?: (done: number, total: number) => void }): Promise<PruneReport> {
  const surveyed = await survey(parts, { signal });
  const { suspects, strangers } = surveyed;
  await withhold(parts, surveyed, { signal });
  // A pin is set while its manifest is there, and no manifest comes back.
  if (!dryRun) for (const { checkpoint } of await readPins(parts.store, { signal })) if (!(await parts.manifests.exists(checkpoint, { signal }))) await parts.store.delete(pinName(checkpoint), { signal });
  const report = { packs: 0, bytes: 0, keys: 0, fenced: 0, marks: 0, manifests: 0, kept: [] as PruneReport['kept'][number][] };
  const needed = dryRun ? (await neededPacks(parts.manifests, { signal })).needed : new Set<string>();
  let done = 0;
  const one = async ([lineage, suspect]: [LineageId, Suspect]): Promise<void> => {
    if (dryRun) {
      const orphans = suspect.orphans.filter(({ name }) => !needed.has(name));
      report.packs += orphans.length;
      report.bytes += sum(orphans);
    } else {
      await new LineagePrune(parts, lineage, suspect, report).run({ signal });
    }
  };
  for await (const _ of ordered(suspects, LINEAGES_AT_ONCE, one)) {
    done += 1;
    onLineage?.(done, suspects.size);
  }
  if (strangers.length > 0) report.kept.push({ lineage: '', packs: strangers.length, bytes: sum(strangers), reason: 'unreadable' });
  return report;
}

const sum = (objects: readonly ObjectInfo[]): number => objects.reduce((total, { size }) => total + size, 0);

type Counts = { -readonly [Key in Exclude<keyof PruneReport, 'kept'>]: PruneReport[Key] } & { kept: PruneReport['kept'][number][] };

class LineagePrune {
  readonly #parts: PruneParts;
  readonly #lineage: LineageId;
  readonly #suspect: Suspect;
  readonly #report: Counts;

  constructor(parts: PruneParts, lineage: LineageId, suspect: Suspect, report: Counts) {
    this.#parts = parts;
    this.#lineage = lineage;
    this.#suspect = suspect;
    this.#report = report;
  }

  async run({ signal }: Options): Promise<void> {
    try {
      await this.#parts.sweeper.exclusive(this.#lineage, { signal, first: (turn) => this.#fence(turn, { signal }) }, (turn) => this.#exclusive(turn, { signal }));
    } catch (error) {
      // Somebody else is at it, or thought that we were dead: the next prune will see.
      if (!isStasisError(error, 'CHECKPOINT_IN_USE') && !isStasisError(error, 'WRITER_FENCED')) throw error;
      this.#kept('in use');
    }
  }

  async #exclusive(turn: SweeperTurn, { signal }: Options): Promise<void> {
    const { marks, nowMs } = await turn.look({ signal });
    const dead: Mark[] = [];
    for (const mark of marks) {
      if (await this.#judge(turn, mark, nowMs, { signal })) dead.push(mark);
    }
    const swept = await turn.sweep(this.#suspect.orphans.map(({ name }) => name), { own: undefined, signal });
    this.#count(swept);
    if (swept.kept === 'in use') return;
    for (const mark of dead) await this.#bury(mark, nowMs, { signal });
  }

  /** Fences those that seem dead, for the next prune. It can do no harm: one that lives gives up by itself, and says so. */
  async #fence(turn: SweeperTurn, { signal }: Options): Promise<void> {
    const { marks, graceMs } = this.#parts;
    const { marks: all, nowMs } = await turn.look({ signal });
    for (const mark of all) {
      if (mark.fencedMs !== undefined || mark.setMs === undefined || nowMs - mark.setMs < graceMs) continue;
      await marks.fence(mark, { signal });
      this.#report.fenced += 1;
    }
  }

  /** Whether its holder is dead for good. */
  async #judge(turn: SweeperTurn, mark: Mark, nowMs: number, { signal }: Options): Promise<boolean> {
    if (!turn.isDead(mark, nowMs)) return false;
    if (mark.kind === 'write' && (await this.#parts.manifests.exists(mark.holder, { signal }))) await this.#late(turn, mark, { signal });
    return true;
  }

  /** A manifest beside a fence: written before the fence, or by a writer that woke up too late and died before it took it back. */
  async #late(turn: SweeperTurn, { name, holder }: Mark, { signal }: Options): Promise<void> {
    // The fence stays all the same: a sweeper that took the packs for garbage may be asleep, and no writer builds on a fenced one.
    if (!(await this.#parts.marks.isGivenUp(name, { signal })) && (await this.#isWhole(holder, { signal }))) return;
    await turn.requireHeld({ signal });
    await this.#parts.store.delete(manifestName(holder), { signal });
    this.#report.manifests += 1;
    const known = new Set(this.#suspect.orphans.map(({ name }) => name));
    for await (const pack of this.#parts.store.list(packsOf(holder), { signal })) if (!known.has(pack.name)) this.#suspect.orphans.push(pack);
  }

  /** True, too, when it cannot be told. */
  async #isWhole(id: CheckpointId, { signal }: Options): Promise<boolean> {
    const { manifests, store } = this.#parts;
    try {
      const { tables } = await manifests.open(id, { signal });
      for (const pack of tables.packs) if ((await store.head(packObject(pack), { signal })) === undefined) return false;
      return true;
    } catch (error) {
      if (isStasisError(error, 'KEY_MISSING')) return false;
      if (isAboutObject(error)) return true;
      throw error;
    }
  }

  /** The fence outlives the mark, for whoever wakes up very late. */
  async #bury(mark: Mark, nowMs: number, { signal }: Options): Promise<void> {
    const { marks, graceMs } = this.#parts;
    if (mark.setMs !== undefined) {
      await marks.remove(mark.name, { signal });
      this.#report.marks += 1;
    } else if (mark.fencedMs !== undefined && nowMs - mark.fencedMs >= FENCE_GRACES * graceMs) {
      await marks.unfence(mark.name, { signal });
    }
  }

  #count({ removed, kept }: Swept): void {
    const gone = new Set(removed);
    const packs = this.#suspect.orphans.filter(({ name }) => gone.has(name));
    this.#report.packs += packs.length;
    this.#report.bytes += sum(packs);
    this.#report.keys += removed.filter((name) => name.startsWith(LINEAGES)).length;
    if (kept !== undefined) this.#kept(kept);
  }

  #kept(reason: 'in use' | 'unreadable'): void {
    const { orphans } = this.#suspect;
    if (orphans.length > 0) this.#report.kept.push({ lineage: this.#lineage, packs: orphans.length, bytes: sum(orphans), reason });
  }
}
