/**
 * The pages that a program asked for while it was filled: the next restore of the lineage brings them back before the
 * program runs. Addresses of a lineage hardly change from checkpoint to checkpoint; a page that is gone does no harm.
 */
import { KiB, MiB } from '../../core/units.ts';
import type { PageRun } from '../criu/pagemap.ts';
import { PE_LAZY, PE_PRESENT } from '../criu/pagemap.ts';
import { PAGE } from './tasks.ts';

/** Who touches a page soon touches its neighbours; and most of the cost of a page is its chunk. */
const GRANULE_BYTES = 64 * KiB;
/** What is brought back first delays the start: about a quarter of a second. */
const MAX_BYTES = 256 * MiB;
const MAX_GRANULES = MAX_BYTES / GRANULE_BYTES;
const VERSION = 1;

/** JSON: pairs of pid and granule number, in the order of the first touch. */
interface Stored {
  readonly version: number;
  readonly granules: readonly (readonly [number, number])[];
}

export class WorkingSet {
  readonly #granules = new Map<number, Set<number>>();
  readonly #order: (readonly [number, number])[] = [];

  /** What is not a stored working set counts as an empty one: it is a hint. */
  static parse(value: unknown): WorkingSet {
    const set = new WorkingSet();
    const stored = value as Partial<Stored> | null | undefined;
    if (stored?.version !== VERSION || !Array.isArray(stored.granules)) return set;
    for (const row of stored.granules as unknown[]) {
      const [pid, granule] = (Array.isArray(row) ? row : []) as unknown[];
      if (Number.isSafeInteger(pid) && Number.isSafeInteger(granule)) set.#add(pid as number, granule as number);
    }
    return set;
  }

  /** A fault of the task at this address. Beyond the limit the oldest are kept: they are touched first again. */
  touched(pid: number, address: number): void {
    this.#add(pid, Math.floor(address / GRANULE_BYTES));
  }

  #add(pid: number, granule: number): void {
    const known = this.#granules.get(pid);
    if (known?.has(granule) === true || this.#order.length >= MAX_GRANULES) return;
    if (known === undefined) this.#granules.set(pid, new Set([granule]));
    else known.add(granule);
    this.#order.push([pid, granule]);
  }

  get bytes(): number {
    return this.#order.length * GRANULE_BYTES;
  }

  toJson(): string {
    return JSON.stringify({ version: VERSION, granules: this.#order } satisfies Stored);
  }

  /** The run cut at what is in the set: those parts lose the mark of the pages that may come later. */
  *cut(pid: number, run: PageRun): Generator<PageRun> {
    const granules = this.#granules.get(pid);
    if (granules === undefined || (run.flags & PE_LAZY) === 0) {
      yield run;
      return;
    }
    const end = run.address + run.pages * PAGE;
    let [from, eager] = [run.address, false];
    const part = (to: number): PageRun => ({ address: from, pages: (to - from) / PAGE, flags: eager ? PE_PRESENT : run.flags });
    for (let at = run.address; at < end; at = (Math.floor(at / GRANULE_BYTES) + 1) * GRANULE_BYTES) {
      const wanted = granules.has(Math.floor(at / GRANULE_BYTES));
      if (wanted === eager) continue;
      if (at > from) yield part(at);
      [from, eager] = [at, wanted];
    }
    yield part(end);
  }
}
