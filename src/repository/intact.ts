/**
 * Whether the packs of a checkpoint are all there. A writer that builds on one whose packs were lost would hand the damage
 * on to every checkpoint after it; so what lies in a missing pack is not offered, and is stored again.
 */
import type { CheckpointId } from '../core/ids.ts';
import { ordered } from '../core/ordered.ts';
import { packObject } from './format/body.ts';
import type { Tables } from './format/body.ts';
import { packsOf } from './format/names.ts';
import type { Store } from './store/store.ts';

/** More packs of one writer than this are found by a list, which tells a thousand at once. */
const MOST_HEADS = 4;
const PARALLEL = 16;

/** Marks in `worn`, by chunk, what lies in packs that are missing or have another size. */
export async function wearMissing({ packs, chunks }: Tables, worn: Uint8Array, store: Store, { signal }: { signal: AbortSignal | undefined }): Promise<Uint8Array> {
  const sizes = new Map<string, number>();
  const groups = Map.groupBy(packs, ({ checkpoint }) => checkpoint);
  for (const [checkpoint, group] of groups) {
    if (group.length <= MOST_HEADS) continue;
    for await (const { name, size } of store.list(packsOf(checkpoint as CheckpointId), { signal })) sizes.set(name, size);
  }
  // Lists may lag; a look at the object itself does not.
  const size = async (name: string): Promise<number | undefined> => sizes.get(name) ?? (await store.head(name, { signal }))?.size;
  const broken = new Set<number>();
  let index = 0;
  for await (const found of ordered(packs, PARALLEL, (pack) => size(packObject(pack)))) {
    if (found !== packs[index]?.size) broken.add(index);
    index += 1;
  }
  if (broken.size > 0) for (let chunk = 0; chunk < chunks.count; chunk += 1) if (broken.has(chunks.place(chunk).pack)) worn[chunk] = 1;
  return worn;
}
