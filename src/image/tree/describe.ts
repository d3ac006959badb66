/** Rows of a decoded tree as objects, for `inspect`. */
import { kindNames, BLOCK, CHARACTER, DIRECTORY, FILE, SYMLINK } from './table.ts';
import type { DecodedTree } from './decode.ts';
import type { Extents } from './extents.ts';
import type { TreeEntry } from './port.ts';

export function describe({ table, extents, sets }: DecodedTree, from: number, count: number): TreeEntry[] {
  const to = Math.min(table.count, from + count);
  return Array.from({ length: Math.max(0, to - from) }, (_, i) => {
    const entry = from + i;
    const kind = table.kind[entry] as number;
    const twin = table.twin[entry] as number;
    const [a, b] = [table.a[entry] as number, table.b[entry] as number];
    return {
      path: table.path(entry),
      kind: kindNames[kind] as string,
      mode: table.mode[entry] as number,
      uid: table.uid[entry] as number,
      gid: table.gid[entry] as number,
      size: kind === FILE ? (extents.size[a] as number) : 0,
      mtimeSeconds: table.mtimeSeconds[entry] as number,
      mtimeNanoseconds: table.mtimeNanoseconds[entry] as number,
      opaque: kind === DIRECTORY && b === 1,
      // Copies: a view of the table would carry the whole table to the other thread.
      target: kind === SYMLINK ? Uint8Array.from(table.target(entry)) : undefined,
      device: kind === CHARACTER || kind === BLOCK ? ([a, b] as const) : undefined,
      link: twin < 0 ? undefined : Uint8Array.from(table.path(twin)),
      xattrs: sets.get(table.xattrs[entry] as number).map((x) => x.name.toString()),
      attributes: sets.get(table.xattrs[entry] as number).map((x) => ({ name: Uint8Array.from(x.name), value: Uint8Array.from(x.value) })),
      extents: kind === FILE && twin < 0 ? extentsOf(extents, a) : new Float64Array(0),
    };
  });
}

function extentsOf(extents: Extents, content: number): Float64Array {
  const [first, count] = [extents.first[content] as number, extents.extents[content] as number];
  const triples = new Float64Array(count * 3);
  for (let i = 0; i < count; i++) triples.set([extents.fileAt[first + i] as number, extents.length[first + i] as number, extents.dataAt[first + i] as number], i * 3);
  return triples;
}
