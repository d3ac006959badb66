/** Compression where it pays. */
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { systemZstd } from '../../host/zstd.ts';
import type { Zstd } from '../../host/zstd.ts';
import { codecs } from '../format/algorithms.ts';

/** Level 1: level 3 costs twice the time for a few per cent (measured on memory and binaries). */
const LEVEL = 1;
const SAMPLE_BYTES = 16 * 1024;
const SAMPLE_PARTS = 4;
/** Below this, compressing is as quick as sampling. */
const SAMPLE_FROM = 64 * 1024;

/** The same frames by node:zlib, where the system has no libzstd. */
export const nodeZstd: Zstd = {
  compress: (out, data, level) => {
    // One output buffer that surely fits: zlib would otherwise grow it by 16 KiB steps.
    const packed = zstdCompressSync(data, { chunkSize: bound(data.length), params: { [constants.ZSTD_c_compressionLevel]: level } });
    if (packed.length > out.length) return undefined;
    out.set(packed);
    return packed.length;
  },
  decompress: (out, payload) => {
    try {
      const data = zstdDecompressSync(payload, { chunkSize: Math.max(64, out.length + 64), maxOutputLength: Math.max(1, out.length), params: { [constants.ZSTD_d_windowLogMax]: LARGEST_WINDOW_LOG } });
      out.set(data);
      return data.length;
    } catch {
      return undefined;
    }
  },
};

/** No frame needs a larger window than what it expands to: a manifest's body of at most 64 MiB. */
const LARGEST_WINDOW_LOG = 26;

/** What zstd can make of `length` bytes at the worst (ZSTD_compressBound, rounded up). */
const bound = (length: number): number => length + (length >> 8) + 128;

export class Compressor {
  readonly #zstd: Zstd;
  readonly #sample = Buffer.allocUnsafeSlow(SAMPLE_BYTES);
  #out = Buffer.alloc(0);

  constructor(zstd: Zstd = systemZstd ?? nodeZstd) {
    this.#zstd = zstd;
  }

  /** `payload` is `data` itself or good until the next call. */
  compress(data: Buffer): { codec: number; payload: Buffer } {
    const raw = { codec: codecs.raw, payload: data };
    if (data.length >= SAMPLE_FROM && !this.#looksCompressible(data)) return raw;
    const payload = this.always(data);
    return payload.length <= data.length - data.length / 32 ? { codec: codecs.zstd, payload } : raw;
  }

  /** One frame, even if it is longer than the data. Good until the next call. */
  always(data: Buffer): Buffer {
    const need = bound(data.length);
    if (this.#out.length < need) this.#out = Buffer.allocUnsafeSlow(need);
    const length = this.#zstd.compress(this.#out, data, LEVEL);
    if (length === undefined) throw new Error(`zstd cannot compress ${data.length} bytes`);
    return this.#out.subarray(0, length);
  }

  /** A few parts, evenly spread, compressed together: a chunk of random bytes costs 2 % of a full attempt. */
  #looksCompressible(data: Buffer): boolean {
    const part = SAMPLE_BYTES / SAMPLE_PARTS;
    const step = Math.floor((data.length - part) / (SAMPLE_PARTS - 1));
    for (let i = 0; i < SAMPLE_PARTS; i += 1) data.copy(this.#sample, i * part, i * step, i * step + part);
    return this.always(this.#sample).length <= SAMPLE_BYTES - SAMPLE_BYTES / 32;
  }
}

/** Fills `out` and says whether the payload expands to exactly that. Never allocates for more. */
export function decompressInto(out: Buffer, payload: Uint8Array, zstd: Zstd = systemZstd ?? nodeZstd): boolean {
  return zstd.decompress(out, payload) === out.length;
}
