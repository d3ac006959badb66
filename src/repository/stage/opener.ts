/** Opens chunks: unseals, expands, checks. Used in the workers for bulk and in the main thread for small reads. */
import { StasisError } from '../../core/errors.ts';
import { ciphers, isCompressed, isPaged, sealOverhead } from '../format/algorithms.ts';
import { MAX_CHUNK_BYTES } from '../format/limits.ts';
import { ChunkAad } from '../format/pack.ts';
import { chunkId } from '../crypto/lineage-keys.ts';
import { pagedChunkId, PageHasher } from '../crypto/page-digests.ts';
import type { Sodium } from '../crypto/port.ts';
import { decompressInto } from './compress.ts';
import type { ChunkSecrets } from './messages.ts';

export interface SealedChunk {
  readonly id: Uint8Array;
  readonly raw: number;
  readonly codec: number;
}

/** What openers of one thread work in, one after the other. */
export interface OpenScratch {
  readonly unsealed: Buffer;
  readonly expanded: Buffer;
}

/** For chunks of at most so many bytes. */
export function newOpenScratch(bytes: number = MAX_CHUNK_BYTES): OpenScratch {
  return { unsealed: Buffer.allocUnsafeSlow(bytes), expanded: Buffer.allocUnsafeSlow(bytes) };
}

export class Opener {
  readonly #sodium: Sodium;
  readonly #secrets: ChunkSecrets;
  readonly #aad: ChunkAad;
  readonly #scratch: OpenScratch;
  #hasher: PageHasher | undefined;

  /** `scratch` is overwritten by every call. */
  constructor(sodium: Sodium, secrets: ChunkSecrets, scratch: OpenScratch) {
    this.#sodium = sodium;
    this.#secrets = secrets;
    this.#aad = new ChunkAad(secrets.lineage);
    this.#scratch = scratch;
  }

  /**
   * The data of a chunk, a view that is good until the next call.
   * `verify` also recomputes the id, which the seal already vouches for.
   */
  open(chunk: SealedChunk, sealed: Buffer, where: () => string, verify: boolean): Buffer {
    const payload = this.#unseal(chunk, sealed, where);
    const data = isCompressed(chunk.codec) ? this.#expand(payload, chunk.raw) : payload;
    if (data?.length !== chunk.raw) throw damaged(where(), 'it does not expand to its length');
    if ((verify || this.#secrets.cipher === ciphers.null) && !this.#id(chunk, data).equals(chunk.id)) throw damaged(where(), 'its contents do not match its id');
    return data;
  }

  #expand(payload: Buffer, length: number): Buffer | undefined {
    const out = this.#scratch.expanded.subarray(0, length);
    return decompressInto(out, payload) ? out : undefined;
  }

  #id(chunk: SealedChunk, data: Buffer): Buffer {
    if (!isPaged(chunk.codec)) return chunkId(this.#secrets.idKey, data);
    this.#hasher ??= new PageHasher(this.#secrets.pageKey);
    return pagedChunkId(this.#secrets.idKey, this.#hasher.digestsOf(data));
  }

  #unseal(chunk: SealedChunk, sealed: Buffer, where: () => string): Buffer {
    if (this.#secrets.cipher === ciphers.null) return sealed;
    const out = this.#scratch.unsealed.subarray(0, sealed.length - sealOverhead[this.#secrets.cipher]);
    if (!this.#sodium.open(out, sealed, this.#aad.set(chunk.id, chunk.codec, chunk.raw), this.#secrets.chunkKey)) {
      throw damaged(where(), 'its seal is broken');
    }
    return out;
  }
}

function damaged(where: string, why: string): StasisError {
  return new StasisError('OBJECT_CORRUPT', `${where} is damaged: ${why}`, { hint: 'run stasis verify to see everything that is damaged; a damaged object can only be replaced by a copy' });
}
