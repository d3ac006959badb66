/**
 * What a saver remembers of a tree for the next checkpoint of the same directory: which inode, with which times, had
 * which contents, and where in the data blob they lie. It stays on the node, beside the agent's other state: inode
 * numbers mean nothing elsewhere. Whoever keeps it vouches that it comes back unchanged.
 */
import { deserialize, serialize } from 'node:v8';
import { KiB, MiB } from '../../core/units.ts';
import type { Planner } from './planner.ts';
import type { Readings } from './readings.ts';
import type { Table } from './table.ts';
import { FILE } from './table.ts';
import type { XattrSets } from './xattrs.ts';

const VERSION = 2;
/** Less than a file must be old to be remembered, and more than the clocks are read apart. */
const STEP_MS = 50;
/** Dead bytes between two contents that are carried along: cheaper than another segment. */
const GAP_BYTES = 64 * KiB;
/** More of the blob than this many times what is in use, and it is laid out anew. */
const MOST_DEAD = 2;
const DEAD_BYTES = 64 * MiB;
/** Numbers of a content: inode, size, mtime (2), ctime (2), set of attributes, extents. */
export const CONTENT_COLUMNS = 8;
const EXTENT_COLUMNS = 3;

/** Where and when a memory was made. */
export interface Origin {
  /** Of the directory: boot of the machine, device, inode, birth, path. */
  readonly identity: string;
  /** The clock of file times, less the time since the boot: smaller when that clock was set back. Milliseconds. */
  readonly clockBaseMs: number;
}

interface TreeMemory extends Origin {
  readonly version: number;
  readonly dataLength: number;
  readonly contents: Float64Array;
  readonly extents: Float64Array;
  readonly sets: readonly (readonly { readonly name: Uint8Array; readonly value: Uint8Array }[])[];
}

/** Only files that cannot have been written without a trace since they were read. */
export function encodeMemory({ identity, clockBaseMs }: Origin, { table, readings, sets, dataLength }: { table: Table; readings: Readings; sets: XattrSets; dataLength: number }): Uint8Array {
  const [contents, extents]: [number[], number[]] = [[], []];
  const seen = new Set<number>();
  for (let entry = 0; entry < table.count; entry += 1) {
    const content = table.a[entry] as number;
    if (table.kind[entry] !== FILE || seen.has(content)) continue;
    seen.add(content);
    const row = readings.lasting(content);
    if (row === undefined) continue;
    contents.push(...row);
    const first = readings.extents.first[content] as number;
    for (let i = first; i < first + (row[CONTENT_COLUMNS - 1] as number); i += 1) {
      extents.push(readings.extents.fileAt[i] as number, readings.extents.length[i] as number, readings.extents.dataAt[i] as number);
    }
  }
  const all = Array.from({ length: sets.count }, (_, set) => sets.get(set));
  return serialize({ version: VERSION, identity, clockBaseMs, dataLength, contents: Float64Array.from(contents), extents: Float64Array.from(extents), sets: all } satisfies TreeMemory);
}

/** Which parts of the data blob are in use, rows of offset and length; undefined when nothing of it is of use here. */
export function decodeMemory(bytes: Uint8Array, { identity, clockBaseMs }: Origin): { memory: TreeMemory; used: Float64Array<ArrayBuffer> } | undefined {
  const memory = deserialize(bytes) as TreeMemory;
  if (memory.version !== VERSION || memory.identity !== identity) return undefined;
  // A file could have been written at the very time of day at which it was written before.
  if (clockBaseMs < memory.clockBaseMs - STEP_MS) return undefined;
  const used = usedRanges(memory.extents);
  let live = 0;
  for (let i = 1; i < used.length; i += 2) live += used[i] as number;
  return live === 0 || memory.dataLength > MOST_DEAD * live + DEAD_BYTES ? undefined : { memory, used };
}

function usedRanges(extents: Float64Array): Float64Array<ArrayBuffer> {
  const order = Array.from({ length: extents.length / EXTENT_COLUMNS }, (_, extent) => extent * EXTENT_COLUMNS);
  order.sort((x, y) => (extents[x + 2] as number) - (extents[y + 2] as number));
  const ranges: number[] = [];
  for (const row of order) {
    const [length, at] = [extents[row + 1] as number, extents[row + 2] as number];
    const last = ranges.length - 2;
    const end = last < 0 ? 0 : (ranges[last] as number) + (ranges[last + 1] as number);
    if (last >= 0 && at - end <= GAP_BYTES) ranges[last + 1] = Math.max(end, at + length) - (ranges[last] as number);
    else ranges.push(at, length);
  }
  return Float64Array.from(ranges);
}

/** Makes the contents known as if they had been read. `lost`: rows of offset and length of the blob that are not there. */
export function recall(memory: TreeMemory, lost: Float64Array, { readings, sets, planner }: { readings: Readings; sets: XattrSets; planner: Planner }): void {
  const numbers = memory.sets.map((set) => sets.intern(set.map(({ name, value }) => ({ name: Buffer.from(name), value: Buffer.from(value) }))));
  const { contents, extents } = memory;
  const isLost = (at: number, length: number): boolean => {
    for (let i = 0; i < lost.length; i += 2) if (at < (lost[i] as number) + (lost[i + 1] as number) && (lost[i] as number) < at + length) return true;
    return false;
  };
  for (let row = 0, extent = 0; row < contents.length; row += CONTENT_COLUMNS) {
    const end = extent + (contents[row + CONTENT_COLUMNS - 1] as number) * EXTENT_COLUMNS;
    const there = extents.subarray(extent, end);
    extent = end;
    let whole = true;
    for (let i = 0; i < there.length && whole; i += EXTENT_COLUMNS) whole = !isLost(there[i + 2] as number, there[i + 1] as number);
    if (whole) readings.recall(contents.subarray(row, row + CONTENT_COLUMNS), there, numbers);
  }
  planner.dataBytes = memory.dataLength;
}
