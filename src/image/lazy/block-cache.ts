/**
 * Blocks in memory: a bounded number, fetched in groups, kept until criu has taken all of them or the place is needed.
 * What is on its way over the socket stays.
 */
import type { CheckpointReader } from '../../repository/types.ts';
import type { Block } from './blocks.ts';
import type { BlockSlots } from './slots.ts';

interface Entry {
  readonly slot: SharedArrayBuffer;
  readonly loaded: Promise<void>;
  ready: boolean;
  pins: number;
  /** Fetched before anybody asked for it. */
  ahead: boolean;
}

interface Target {
  readonly block: Block;
  readonly slot: SharedArrayBuffer;
}

export interface BlockCacheOptions {
  readonly reader: CheckpointReader;
  readonly slots: BlockSlots;
  /** Blocks held at the same time. */
  readonly limit: number;
  /** Runs the work until it succeeds. */
  readonly fetch: (work: () => Promise<void>) => Promise<void>;
  /** What was fetched ahead is here. */
  readonly onAhead: () => void;
}

/** More would only wait for the few buffers that the repository reads into. */
const AHEAD_FETCHES = 2;

export class BlockCache implements Disposable {
  readonly #options: BlockCacheOptions;
  /** In the order of their last use. */
  readonly #entries = new Map<Block, Entry>();
  readonly #free: SharedArrayBuffer[] = [];
  readonly #waiting: (() => void)[] = [];
  #slots = 0;
  #ahead = 0;
  /** On their way, ahead of what is needed. */
  #aheadFetches = 0;
  #disposed = false;

  constructor(options: BlockCacheOptions) {
    this.#options = options;
  }

  /** The bytes of a block, if they are here now. */
  peek(block: Block): SharedArrayBuffer | undefined {
    const entry = this.#entries.get(block);
    return entry?.ready === true ? entry.slot : undefined;
  }

  /** Blocks that were fetched ahead and wait to be asked for, or are on their way. */
  get aheadCount(): number {
    return this.#ahead;
  }

  has(block: Block): boolean {
    return this.#entries.has(block);
  }

  /** Waits until the block is here. */
  async need(block: Block): Promise<void> {
    for (;;) {
      const entry = this.#entries.get(block);
      if (entry !== undefined) {
        this.#wanted(block, entry);
        await entry.loaded;
        if (this.#entries.get(block) === entry) return;
        continue;
      }
      const slot = this.#take(false);
      if (slot === undefined) await new Promise<void>((resolve) => void this.#waiting.push(resolve));
      else this.#load([{ block, slot }], false);
    }
  }

  /** Fetches blocks in one go as far as there is room for them; false when there was not enough, or enough is on its way. */
  ahead(blocks: readonly Block[]): boolean {
    if (this.#disposed || this.#aheadFetches >= AHEAD_FETCHES) return false;
    const targets: Target[] = [];
    for (const block of blocks) {
      const slot = this.#take(true);
      if (slot === undefined) break;
      targets.push({ block, slot });
    }
    if (targets.length > 0) this.#load(targets, true);
    return targets.length === blocks.length;
  }

  pin(block: Block): void {
    const entry = this.#entries.get(block);
    if (entry !== undefined) entry.pins += 1;
  }

  /** `done`: nobody will ask for the block again. */
  unpin(block: Block, done: boolean): void {
    const entry = this.#entries.get(block);
    if (entry === undefined) return;
    entry.pins -= 1;
    if (done && entry.pins === 0) this.#drop(block, entry);
    else if (entry.pins === 0) this.#waiting.shift()?.();
  }

  /** A free place, a new one, or that of the block that was used longest ago; who reads ahead pushes out nothing that was read ahead. */
  #take(ahead: boolean): SharedArrayBuffer | undefined {
    const slot = this.#free.pop() ?? this.#evict(false) ?? (ahead ? undefined : this.#evict(true));
    if (slot !== undefined || this.#slots === this.#options.limit) return slot;
    this.#slots += 1;
    return this.#options.slots.take();
  }

  #evict(ahead: boolean): SharedArrayBuffer | undefined {
    if (this.#slots < this.#options.limit) return undefined;
    for (const [block, entry] of this.#entries) {
      if (!entry.ready || entry.pins > 0 || entry.ahead !== ahead) continue;
      this.#drop(block, entry);
      return this.#free.pop();
    }
    return undefined;
  }

  #load(targets: readonly Target[], ahead: boolean): void {
    const jobs = targets.map(({ block, slot }) => ({
      blob: block.blob, offset: block.start, length: block.end - block.start,
      sink: ({ offset }: { offset: number }) => ({ kind: 'memory' as const, buffer: slot, offset: offset - block.start }),
    }));
    for (const { block, slot } of targets) {
      const bytes = new Uint8Array(slot);
      for (const [from, to] of block.holes) bytes.fill(0, from, to);
    }
    const { reader, fetch, onAhead } = this.#options;
    const loaded = fetch(() => reader.extract(jobs, { signal: undefined, urgent: !ahead }));
    // Whoever needs it sees the failure; for what is only read ahead it is enough that the source knows.
    loaded.catch(() => {});
    if (ahead) {
      this.#aheadFetches += 1;
      const settled = (): void => {
        this.#aheadFetches -= 1;
        onAhead();
      };
      void loaded.then(settled, settled);
    }
    for (const { block, slot } of targets) {
      const entry: Entry = { slot, loaded, ready: false, pins: 0, ahead };
      if (ahead) this.#ahead += 1;
      this.#entries.set(block, entry);
      void loaded.then(() => {
        entry.ready = true;
        this.#waiting.shift()?.();
      }, () => {});
    }
  }

  #wanted(block: Block, entry: Entry): void {
    if (entry.ahead) this.#ahead -= 1;
    entry.ahead = false;
    this.#entries.delete(block);
    this.#entries.set(block, entry);
  }

  #drop(block: Block, entry: Entry): void {
    if (entry.ahead) this.#ahead -= 1;
    this.#entries.delete(block);
    this.#free.push(entry.slot);
    this.#waiting.shift()?.();
  }

  /** Nobody asks any more. What is still being written is given back when that has ended; what the socket has is left to it. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    const { slots } = this.#options;
    for (const slot of this.#free.splice(0)) slots.give(slot);
    for (const entry of this.#entries.values()) {
      if (entry.pins > 0) continue;
      void entry.loaded.then(() => slots.give(entry.slot), () => {});
    }
    this.#entries.clear();
  }
}
