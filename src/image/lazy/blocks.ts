/** What of a pages file is fetched at once: a chunk, or a hole, or a part of a large one. */
import { KiB } from '../../core/units.ts';
import { BLOCK_BYTES } from './slots.ts';
import type { LazyTask } from './tasks.ts';

/** A shorter hole between data of one chunk is kept as zeros in memory. */
const HOLE_BYTES = 64 * KiB;

export interface Block {
  readonly blob: string;
  readonly start: number;
  end: number;
  readonly zero: boolean;
  readonly chunk: number;
  /** Positions in the block that must be cleared: start and end. */
  readonly holes: [number, number][];
  /** Lazy bytes that criu has not asked for yet. */
  left: number;
}

type Segment = { readonly offset: number; readonly length: number; readonly zero: boolean; readonly chunk?: number };

/** The blocks of one pages file, in order, without gaps. */
export class BlockMap {
  readonly blocks: readonly Block[];

  constructor(task: LazyTask, segments: Iterable<Segment>) {
    this.blocks = cutBlocks(task.blob, segments);
    let at = 0;
    for (const { offset, length } of task.ranges()) {
      while ((this.blocks[at]?.end ?? Number.POSITIVE_INFINITY) <= offset) at += 1;
      for (let i = at; i < this.blocks.length && this.blocks[i]!.start < offset + length; i += 1) {
        const block = this.blocks[i]!;
        block.left += Math.min(block.end, offset + length) - Math.max(block.start, offset);
      }
    }
  }

  /** Number of the block that holds this byte. */
  find(offset: number): number {
    let [low, high] = [0, this.blocks.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.blocks[middle]!.start <= offset) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

function cutBlocks(blob: string, segments: Iterable<Segment>): Block[] {
  const blocks: Block[] = [];
  for (const { offset, length, zero, chunk = offset } of segments) {
    const open = blocks.at(-1);
    const fits = open !== undefined && !open.zero && offset + length - open.start <= BLOCK_BYTES;
    if (fits && (zero ? length < HOLE_BYTES : open.chunk === chunk)) {
      open.end = offset + length;
      if (zero) open.holes.push([offset - open.start, offset + length - open.start]);
      continue;
    }
    const step = zero ? length : BLOCK_BYTES;
    for (let at = offset; at < offset + length; at += step) {
      blocks.push({ blob, start: at, end: Math.min(at + step, offset + length), zero, chunk, holes: [], left: 0 });
    }
  }
  return blocks;
}
