/**
 * The system's libzstd with contexts that are used again, straight between the caller's buffers. node:zlib makes a
 * context for each call, which takes a third of the time of 1 MiB, and leaves its memory to the collector.
 */
import koffi from 'koffi';

export interface Zstd {
  /** Bytes written to `out`, or undefined where they do not fit or the data cannot be compressed. */
  compress(out: Uint8Array, data: Uint8Array, level: number): number | undefined;
  /** Bytes written to `out`, never more than it holds, or undefined where `payload` is not whole frames that fit. */
  decompress(out: Uint8Array, payload: Uint8Array): number | undefined;
}

/** Both have the same interface since 1.0; the file is that of every Linux distribution. */
const LIBRARY = 'libzstd.so.1';

/** One for each thread: contexts are not shared, and live as long as it. Undefined where there is no such library. */
export const systemZstd: Zstd | undefined = load();

function load(): Zstd | undefined {
  let library;
  try {
    library = koffi.load(LIBRARY);
  } catch {
    return undefined;
  }
  const call = {
    createCompressor: library.func('void* ZSTD_createCCtx()'),
    createDecompressor: library.func('void* ZSTD_createDCtx()'),
    compress: library.func('size_t ZSTD_compressCCtx(void* context, void* out, size_t capacity, const void* data, size_t length, int level)'),
    decompress: library.func('size_t ZSTD_decompressDCtx(void* context, void* out, size_t capacity, const void* payload, size_t length)'),
    isError: library.func('uint32_t ZSTD_isError(size_t code)'),
  };
  const [compressor, decompressor]: unknown[] = [call.createCompressor(), call.createDecompressor()];
  if (compressor === null || decompressor === null) return undefined;
  const checked = (code: number | bigint): number | undefined => (call.isError(code) === 0 ? Number(code) : undefined);
  return {
    compress: (out, data, level) => checked(call.compress(compressor, out, out.length, data, data.length, level) as number | bigint),
    decompress: (out, payload) => checked(call.decompress(decompressor, out, out.length, payload, payload.length) as number | bigint),
  };
}
