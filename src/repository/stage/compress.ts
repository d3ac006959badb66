/** Compression where it pays. */
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { codecs } from '../format/algorithms.ts';
import { MAX_CHUNK_BYTES } from '../format/limits.ts';

/** Level 1: level 3 costs twice the time for a few per cent (measured on memory and binaries). */
const LEVEL = 1;
const SAMPLE_BYTES = 16 * 1024;
const SAMPLE_PARTS = 4;
/** Below this, compressing is as quick as sampling. */
const SAMPLE_FROM = 64 * 1024;
const sample = Buffer.allocUnsafeSlow(SAMPLE_BYTES);

export function compress(data: Buffer): { codec: number; payload: Buffer } {
  const raw = { codec: codecs.raw, payload: data };
  if (data.length >= SAMPLE_FROM && !looksCompressible(data)) return raw;
  const packed = zstd(data);
  return packed.length <= data.length - data.length / 32 ? { codec: codecs.zstd, payload: packed } : raw;
}

/** A few parts, evenly spread, compressed together: a chunk of random bytes costs 2 % of a full attempt. */
function looksCompressible(data: Buffer): boolean {
  const part = SAMPLE_BYTES / SAMPLE_PARTS;
  const step = Math.floor((data.length - part) / (SAMPLE_PARTS - 1));
  for (let i = 0; i < SAMPLE_PARTS; i += 1) data.copy(sample, i * part, i * step, i * step + part);
  return zstd(sample).length <= SAMPLE_BYTES - SAMPLE_BYTES / 32;
}

function zstd(data: Buffer): Buffer {
  // One output buffer that surely fits: zlib would otherwise grow it by 16 KiB steps.
  return zstdCompressSync(data, { chunkSize: data.length + (data.length >> 8) + 128, params: { [constants.ZSTD_c_compressionLevel]: LEVEL } });
}

/** Exactly `length` bytes, or undefined. Never allocates for more. */
export function decompress(payload: Uint8Array, length: number, windowLog: number = CHUNK_WINDOW_LOG): Buffer | undefined {
  try {
    const data = zstdDecompressSync(payload, { chunkSize: Math.max(64, length + 64), maxOutputLength: length, params: { [constants.ZSTD_d_windowLogMax]: windowLog } });
    return data.length === length ? data : undefined;
  } catch {
    return undefined;
  }
}

/** No frame of a chunk needs a larger window than the chunk. */
const CHUNK_WINDOW_LOG = Math.log2(MAX_CHUNK_BYTES);
/** For a manifest's body of at most 64 MiB. */
export const BODY_WINDOW_LOG = 26;

export function compressBody(body: Buffer): Buffer {
  return zstd(body);
}
