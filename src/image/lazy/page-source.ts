/**
 * Where the pages of a lazy restore come from: the repository, chunk by chunk. What criu asks for comes first; behind its
 * sequential transfer a window of chunks is read ahead, so that it finds them here. A store that fails is asked again
 * and again: whoever waits for a page waits. Only damage ends it.
 */
import { StasisError, asStasisError, errorTable } from '../../core/errors.ts';
import type { CheckpointReader } from '../../repository/types.ts';
import { BlockCache } from './block-cache.ts';
import { BlockMap } from './blocks.ts';
import type { Block } from './blocks.ts';
import { BLOCK_BYTES, type BlockSlots } from './slots.ts';
import { PAGE, type LazyTask } from './tasks.ts';

export interface PageSourceOptions {
  readonly reader: CheckpointReader;
  readonly tasks: readonly LazyTask[];
  /** Bytes of pages held in memory at once. */
  readonly cacheBytes: number;
  /** Where that memory comes from. */
  readonly slots: BlockSlots;
  /** Waits between two tries to read from a store that fails. */
  readonly sleep: (ms: number, options: { signal: AbortSignal }) => Promise<void>;
  /** Ends all waiting. */
  readonly signal: AbortSignal;
  /** The store failed and is asked again. */
  readonly onStall?: (error: StasisError) => void;
}

/** Consecutive pages, at least one. `sent` must be called when the parts were handed to the kernel. */
export interface Pages {
  readonly pages: number;
  readonly parts: readonly Uint8Array[];
  readonly sent: () => void;
}

interface Place {
  readonly map: BlockMap;
  readonly task: LazyTask;
  /** Position of the map's first block among all blocks. */
  readonly first: number;
}

/** Chunks that are fetched together: neighbours in a pack become one request to the store. As many packs as there are processors were written side by side. */
const GROUP = 8;
const RETRY_MS = [100, 200, 500, 1000, 2000, 5000] as const;
const ZEROS = new Uint8Array(BLOCK_BYTES);

export class PageSource implements Disposable {
  readonly totalBytes: number;
  readonly #options: PageSourceOptions;
  readonly #places = new Map<number, Place>();
  readonly #all: Block[] = [];
  readonly #cache: BlockCache;
  readonly #window: number;
  /** Where criu's transfer is, among all blocks. */
  #cursor = 0;
  readonly #failed = Promise.withResolvers<never>();

  constructor(options: PageSourceOptions) {
    this.#options = options;
    for (const task of options.tasks) {
      const map = new BlockMap(task, options.reader.segments(task.blob));
      this.#places.set(task.pid, { map, task, first: this.#all.length });
      for (const block of map.blocks) this.#all.push(block);
    }
    this.totalBytes = options.tasks.reduce((sum, { lazyBytes }) => sum + lazyBytes, 0);
    const slots = Math.max(2 * GROUP, Math.floor(options.cacheBytes / BLOCK_BYTES));
    this.#window = Math.floor((slots * 2) / 3);
    // Nobody may look before it happens.
    this.#failed.promise.catch(() => {});
    this.#cache = new BlockCache({ reader: options.reader, slots: options.slots, limit: slots, fetch: (work) => this.#untilRead(work), onAhead: () => this.#readAhead() });
  }

  /** What comes first is fetched before criu asks. */
  start(): void {
    this.#readAhead();
  }

  /** Begins to fetch what take() will be asked for: a single page at once, before all others. Throws for pages that no task has. */
  expect(pid: number, address: number, pages: number): void {
    const { place, at } = this.#locate(pid, address);
    const number = place.map.find(at.offset);
    const block = place.map.blocks[number]!;
    if (pages > 1) this.#follow(place, number);
    else if (!block.zero && !this.#cache.has(block)) this.#cache.need(block).catch(() => {});
  }

  /**
   * Some of the pages asked for, and at least the first: what is not here would make the requests behind this one wait.
   * Throws OBJECT_CORRUPT and the like, or the signal's reason; never for a store that is away.
   */
  async take(pid: number, address: number, pages: number): Promise<Pages> {
    const { place, at } = this.#locate(pid, address);
    const end = at.offset + Math.min(pages, at.pages) * PAGE;
    let number = place.map.find(at.offset);
    if (pages > 1) this.#follow(place, number);
    const first = place.map.blocks[number]!;
    // Others who need a place may have pushed it out again by the time that this goes on.
    while (!first.zero && this.#cache.peek(first) === undefined) await this.#cache.need(first);
    const used: { readonly block: Block; readonly length: number }[] = [];
    const parts: Uint8Array[] = [];
    let from = at.offset;
    for (; from < end; number += 1) {
      const block = place.map.blocks[number]!;
      const to = Math.min(end, block.end);
      if (!this.#part(block, from, to, parts)) break;
      used.push({ block, length: to - from });
      this.#cache.pin(block);
      from = to;
    }
    return { pages: (from - at.offset) / PAGE, parts, sent: () => this.#sent(used) };
  }

  #part(block: Block, from: number, to: number, parts: Uint8Array[]): boolean {
    if (block.zero) {
      for (let left = to - from; left > 0; left -= ZEROS.length) parts.push(ZEROS.subarray(0, Math.min(left, ZEROS.length)));
      return true;
    }
    const slot = this.#cache.peek(block);
    if (slot === undefined) return false;
    parts.push(new Uint8Array(slot, from - block.start, to - from));
    return true;
  }

  #sent(used: readonly { readonly block: Block; readonly length: number }[]): void {
    for (const { block, length } of used) {
      block.left -= length;
      this.#cache.unpin(block, block.left <= 0);
    }
    this.#readAhead();
  }

  #locate(pid: number, address: number): { readonly place: Place; readonly at: { readonly offset: number; readonly pages: number } } {
    const place = this.#places.get(pid);
    const at = place?.task.find(address);
    if (place !== undefined && at !== undefined) return { place, at };
    throw new StasisError('RESTORE_FAILED', `criu asks for a page at 0x${address.toString(16)} of process ${pid} that the checkpoint does not have`, { hint: 'this is a bug of Stasis or of criu: restore without --lazy' });
  }

  #follow(place: Place, number: number): void {
    this.#cursor = place.first + number;
    this.#readAhead();
  }

  /** Keeps the window behind the cursor full, from the beginning again after the end. */
  #readAhead(): void {
    const group: Block[] = [];
    for (let i = 0; i < this.#all.length && this.#cache.aheadCount + group.length < this.#window; i += 1) {
      const block = this.#all[(this.#cursor + i) % this.#all.length]!;
      if (block.zero || block.left <= 0 || this.#cache.has(block)) continue;
      group.push(block);
      if (group.length < GROUP) continue;
      if (!this.#cache.ahead(group.splice(0))) return;
    }
    // Less than a group is worth a request only when there is nothing on its way.
    if (group.length > 0 && (this.#cache.aheadCount === 0 || this.#cache.aheadCount + group.length < this.#window)) this.#cache.ahead(group);
  }

  async #untilRead(work: () => Promise<void>): Promise<void> {
    for (let tries = 0; ; tries += 1) {
      this.#options.signal.throwIfAborted();
      try {
        await work();
        return;
      } catch (thrown) {
        const error = asStasisError(thrown, 'reading pages from the repository');
        if (!errorTable[error.code].retry) {
          this.#failed.reject(error);
          throw error;
        }
        this.#options.onStall?.(error);
        await this.#options.sleep(RETRY_MS[Math.min(tries, RETRY_MS.length - 1)] ?? 5000, { signal: this.#options.signal });
      }
    }
  }

  [Symbol.dispose](): void {
    this.#cache[Symbol.dispose]();
  }

  /** Rejects when something that was read ahead is damaged: better now than when the program needs it. */
  get failed(): Promise<never> {
    return this.#failed.promise;
  }
}
