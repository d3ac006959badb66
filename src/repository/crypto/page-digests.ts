/**
 * Digests of pages: what a chunk of memory is known by, page for page. Keyed, so that whoever fills the pages cannot
 * look for two that collide; the same pass over the data gives the chunk's id, so they cost nothing more.
 */
import { createHmac, hash } from 'node:crypto';

export const DIGEST_PAGE_BYTES = 4096;
/** The first half of SHA-256: 128 bits under a secret key. */
export const DIGEST_BYTES = 16;

/** Bytes in front of the data that a hasher puts its key into. */
export const HEADROOM_BYTES = 32;

/** SHA-256 of key and page. The length of both is fixed (a chunk's last page may be shorter), and half of it is given out, so nothing can be appended. */
export class PageHasher {
  readonly #key: Uint8Array;
  readonly #saved = Buffer.alloc(HEADROOM_BYTES);

  constructor(key: Uint8Array) {
    this.#key = key;
  }

  /**
   * One digest for each 4096 bytes of what follows the first HEADROOM_BYTES of `framed`, the last for what is left.
   * The key is put in front of each page for the moment and what was there is put back: copying pages would take a
   * fifth of the time. The answer begins at a multiple of eight in memory.
   */
  digests(framed: Buffer): Buffer {
    const pages = Math.ceil((framed.length - HEADROOM_BYTES) / DIGEST_PAGE_BYTES);
    const digests = Buffer.alloc(pages * DIGEST_BYTES);
    for (let page = 0; page < pages; page += 1) {
      const at = page * DIGEST_PAGE_BYTES;
      framed.copy(this.#saved, 0, at, at + HEADROOM_BYTES);
      framed.set(this.#key, at);
      // As a string: an answer in a buffer of its own takes twice the time of the call.
      digests.write(hash('sha256', framed.subarray(at, at + HEADROOM_BYTES + DIGEST_PAGE_BYTES), 'binary'), page * DIGEST_BYTES, DIGEST_BYTES, 'latin1');
      this.#saved.copy(framed, at);
    }
    return digests;
  }

  /** Of data that nobody made room in front of. */
  digestsOf(data: Buffer): Buffer {
    const framed = Buffer.allocUnsafe(HEADROOM_BYTES + data.length);
    data.copy(framed, HEADROOM_BYTES);
    return this.digests(framed);
  }
}

/** The id of a chunk that is known by its pages. */
export function pagedChunkId(idKey: Uint8Array, digests: Uint8Array): Buffer {
  return createHmac('sha256', idKey).update('pages').update(digests).digest();
}
