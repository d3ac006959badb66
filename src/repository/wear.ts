/**
 * Which chunks of the checkpoint before are too worn to be referred to: only a small part of them, or of their pack, is
 * still in use. A restore would read them for little, and deleting old checkpoints could not free their packs. So a
 * few of them, the emptiest first, are left behind by each checkpoint: what is in use of them is stored again.
 */
import type { Tables } from './format/body.ts';
import { ZERO } from './format/segments.ts';

/** A chunk is worn when less than this part of it is in use, or less than PACK_SHARE of its pack. */
const CHUNK_SHARE = 1 / 2;
const PACK_SHARE = 1 / 4;
/** Of all data in use, as much is stored again at most, so that no single checkpoint pays for all before it. */
const MOST_MOVED = 1 / 16;

/** By chunk: 1 when it is to be left behind. */
export function wornChunks({ packs, chunks, blobs }: Tables): Uint8Array {
  const used = usedBytes({ packs, chunks, blobs });
  const packUsed = new Float64Array(packs.length);
  let all = 0;
  for (let chunk = 0; chunk < chunks.count; chunk += 1) {
    const { pack, stored, raw } = chunks.place(chunk);
    const bytes = Math.min(used[chunk] as number, raw);
    packUsed[pack] = (packUsed[pack] as number) + (bytes / raw) * stored;
    all += bytes;
  }
  const tired: { chunk: number; share: number; bytes: number }[] = [];
  for (let chunk = 0; chunk < chunks.count; chunk += 1) {
    const { pack, raw } = chunks.place(chunk);
    const bytes = Math.min(used[chunk] as number, raw);
    const share = bytes / raw;
    const packShare = (packUsed[pack] as number) / (packs[pack]?.size ?? 1);
    if (share < CHUNK_SHARE || packShare < PACK_SHARE) tired.push({ chunk, share: Math.min(share, packShare), bytes });
  }
  const worn = new Uint8Array(chunks.count);
  let left = all * MOST_MOVED;
  for (const { chunk, bytes } of tired.sort((a, b) => a.share - b.share)) {
    if (bytes > left) break;
    worn[chunk] = 1;
    left -= bytes;
  }
  return worn;
}

function usedBytes({ chunks, blobs }: Tables): Float64Array {
  const used = new Float64Array(chunks.count);
  for (const segments of blobs.values()) {
    for (let i = 0; i < segments.count; i += 1) {
      const chunk = segments.chunk(i);
      if (chunk !== ZERO) used[chunk] = (used[chunk] as number) + segments.end(i) - segments.start(i);
    }
  }
  return used;
}
