/** Turns the extents of a tree around: for the bytes of the data blob in their order, which file they belong to. */
import { StasisError } from '../../core/errors.ts';
import type { Extents } from './extents.ts';
import type { ExtractionPlan } from './port.ts';
import { MAX_PATH_BYTES } from './limits.ts';
import { FILE } from './table.ts';
import type { Table } from './table.ts';

/** By content: bytes arrive for it (and create the file); its size is not what the last of them makes it. */
const DATA_COMES = 1;
const SIZE_TO_SET = 2;

/** Longest path that a sink opens from the root; below PATH_MAX. */
const MAX_DIRECT_PATH = 4000;

export function plan(table: Table, extents: Extents, zeroRuns: Float64Array): { plan: ExtractionPlan; needs: Uint8Array } {
  const order = Uint32Array.from(extents.dataAt.keys()).sort((x, y) => (extents.dataAt[x] as number) - (extents.dataAt[y] as number));
  const owner = owners(extents);
  const needs = classify(extents, owner, order, zeroRuns);
  const paths = pathsOf(table, extents.size.length);
  const deep: number[] = [];
  const column = (values: readonly number[]): Float64Array => Float64Array.from(order, (extent) => values[extent] as number);
  const pathAt = Uint32Array.from(order, (extent) => paths.at[owner[extent] as number] as number);
  const pathLength = Uint32Array.from(order, (extent) => paths.length[owner[extent] as number] as number);
  order.forEach((extent, i) => {
    if ((paths.length[owner[extent] as number] as number) > MAX_DIRECT_PATH) deep.push(i);
  });
  return {
    plan: { dataAt: column(extents.dataAt), length: column(extents.length), fileAt: column(extents.fileAt), pathAt, pathLength, paths: paths.bytes, deep: Uint32Array.from(deep) },
    needs,
  };
}

function owners(extents: Extents): Uint32Array {
  const owner = new Uint32Array(extents.fileAt.length);
  extents.first.forEach((first, content) => owner.fill(content, first, first + (extents.extents[content] as number)));
  return owner;
}

function classify(extents: Extents, owner: Uint32Array, order: Uint32Array, zeroRuns: Float64Array): Uint8Array {
  const needs = new Uint8Array(extents.size.length);
  extents.size.forEach((size, content) => {
    const last = (extents.first[content] as number) + (extents.extents[content] as number) - 1;
    const end = (extents.extents[content] as number) === 0 ? 0 : (extents.fileAt[last] as number) + (extents.length[last] as number);
    if (end < size) needs[content] = SIZE_TO_SET;
  });
  let run = 0;
  for (const extent of order) {
    const content = owner[extent] as number;
    const end = (extents.dataAt[extent] as number) + (extents.length[extent] as number);
    let at = extents.dataAt[extent] as number;
    while (run < zeroRuns.length && (zeroRuns[run] as number) + (zeroRuns[run + 1] as number) <= at) run += 2;
    // Runs of zeros are not delivered. Whether any byte of this extent is left decides who makes the file.
    let covered = 0;
    for (let i = run; i < zeroRuns.length && (zeroRuns[i] as number) < end; i += 2) {
      const stop = Math.min(end, (zeroRuns[i] as number) + (zeroRuns[i + 1] as number));
      covered += stop - Math.max(at, zeroRuns[i] as number);
      at = stop;
    }
    const length = extents.length[extent] as number;
    needs[content] = (needs[content] as number) | (covered > 0 ? SIZE_TO_SET : 0) | (covered < length ? DATA_COMES : 0);
  }
  return needs;
}

/** The path of the first name of each content, all in one buffer. */
function pathsOf(table: Table, contents: number): { bytes: Uint8Array; at: Uint32Array; length: Uint32Array } {
  const at = new Uint32Array(contents);
  const length = new Uint32Array(contents);
  const parts: Buffer[] = [];
  let total = 0;
  for (let directory = 0; directory < table.directories; directory++) {
    const above = table.directoryPath(directory);
    const prefix = above.length === 0 ? above : Buffer.concat([above, Buffer.of(0x2f)]);
    for (let entry = table.childrenFrom[directory] as number; entry < (table.childrenTo[directory] as number); entry++) {
      if (table.kind[entry] !== FILE || (table.twin[entry] as number) >= 0) continue;
      const content = table.a[entry] as number;
      at[content] = total;
      length[content] = prefix.length + (table.nameLength[entry] as number);
      parts.push(prefix, table.name(entry));
      total += length[content];
      if (total > MAX_PATH_BYTES) throw new StasisError('LIMIT_EXCEEDED', `the paths of this tree's files take more than ${MAX_PATH_BYTES} bytes`);
    }
  }
  return { bytes: Buffer.concat(parts), at, length };
}
