/** Bodies of requests and answers. */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { crc32 } from 'node:zlib';
import { StasisError } from '../../../core/errors.ts';
import type { Bandwidth } from '../bandwidth.ts';

/** At a limited bandwidth this much is sent at once. */
const SLICE_BYTES = 64 * 1024;
/** TLS encrypts what it is given at once into memory of its own: a whole pack would be there twice, and many are on their way. */
const TLS_SLICE_BYTES = 256 * 1024;

export interface BodyOptions {
  readonly limit: Bandwidth | undefined;
  /** It goes over TLS. */
  readonly encrypted: boolean;
  readonly signal: AbortSignal | undefined;
}

/** What to send. Rate-limited and encrypted bodies are streams, others one buffer, which costs no copy. */
export function requestBody(bytes: Uint8Array, { limit, encrypted, signal }: BodyOptions): Buffer | Readable {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length === 0 || (limit === undefined && !(encrypted && bytes.length > TLS_SLICE_BYTES))) return buffer;
  const most = limit === undefined ? TLS_SLICE_BYTES : SLICE_BYTES;
  const body = Readable.from(slices(buffer, most, limit, signal), { objectMode: false, highWaterMark: most });
  // It fails only with the signal, which ends the request by itself.
  return body.on('error', () => undefined);
}

async function* slices(bytes: Buffer, most: number, limit: Bandwidth | undefined, signal: AbortSignal | undefined): AsyncIterable<Buffer> {
  for (let at = 0; at < bytes.length; at += most) {
    const slice = bytes.subarray(at, at + most);
    await limit?.take(slice.length, { signal });
    yield slice;
  }
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** As S3 writes it: big-endian, in base64. */
export function crc32Base64(bytes: Uint8Array): string {
  const value = Buffer.alloc(4);
  value.writeUInt32BE(crc32(bytes));
  return value.toString('base64');
}

/**
 * Reads exactly `length` bytes of an answer into `target`. The body is consumed or destroyed, whatever happens, and
 * nothing is written any more once the signal is aborted: the memory may have another use by then.
 */
export async function receive(body: Readable, target: Uint8Array, length: number, { limit, signal, what }: { limit: Bandwidth | undefined; signal: AbortSignal; what: string }): Promise<void> {
  const stop = (): void => void body.destroy(signal.reason as Error);
  if (signal.aborted) stop();
  signal.addEventListener('abort', stop, { once: true });
  let at = 0;
  try {
    for await (const chunk of body as AsyncIterable<Uint8Array>) {
      signal.throwIfAborted();
      if (at + chunk.length > length) throw new StasisError('STORE_UNAVAILABLE', `cannot ${what}: the answer is longer than its ${length} bytes`);
      target.set(chunk, at);
      at += chunk.length;
      await limit?.take(chunk.length, { signal });
    }
  } finally {
    signal.removeEventListener('abort', stop);
    body.destroy();
  }
  if (at < length) throw new StasisError('STORE_UNAVAILABLE', `cannot ${what}: the answer ended after ${at} of ${length} bytes`);
}
