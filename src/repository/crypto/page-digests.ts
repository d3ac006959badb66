/**
 * Digests of pages: what a chunk of memory is known by, page for page. Keyed, so that whoever fills the pages cannot
 * look for two that collide; the same pass over the data gives the chunk's id, so they cost nothing more.
 */
import { createHmac, hash } from 'node:crypto';

export const DIGEST_PAGE_BYTES = 4096;
/** The first half of SHA-256: 128 bits under a secret key. */
export const DIGEST_BYTES = 16;

/** SHA-256 of key and page. The length of both is fixed (a chunk's last page may be shorter), and half of it is given out, so nothing can be appended. */
export class PageHasher {
  readonly #keyBytes: number;
  readonly #full: Buffer;

  constructor(key: Uint8Array) {
    this.#keyBytes = key.length;
    this.#full = Buffer.allocUnsafeSlow(key.length + DIGEST_PAGE_BYTES);
    this.#full.set(key);
  }

  /** One digest for each 4096 bytes, the last for what is left. Begins at a multiple of eight in memory. */
  digests(data: Buffer): Buffer {
    const digests = Buffer.alloc(Math.ceil(data.length / DIGEST_PAGE_BYTES) * DIGEST_BYTES);
    for (let at = 0, to = 0; at < data.length; at += DIGEST_PAGE_BYTES, to += DIGEST_BYTES) {
      const length = data.copy(this.#full, this.#keyBytes, at, at + DIGEST_PAGE_BYTES);
      const message = length === DIGEST_PAGE_BYTES ? this.#full : this.#full.subarray(0, this.#keyBytes + length);
      // As a string: an answer in a buffer of its own takes twice the time of the call.
      digests.write(hash('sha256', message, 'binary'), to, DIGEST_BYTES, 'latin1');
    }
    return digests;
  }
}

/** The id of a chunk that is known by its pages. */
export function pagedChunkId(idKey: Uint8Array, digests: Uint8Array): Buffer {
  return createHmac('sha256', idKey).update('pages').update(digests).digest();
}
