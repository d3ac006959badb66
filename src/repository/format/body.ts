/** The body of a manifest: the caller's description and the tables of packs, chunks and blobs. */
import { StasisError } from '../../core/errors.ts';
import type { ByteCounts, Description } from '../types.ts';
import type { CipherId } from './algorithms.ts';
import { isCodec, isCompressed, sealOverhead, unsupported } from './algorithms.ts';
import { ByteReader, ByteWriter, corrupt } from './bytes.ts';
import { ChunkTable, ID_BYTES } from './chunk-table.ts';
import { CHECKPOINT_LENGTH } from './header.ts';
import { MAX_BLOBS, MAX_CHUNK_BYTES, MAX_CHUNKS, MAX_JSON_BYTES, MAX_NAME_BYTES, MAX_PACK_BYTES, MAX_PACKS, MAX_SEGMENTS } from './limits.ts';
import { packName } from './names.ts';
import { PACK_HEADER_BYTES } from './pack.ts';
import { SegmentList, ZERO } from './segments.ts';

export interface PackRef {
  /** Checkpoint whose writer made it. */
  readonly checkpoint: string;
  /** 16 hexadecimal digits. */
  readonly digits: string;
  readonly size: number;
}

export interface Tables {
  readonly packs: readonly PackRef[];
  readonly chunks: ChunkTable;
  readonly blobs: ReadonlyMap<string, SegmentList>;
}

export interface Summary {
  readonly bytes: ByteCounts;
  readonly description: Description;
}

export const packObject = (pack: PackRef): string => packName(pack.checkpoint, pack.digits);

/** Chunks must be in the order of (pack, offset). */
export function encodeBody(summary: Summary, tables: Tables): Buffer {
  const out = new ByteWriter();
  const json = Buffer.from(JSON.stringify(summary));
  limit(json.length, MAX_JSON_BYTES, 'bytes of description');
  out.varint(json.length);
  out.bytes(json);
  limit(tables.packs.length, MAX_PACKS, 'packs');
  out.varint(tables.packs.length);
  for (const pack of tables.packs) {
    out.bytes(Buffer.from(pack.checkpoint, 'latin1'));
    out.bytes(Buffer.from(pack.digits, 'hex'));
    out.varint(pack.size);
  }
  encodeChunks(out, tables.chunks);
  encodeBlobs(out, tables.blobs);
  return out.finish();
}

function limit(value: number, most: number, what: string): void {
  if (value > most) {
    throw new StasisError('LIMIT_EXCEEDED', `this checkpoint needs ${value} ${what}; the format allows ${most}`, { hint: 'docs/FORMAT.md lists the limits and their reasons' });
  }
}

function encodeChunks(out: ByteWriter, chunks: ChunkTable): void {
  limit(chunks.count, MAX_CHUNKS, 'chunks');
  out.varint(chunks.count);
  let [pack, end] = [0, PACK_HEADER_BYTES];
  for (let i = 0; i < chunks.count; i += 1) {
    const place = chunks.place(i);
    if (place.pack !== pack) end = PACK_HEADER_BYTES;
    out.bytes(chunks.id(i));
    out.varint(place.pack - pack);
    out.varint(place.offset - end);
    out.varint(place.stored);
    out.varint(place.raw);
    out.u8(place.codec);
    [pack, end] = [place.pack, place.offset + place.stored];
  }
}

function encodeBlobs(out: ByteWriter, blobs: ReadonlyMap<string, SegmentList>): void {
  limit(blobs.size, MAX_BLOBS, 'blobs');
  out.varint(blobs.size);
  let total = 0;
  for (const [name, segments] of blobs) {
    const bytes = Buffer.from(name);
    out.varint(bytes.length);
    out.bytes(bytes);
    limit((total += segments.count), MAX_SEGMENTS, 'segments');
    out.varint(segments.count);
    for (let i = 0; i < segments.count; i += 1) {
      const zero = segments.chunk(i) === ZERO;
      out.varint((segments.end(i) - segments.start(i)) * 2 + (zero ? 1 : 0));
      if (zero) continue;
      out.varint(segments.chunk(i));
      out.varint(segments.chunkOffset(i));
    }
  }
}

/** Only the summary: what a listing needs. */
export function decodeSummary(body: Buffer, object: string): Summary {
  return readSummary(new ByteReader(body, object));
}

export function decodeBody(body: Buffer, cipher: CipherId, object: string): { summary: Summary; tables: Tables } {
  const reader = new ByteReader(body, object);
  const summary = readSummary(reader);
  const packs = readPacks(reader);
  const chunks = readChunks(reader, packs, cipher);
  const blobs = readBlobs(reader, chunks);
  reader.end();
  return { summary, tables: { packs, chunks, blobs } };
}

function readSummary(reader: ByteReader): Summary {
  const text = reader.bytes(reader.count(MAX_JSON_BYTES, 'bytes of description')).toString();
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw corrupt(reader.object, 'its description is not JSON');
  }
  const { bytes, description } = (value ?? {}) as { bytes?: Partial<Record<keyof ByteCounts, unknown>>; description?: unknown };
  if (typeof description !== 'object' || description === null || Array.isArray(description)) throw corrupt(reader.object, 'its description is not an object');
  const number = (count: unknown): number => {
    if (!Number.isSafeInteger(count) || (count as number) < 0) throw corrupt(reader.object, 'a byte count is not a number');
    return count as number;
  };
  return {
    bytes: { raw: number(bytes?.raw), zero: number(bytes?.zero), reused: number(bytes?.reused), stored: number(bytes?.stored) },
    description: description as Description,
  };
}

function readPacks(reader: ByteReader): PackRef[] {
  const packs: PackRef[] = [];
  for (let left = reader.count(MAX_PACKS, 'packs'); left > 0; left -= 1) {
    const checkpoint = reader.bytes(CHECKPOINT_LENGTH).toString('latin1');
    if (!/^[0-9a-hjkmnp-tv-z]{20}$/.test(checkpoint)) throw corrupt(reader.object, 'the name of a pack has characters that no name has');
    packs.push({ checkpoint, digits: reader.bytes(8).toString('hex'), size: reader.count(MAX_PACK_BYTES, 'bytes in a pack') });
  }
  if (new Set(packs.map(packObject)).size !== packs.length) throw corrupt(reader.object, 'a pack is listed twice');
  return packs;
}

function readChunks(reader: ByteReader, packs: readonly PackRef[], cipher: CipherId): ChunkTable {
  const count = reader.count(MAX_CHUNKS, 'chunks');
  // Not `count`: memory grows with what is really there, not with what is declared.
  const chunks = new ChunkTable(Math.min(count, 1024));
  let [pack, end] = [0, PACK_HEADER_BYTES];
  for (let i = 0; i < count; i += 1) {
    const id = reader.bytes(ID_BYTES);
    const step = reader.varint();
    if (step !== 0) [pack, end] = [pack + step, PACK_HEADER_BYTES];
    const offset = end + reader.varint();
    const stored = reader.varint();
    const raw = reader.varint();
    const codec = reader.u8();
    if (!isCodec(codec)) throw unsupported(reader.object, `codec ${codec}`);
    end = offset + stored;
    const size = packs[pack]?.size;
    if (size === undefined || end > size) throw corrupt(reader.object, `chunk ${i} lies outside its pack`);
    const payload = stored - sealOverhead[cipher];
    if (raw < 1 || raw > MAX_CHUNK_BYTES || payload < 1 || (isCompressed(codec) ? payload >= raw : payload !== raw)) throw corrupt(reader.object, `chunk ${i} has impossible lengths`);
    chunks.add(id, { pack, offset, stored, raw, codec });
  }
  return chunks;
}

function readBlobs(reader: ByteReader, chunks: ChunkTable): Map<string, SegmentList> {
  const blobs = new Map<string, SegmentList>();
  let left = MAX_SEGMENTS;
  for (let count = reader.count(MAX_BLOBS, 'blobs'); count > 0; count -= 1) {
    const bytes = reader.bytes(reader.count(MAX_NAME_BYTES, 'bytes in a name'));
    const name = bytes.toString();
    if (!isBlobName(name) || !Buffer.from(name).equals(bytes)) throw corrupt(reader.object, 'the name of a blob has characters that no name has');
    if (blobs.has(name)) throw corrupt(reader.object, `blob ${JSON.stringify(name)} is listed twice`);
    const segments = readSegments(reader, chunks, left);
    left -= segments.count;
    blobs.set(name, segments);
  }
  return blobs;
}

function readSegments(reader: ByteReader, chunks: ChunkTable, most: number): SegmentList {
  const segments = new SegmentList();
  const count = reader.count(most, 'segments');
  for (let i = 0; i < count; i += 1) {
    const tag = reader.varint();
    const length = Math.floor(tag / 2);
    if (tag % 2 === 1) {
      segments.zeros(length);
    } else {
      const chunk = reader.varint();
      const offset = reader.varint();
      if (chunk >= chunks.count || offset + length > chunks.place(chunk).raw) throw corrupt(reader.object, 'a segment lies outside its chunk');
      segments.data(chunk, offset, length);
    }
    // Empty segments and ones that should be one would let two different manifests mean the same.
    if (segments.count !== i + 1) throw corrupt(reader.object, 'a segment is empty or continues the one before');
    if (!Number.isSafeInteger(segments.length)) throw corrupt(reader.object, 'a blob is longer than 2^53 - 1 bytes');
  }
  return segments;
}

/** 1 to 1024 bytes of UTF-8 without control characters. */
export function isBlobName(name: string): boolean {
  const length = Buffer.byteLength(name);
  // eslint-disable-next-line no-control-regex
  return length > 0 && length <= MAX_NAME_BYTES && name.isWellFormed() && !/[\u0000-\u001f\u007f]/.test(name);
}
