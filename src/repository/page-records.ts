/**
 * The blob that tells the next checkpoint which pages the chunks of this one hold (docs/FORMAT.md, "Pages").
 * A record belongs to a chunk and never changes: the records of chunks that are used again are referred to like any data.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { DIGEST_BYTES, DIGEST_PAGE_BYTES, pagedChunkId } from './crypto/page-digests.ts';
import { isPaged } from './format/algorithms.ts';
import type { Tables } from './format/body.ts';
import { ID_BYTES } from './format/chunk-table.ts';
import { PageTable } from './stage/page-table.ts';

/** Of the repository's own; no reader looks for it. */
export const PAGES_BLOB = '.repository/pages';
/** 16 GiB of memory; the table then takes 0.12 GiB. A checkpoint with more is compared chunk by chunk only. */
export const MAX_RECORD_BYTES = 64 * 1024 * 1024 + 1024 * 1024;
const HEAD_BYTES = ID_BYTES + 4;
/** Records that are entered between two looks at other events: 2 ms. */
const AT_ONCE = 64;

/** Where the record of a chunk lies. */
export interface PageRecord {
  readonly at: number;
  readonly length: number;
}

export function encodeRecord(id: Uint8Array, digests: Uint8Array): Buffer {
  const record = Buffer.alloc(HEAD_BYTES + digests.length);
  record.set(id);
  record.writeUInt32LE(digests.length / DIGEST_BYTES, ID_BYTES);
  record.set(digests, HEAD_BYTES);
  return record;
}

/**
 * Enters the pages of all chunks that have a number. A record is only believed when the id of its chunk comes out of its
 * digests; after the first that makes no sense nothing more is read.
 * `numbers`: by chunk of `tables`, its number in the shared index, or -1.
 */
export async function readRecords(bytes: SharedArrayBuffer, { chunks }: Tables, idKey: Uint8Array, numbers: Int32Array): Promise<{ table: PageTable; records: Map<number, PageRecord> }> {
  const all = Buffer.from(bytes);
  const byId = new Map<string, number>();
  for (let chunk = 0; chunk < chunks.count; chunk += 1) if (isPaged(chunks.place(chunk).codec)) byId.set(chunks.id(chunk).toString('latin1'), chunk);
  const table = PageTable.over(bytes);
  const records = new Map<number, PageRecord>();
  for (let at = 0, seen = 0; at + HEAD_BYTES <= all.length; seen += 1) {
    if (seen % AT_ONCE === AT_ONCE - 1) await turn();
    const count = all.readUInt32LE(at + ID_BYTES);
    const length = HEAD_BYTES + count * DIGEST_BYTES;
    if (at + length > all.length) break;
    const id = all.subarray(at, at + ID_BYTES);
    const chunk = byId.get(id.toString('latin1'));
    const number = chunk === undefined ? -1 : (numbers[chunk] ?? -1);
    if (chunk !== undefined && number >= 0 && !records.has(number) && pagedChunkId(idKey, all.subarray(at + HEAD_BYTES, at + length)).equals(id)) {
      const whole = Math.floor(chunks.place(chunk).raw / DIGEST_PAGE_BYTES);
      for (let page = 0; page < Math.min(whole, count); page += 1) table.add(at + HEAD_BYTES + page * DIGEST_BYTES, number, page);
      records.set(number, { at, length });
    }
    at += length;
  }
  return { table, records };
}
