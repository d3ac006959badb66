/**
 * Blocks in memory: a bounded number, fetched in groups, kept until criu has taken all of them or the place is needed.
 * What is on its way over the socket stays.
 */
import type { CheckpointReader } from '../../repository/types.ts';
import { BLOCK_BYTES } from './blocks.ts';
import type { Block } from './blocks.ts';

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

export class BlockCache {
  readonly #reader: CheckpointReader;
  readonly #fetch: (work: () => Promise<void>) => Promise<void>;
  readonly #limit: number;
  /** In the order of their last use. */
  readonly #entries = new Map<Block, Entry>();
  readonly #free: SharedArrayBuffer[] = [];
  readonly #waiting: (() => void)[] = [];
  #slots = 0;
  #ahead = 0;

  /** `fetch` runs the work until it succeeds; `limit`: blocks held at the same time. */
  constructor(reader: CheckpointReader, limit: number, fetch: (work: () => Promise<void>) => Promise<void>) {
    this.#reader = reader;
    this.#limit = limit;
    this.#fetch = fetch;
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

  /** Fetches blocks in one go as far as there is room for them; false when there was not enough. */
  ahead(blocks: readonly Block[]): boolean {
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
    if (slot !== undefined || this.#slots === this.#limit) return slot;
    this.#slots += 1;
    return new SharedArrayBuffer(BLOCK_BYTES);
  }

  #evict(ahead: boolean): SharedArrayBuffer | undefined {
    if (this.#slots < this.#limit) return undefined;
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
    for (const { block, slot } of targets) if (block.holes) new Uint8Array(slot).fill(0);
    const loaded = this.#fetch(() => this.#reader.extract(jobs, { signal: undefined }));
    // Whoever needs it sees the failure; for what is only read ahead it is enough that the source knows.
    loaded.catch(() => {});
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
}
