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
  const order = extents.byData();
  const owner = owners(extents);
  const needs = classify(extents, owner, order, zeroRuns);
  const paths = pathsOf(table, extents.contents);
  const deep: number[] = [];
  const column = (values: Float64Array): Float64Array => Float64Array.from(order, (extent) => values[extent] as number);
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
  const owner = new Uint32Array(extents.count);
  for (let content = 0; content < extents.contents; content++) {
    const first = extents.first[content] as number;
    owner.fill(content, first, first + (extents.extents[content] as number));
  }
  return owner;
}

function classify(extents: Extents, owner: Uint32Array, order: Uint32Array, zeroRuns: Float64Array): Uint8Array {
  const needs = new Uint8Array(extents.contents);
  for (let content = 0; content < extents.contents; content++) {
    const last = (extents.first[content] as number) + (extents.extents[content] as number) - 1;
    const end = (extents.extents[content] as number) === 0 ? 0 : (extents.fileAt[last] as number) + (extents.length[last] as number);
    if (end < (extents.size[content] as number)) needs[content] = SIZE_TO_SET;
  }
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

interface ContentPaths {
  readonly bytes: Uint8Array;
  readonly at: Uint32Array;
  readonly length: Uint32Array;
}

/** The path of the first name of each content, all in one buffer. Measured first: an object for each path would take more than the paths. */
function pathsOf(table: Table, contents: number): ContentPaths {
  const paths = { bytes: Buffer.alloc(0), at: new Uint32Array(contents), length: new Uint32Array(contents) };
  let total = 0;
  eachFile(table, (content, prefix, name) => {
    paths.at[content] = total;
    paths.length[content] = prefix.length + name.length;
    total += prefix.length + name.length;
    if (total > MAX_PATH_BYTES) throw new StasisError('LIMIT_EXCEEDED', `the paths of this tree's files take more than ${MAX_PATH_BYTES} bytes`);
  });
  paths.bytes = Buffer.from(new ArrayBuffer(total));
  eachFile(table, (content, prefix, name) => {
    const at = paths.at[content] as number;
    paths.bytes.set(prefix, at);
    paths.bytes.set(name, at + prefix.length);
  });
  return paths;
}

function eachFile(table: Table, visit: (content: number, prefix: Buffer, name: Buffer) => void): void {
  for (let directory = 0; directory < table.directories; directory++) {
    const above = table.directoryPath(directory);
    const prefix = above.length === 0 ? above : Buffer.concat([above, Buffer.of(0x2f)]);
    for (let entry = table.childrenFrom[directory] as number; entry < (table.childrenTo[directory] as number); entry++) {
      if (table.kind[entry] === FILE && (table.twin[entry] as number) < 0) visit(table.a[entry] as number, prefix, table.name(entry));
    }
  }
}
