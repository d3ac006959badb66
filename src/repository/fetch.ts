/** Fetches ranges of packs and has the workers open what is in them: several at once, in bounded memory. */
import type { StagePool } from './stage/pool.ts';
import type { ChunkProblem, ChunkSecrets, ChunkTask, WireSink } from './stage/messages.ts';
import type { PlannedFetch } from './plan.ts';
import type { Tables } from './format/body.ts';
import { packObject } from './format/body.ts';
import type { Store } from './store/store.ts';

/** Long enough for a request to be worth it, short enough that small restores use all workers. */
export const FETCH_BYTES = 4 * 1024 * 1024;

export interface FetchContext {
  readonly store: Store;
  readonly pool: StagePool;
  readonly secrets: ChunkSecrets;
  readonly tables: Tables;
  readonly verify: boolean;
  /** With buffers of their own, so that they wait for no others: single chunks only. */
  readonly urgent?: boolean;
}

/** A part's target is already in the form for the worker. */
export interface WireTarget {
  readonly sink: WireSink;
  readonly transfer: ArrayBuffer[];
}

/** Fetches and opens one range. Returns what was wrong with chunks in it; throws what is wrong with the store. */
export async function fetchRange(context: FetchContext, fetch: PlannedFetch<WireTarget>, signal: AbortSignal | undefined): Promise<readonly ChunkProblem[]> {
  const { store, pool, tables } = context;
  const pack = tables.packs[fetch.pack];
  if (pack === undefined) throw new Error(`invariant broken: pack ${fetch.pack} is in the table`);
  const buffers = context.urgent === true ? pool.urgent : pool.buffers;
  const buffer = await buffers.acquire({ signal });
  let lent = false;
  try {
    const into = new Uint8Array(buffer, 0, fetch.length);
    await store.get(packObject(pack), { offset: fetch.offset, length: fetch.length }, { signal, into });
    lent = true;
    const { tasks, transfer } = toTasks(fetch, tables);
    return await pool.open({ secrets: context.secrets, pack: packObject(pack), base: fetch.offset, buffer, verify: context.verify, tasks }, transfer, buffers);
  } finally {
    if (!lent) buffers.release(buffer);
  }
}

function toTasks(fetch: PlannedFetch<WireTarget>, { chunks }: Tables): { tasks: ChunkTask[]; transfer: ArrayBuffer[] } {
  const transfer: ArrayBuffer[] = [];
  const tasks = fetch.chunks.map(({ chunk, parts }) => {
    const place = chunks.place(chunk);
    for (const { target } of parts) transfer.push(...target.transfer);
    return {
      chunk,
      // A copy: sending a view would send the whole table behind it.
      id: new Uint8Array(chunks.id(chunk)),
      at: place.offset - fetch.offset,
      stored: place.stored,
      raw: place.raw,
      codec: place.codec,
      parts: parts.map(({ offset, length, target }) => ({ offset, length, sink: target.sink })),
    };
  });
  return { tasks, transfer };
}

/** Runs `work` on all items, `width` at a time; after the first failure no more are begun, and those begun are waited for. */
export async function inParallel<T>(items: Iterable<T> | AsyncIterable<T>, width: number, work: (item: T) => Promise<void>): Promise<void> {
  const running = new Set<Promise<void>>();
  let failure: { error: unknown } | undefined;
  const run = async (item: T): Promise<void> => {
    try {
      await work(item);
    } catch (error) {
      failure ??= { error };
    }
  };
  try {
    for await (const item of items) {
      if (failure !== undefined) break;
      const one = run(item).finally(() => running.delete(one));
      running.add(one);
      if (running.size >= width) await Promise.race(running);
    }
  } finally {
    await Promise.all(running);
  }
  if (failure !== undefined) throw failure.error;
}
