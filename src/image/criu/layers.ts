/**
 * Memory that was dumped in several rounds: the first holds all pages, each further one those that were written since,
 * and says of the others that they are in the one before (PE_PARENT). A round is with the writer as soon as it is
 * there; at the end the pages of all rounds are put together by reference, so that the checkpoint is like any other:
 * one pagemap and one pages file for each address space, and nothing of the rounds.
 */
import { StasisError } from '../../core/errors.ts';
import type { CheckpointWriter } from '../../repository/types.ts';
import type { MemoryLayer, ReceivedMemory } from '../types.ts';
import { PE_LAZY, PE_PARENT, PE_PRESENT, PagemapWriter, pagesName } from './pagemap.ts';
import type { PageRun } from './pagemap.ts';

/** Runs of all address spaces together: 50 bytes each, twice while a round is added. */
const MAX_RUNS = 2_000_000;
const PIECE_BYTES = 1024 * 1024;
/** Blobs that are not part of the checkpoint. */
const ROUNDS_PREFIX = 'pre-dump/';

/** Pages that lie one after the other, in the address space and in the blob. */
export interface Place extends PageRun {
  readonly blob: string;
  readonly offset: number;
}

export type Ranges = readonly (readonly [number, number])[];

type Flat = ReadonlyMap<string, readonly Place[]>;
type Received = ReceivedMemory['images'][number];

export type Preview = (images: readonly MemoryLayer[]) => readonly {
  readonly image: MemoryLayer; readonly places: readonly Place[],
}[];

export class MemoryLayers {
  readonly #pageSize: number;
  #flat: Flat = new Map();
  #images: readonly MemoryLayer[] = [];
  #depth = 0;
  #begun = 0;

  constructor(pageSize = 4096) {
    this.#pageSize = pageSize;
  }

  /** Rounds so far. */
  get depth(): number {
    return this.#depth;
  }

  /** Where the pages of another round go. */
  begin(): string {
    this.#begun += 1;
    return `${ROUNDS_PREFIX}${this.#begun}/`;
  }

  /** Whether the last round has this address space, so that the next one may leave pages out. */
  has(pagemap: string): boolean {
    return this.#flat.has(pagemap);
  }

  /** The next round, all of its address spaces. Throws DUMP_FAILED when it refers to pages that are not there. */
  add(images: readonly MemoryLayer[]): void {
    const flat = new Map(images.map((image) => [image.pagemap, flatten(image, this.#flat.get(image.pagemap) ?? [], this.#pageSize)]));
    const runs = [...flat.values()].reduce((sum, places) => sum + places.length, 0);
    if (runs > MAX_RUNS) throw new StasisError('LIMIT_EXCEEDED', `the memory lies in ${runs} pieces; at most ${MAX_RUNS} are put together`, { hint: 'switch pre-dump off for this container (--pre-dump never)' });
    this.#flat = flat;
    this.#images = images;
    this.#depth += 1;
  }

  /**
   * Tells where the pages of the next round would lie, with the rounds of now; nothing is added. It throws like add.
   */
  preview(): Preview {
    const flat = this.#flat;
    return (images) => images.map(
      (image) => ({ image, places: flatten(image, flat.get(image.pagemap) ?? [], this.#pageSize) })
    );
  }

  /** Nothing of the rounds counts: a dump that failed may have taken pages for saved that are not. The next one holds everything. */
  clear(): void {
    this.#flat = new Map();
    this.#images = [];
    this.#depth = 0;
  }

  /**
   * After the last round: pagemaps and pages of the checkpoint, under `prefix`. `locked`: where a process has locked its
   * memory by now. A page there that a round before called lazy must not come later.
   */
  async finish(writer: CheckpointWriter, prefix: string, { signal, locked }: { signal: AbortSignal | undefined; locked: (pid: number) => Ranges }): Promise<Received[]> {
    const finished: Received[] = [];
    for (const { pagemap, kind, id, pagesId } of this.#images) {
      const places = eager(this.#flat.get(pagemap) ?? [], kind === 'task' ? locked(id) : [], this.#pageSize);
      const pages = prefix + pagesName(pagesId);
      // An address space without a page has a file, too.
      await writer.append(pages, [], { signal });
      for (const { blob, offset, pages: count } of places) writer.splice(pages, blob, offset, count * this.#pageSize);
      await writePagemap(writer, prefix + pagemap, { pagesId, places, pageSize: this.#pageSize }, signal);
      finished.push({ pagemap, kind, id, pagesId, pages: countPages(places, PE_PRESENT), lazyPages: countPages(places, PE_LAZY) });
    }
    return finished;
  }

  /** Leaves the rounds themselves out of the checkpoint. */
  drop(writer: CheckpointWriter): void {
    if (this.#begun > 0) writer.drop(ROUNDS_PREFIX);
  }
}

/** Where each page of a round lies: in its own blob, or where the round before had it. */
function flatten({ pagemap, blob, runs }: MemoryLayer, parent: readonly Place[], pageSize: number): Place[] {
  const flat: Place[] = [];
  let [offset, at] = [0, 0];
  for (const run of runs) {
    if ((run.flags & PE_PRESENT) !== 0) {
      push(flat, { address: run.address, pages: run.pages, flags: PE_PRESENT | (run.flags & PE_LAZY), blob, offset }, pageSize);
      offset += run.pages * pageSize;
      continue;
    }
    const end = run.address + run.pages * pageSize;
    let reached = (run.flags & PE_PARENT) === 0 ? -1 : run.address;
    while (at < parent.length && last(parent[at] as Place, pageSize) <= run.address) at += 1;
    for (let i = at; i < parent.length && reached >= 0 && reached < end; i += 1) {
      const place = parent[i] as Place;
      if (place.address > reached) break;
      const pages = (Math.min(end, last(place, pageSize)) - reached) / pageSize;
      push(flat, { ...place, address: reached, pages, offset: place.offset + reached - place.address }, pageSize);
      reached += pages * pageSize;
    }
    if (reached < end) throw new StasisError('DUMP_FAILED', `${pagemap} leaves out ${run.pages} pages at 0x${run.address.toString(16)}, and the dump before does not have them`, { hint: 'try again with --pre-dump never' });
  }
  return flat;
}

function eager(places: readonly Place[], locked: Ranges, pageSize: number): readonly Place[] {
  if (locked.length === 0) return places;
  return places.map((place) => (locked.some(([start, end]) => place.address < end && last(place, pageSize) > start) ? { ...place, flags: place.flags & ~PE_LAZY } : place));
}

const last = ({ address, pages }: PageRun, pageSize: number): number => address + pages * pageSize;

/** Joins what lies together. */
function push(flat: Place[], place: Place, pageSize: number): void {
  const before = flat.at(-1);
  const joins = before !== undefined && before.blob === place.blob && before.flags === place.flags && last(before, pageSize) === place.address && before.offset + before.pages * pageSize === place.offset;
  if (joins) flat[flat.length - 1] = { ...before, pages: before.pages + place.pages };
  else flat.push(place);
}

function countPages(places: readonly Place[], flag: number): number {
  return places.reduce((sum, { pages, flags }) => sum + ((flags & flag) === 0 ? 0 : pages), 0);
}

async function writePagemap(writer: CheckpointWriter, blob: string, { pagesId, places, pageSize }: { pagesId: number; places: readonly Place[]; pageSize: number }, signal: AbortSignal | undefined): Promise<void> {
  const encoder = new PagemapWriter();
  const parts = [encoder.head(pagesId)];
  for (const run of runsOf(places, pageSize)) parts.push(encoder.run(run));
  const bytes = Buffer.concat(parts);
  if (bytes.length <= PIECE_BYTES) return writer.putSmall(blob, bytes, { signal });
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
  shared.set(bytes);
  const pieces = Array.from({ length: Math.ceil(bytes.length / PIECE_BYTES) }, (_, i) => {
    const offset = i * PIECE_BYTES;
    return { source: { kind: 'memory', buffer: shared.buffer, offset, length: Math.min(PIECE_BYTES, bytes.length - offset) } as const, zeroPages: false };
  });
  await writer.append(blob, pieces, { signal });
}

/** In the pages file the pages of all rounds lie one after the other, so a run does not end where a round does. */
export function* runsOf(places: readonly Place[], pageSize: number): Generator<PageRun> {
  let run: PageRun | undefined;
  for (const { address, pages, flags } of places) {
    if (run !== undefined && run.flags === flags && last(run, pageSize) === address) run = { ...run, pages: run.pages + pages };
    else {
      if (run !== undefined) yield run;
      run = { address, pages, flags };
    }
  }
  if (run !== undefined) yield run;
}
