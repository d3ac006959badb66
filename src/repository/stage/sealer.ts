/** Seals the pieces of one writer, inside a worker, into packs. */
import { randomBytes, randomFillSync } from 'node:crypto';
import { StasisError } from '../../core/errors.ts';
import type { CheckpointId } from '../../core/ids.ts';
import { MiB } from '../../core/units.ts';
import { ciphers, PAGED, sealOverhead } from '../format/algorithms.ts';
import { MAX_CHUNK_BYTES } from '../format/limits.ts';
import { ChunkAad, encodePackHeader, PACK_HEADER_BYTES } from '../format/pack.ts';
import { chunkId } from '../crypto/lineage-keys.ts';
import { DIGEST_BYTES, DIGEST_PAGE_BYTES, HEADROOM_BYTES, pagedChunkId, PageHasher } from '../crypto/page-digests.ts';
import type { Sodium } from '../crypto/port.ts';
import { NONCE_BYTES } from '../crypto/port.ts';
import { ChunkIndex } from './chunk-index.ts';
import type { SharedIndex } from './chunk-index.ts';
import { Compressor } from './compress.ts';
import type { ChunkPages, ChunkSecrets, SealedPiece, ShippedPack, WirePiece } from './messages.ts';
import { FRESH, PageMatcher } from './page-matcher.ts';
import type { SharedPages } from './page-table.ts';
import { SegmentRows } from './segment-rows.ts';
import { readSource } from './source.ts';
import { stripZeroPages } from './zero-runs.ts';
import type { ZeroRuns } from './zero-runs.ts';

/** How a sealer gets empty buffers and gets rid of full ones. */
export interface PackPort {
  want(): Promise<SharedArrayBuffer>;
  ship(pack: ShippedPack): void;
}

interface OpenPack {
  readonly digits: string;
  readonly bytes: Buffer;
  used: number;
  readonly rows: number[];
}

/** Pages out of several pieces that become one chunk; its number is drawn before its id is known. */
interface Gathered {
  readonly index: number;
  readonly digests: Buffer;
  used: number;
}

const GATHER_BYTES = MiB;

export class Sealer {
  readonly #sodium: Sodium;
  readonly #secrets: ChunkSecrets;
  readonly #checkpoint: CheckpointId;
  readonly #index: ChunkIndex;
  readonly #port: PackPort;
  readonly #aad: ChunkAad;
  readonly #hasher: PageHasher;
  readonly #matcher: PageMatcher | undefined;
  readonly #compressor = new Compressor();
  readonly #nonce = Buffer.alloc(NONCE_BYTES);
  #pack: OpenPack | undefined;
  #gathered: Gathered | undefined;
  #gatherBytes: Buffer | undefined;
  /** Of the chunks that were stored: index and number of pages, and their digests. */
  #pageRows: number[] = [];
  #pageDigests: Buffer[] = [];

  constructor(sodium: Sodium, secrets: ChunkSecrets, checkpoint: CheckpointId, { index, pages }: { index: SharedIndex; pages: SharedPages | undefined }, port: PackPort) {
    this.#sodium = sodium;
    this.#secrets = secrets;
    this.#checkpoint = checkpoint;
    this.#index = new ChunkIndex(index);
    this.#port = port;
    this.#aad = new ChunkAad(secrets.lineage);
    this.#hasher = new PageHasher(secrets.pageKey);
    this.#matcher = pages === undefined ? undefined : new PageMatcher(pages);
  }

  /** `framed` holds at least HEADROOM_BYTES and MAX_CHUNK_BYTES and is overwritten. */
  async seal(piece: WirePiece, framed: Buffer): Promise<SealedPiece> {
    const { length } = piece.source;
    if (length > MAX_CHUNK_BYTES) throw new StasisError('INTERNAL', `a piece of ${length} bytes is larger than a chunk can be (${MAX_CHUNK_BYTES})`);
    const scratch = framed.subarray(HEADROOM_BYTES);
    const stats = readSource(piece.source, scratch);
    const stripped = piece.zeroPages ? stripZeroPages(scratch, length) : { kept: length, runs: [length] };
    const { kept, runs } = stripped;
    const result = {
      length,
      raw: kept,
      ...(stats === undefined ? {} : { stats }),
      ...(runs.length > 1 ? { runs } : {}),
    };
    if (kept === 0) return { ...result, chunk: -1, reused: 0 };
    const data = scratch.subarray(0, kept);
    // What is looked at page by page is also known by its pages.
    if (!piece.zeroPages) return { ...result, ...(await this.#whole(data, undefined)) };
    const digests = this.#hasher.digests(framed.subarray(0, HEADROOM_BYTES + kept));
    if (this.#matcher?.match(digests) === true && kept % DIGEST_PAGE_BYTES === 0) return { ...result, chunk: -1, ...(await this.#pages(data, stripped, digests, this.#matcher)) };
    return { ...result, ...(await this.#whole(data, digests)) };
  }

  /** Stores what is waiting for more, and tells what the chunks since the last time hold. */
  async flush(): Promise<ChunkPages> {
    await this.#storeGathered();
    const pages = { chunks: Uint32Array.from(this.#pageRows), digests: new Uint8Array(Buffer.concat(this.#pageDigests)) };
    [this.#pageRows, this.#pageDigests] = [[], []];
    return pages;
  }

  async #storeGathered(): Promise<void> {
    const gathered = this.#gathered;
    if (gathered === undefined || this.#gatherBytes === undefined) return;
    this.#gathered = undefined;
    const digests = gathered.digests.subarray(0, (gathered.used / DIGEST_PAGE_BYTES) * DIGEST_BYTES);
    const id = pagedChunkId(this.#secrets.idKey, digests);
    this.#index.name(gathered.index, id);
    await this.#store(gathered.index, id, this.#gatherBytes.subarray(0, gathered.used), digests);
  }

  async #whole(data: Buffer, digests: Buffer | undefined): Promise<{ chunk: number; reused: number }> {
    const id = digests === undefined ? chunkId(this.#secrets.idKey, data) : pagedChunkId(this.#secrets.idKey, digests);
    const { index, added } = this.#index.add(id);
    if (added) await this.#store(index, id, data, digests);
    return { chunk: index, reused: added ? 0 : data.length };
  }

  /** Only the pages that are fresh are stored, together with those of other pieces. */
  async #pages(data: Buffer, { runs }: ZeroRuns, digests: Buffer, { chunks, offsets }: PageMatcher): Promise<{ segments: Uint32Array<ArrayBuffer>; reused: number }> {
    const rows = new SegmentRows();
    let [page, reused] = [0, 0];
    for (const [i, length] of runs.entries()) {
      if (i % 2 === 1) {
        if (length > 0) rows.zeros(length);
        continue;
      }
      for (const end = page + length / DIGEST_PAGE_BYTES; page < end; page += 1) {
        const chunk = chunks[page] as number;
        if (chunk === FRESH) {
          const place = await this.#gather(data, page, digests);
          rows.add(place.chunk, place.offset, DIGEST_PAGE_BYTES);
        } else {
          rows.add(chunk, offsets[page] as number, DIGEST_PAGE_BYTES);
          reused += DIGEST_PAGE_BYTES;
        }
      }
    }
    return { segments: rows.finish(), reused };
  }

  async #gather(data: Buffer, page: number, digests: Buffer): Promise<{ chunk: number; offset: number }> {
    if (this.#gathered?.used === GATHER_BYTES) await this.#storeGathered();
    this.#gatherBytes ??= Buffer.allocUnsafeSlow(GATHER_BYTES);
    this.#gathered ??= { index: this.#index.reserve(), digests: Buffer.alloc((GATHER_BYTES / DIGEST_PAGE_BYTES) * DIGEST_BYTES), used: 0 };
    const { used, index } = this.#gathered;
    data.copy(this.#gatherBytes, used, page * DIGEST_PAGE_BYTES, (page + 1) * DIGEST_PAGE_BYTES);
    digests.copy(this.#gathered.digests, (used / DIGEST_PAGE_BYTES) * DIGEST_BYTES, page * DIGEST_BYTES, (page + 1) * DIGEST_BYTES);
    this.#gathered.used += DIGEST_PAGE_BYTES;
    return { chunk: index, offset: used };
  }

  async #store(index: number, id: Buffer, data: Buffer, digests: Buffer | undefined): Promise<void> {
    const packed = this.#compressor.compress(data);
    const codec = digests === undefined ? packed.codec : packed.codec | PAGED;
    const { payload } = packed;
    const stored = payload.length + sealOverhead[this.#secrets.cipher];
    const pack = await this.#room(stored);
    const target = pack.bytes.subarray(pack.used, pack.used + stored);
    if (this.#secrets.cipher === ciphers.null) target.set(payload);
    else this.#sodium.seal(target, randomFillSync(this.#nonce), payload, this.#aad.set(id, codec, data.length), this.#secrets.chunkKey);
    pack.rows.push(index, pack.used, stored, data.length, codec);
    if (digests !== undefined) {
      this.#pageRows.push(index, digests.length / DIGEST_BYTES);
      this.#pageDigests.push(digests);
    }
    pack.used += stored;
  }

  async #room(length: number): Promise<OpenPack> {
    if (this.#pack !== undefined && this.#pack.used + length > this.#pack.bytes.length) this.ship();
    this.#pack ??= this.#begin(await this.#port.want());
    return this.#pack;
  }

  #begin(buffer: SharedArrayBuffer): OpenPack {
    const digits = randomBytes(8).toString('hex');
    const bytes = Buffer.from(buffer);
    bytes.set(encodePackHeader({ lineage: this.#secrets.lineage, checkpoint: this.#checkpoint, cipher: this.#secrets.cipher, digits }));
    return { digits, bytes, used: PACK_HEADER_BYTES, rows: [] };
  }

  /** Sends off what there is. */
  ship(): void {
    const pack = this.#pack;
    if (pack === undefined) return;
    this.#pack = undefined;
    this.#port.ship({ digits: pack.digits, buffer: pack.bytes.buffer as SharedArrayBuffer, used: pack.used, chunks: Uint32Array.from(pack.rows) });
  }

  /** The buffer of what will not be sent. */
  discard(): SharedArrayBuffer | undefined {
    const buffer = this.#pack?.bytes.buffer as SharedArrayBuffer | undefined;
    this.#pack = undefined;
    return buffer;
  }
}
