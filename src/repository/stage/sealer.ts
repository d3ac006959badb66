/** Seals the pieces of one writer, inside a worker, into packs. */
import { randomBytes, randomFillSync } from 'node:crypto';
import { StasisError } from '../../core/errors.ts';
import type { CheckpointId } from '../../core/ids.ts';
import { ciphers, sealOverhead } from '../format/algorithms.ts';
import { MAX_CHUNK_BYTES } from '../format/limits.ts';
import { ChunkAad, encodePackHeader, PACK_HEADER_BYTES } from '../format/pack.ts';
import { chunkId } from '../crypto/lineage-keys.ts';
import type { Sodium } from '../crypto/port.ts';
import { NONCE_BYTES } from '../crypto/port.ts';
import { ChunkIndex } from './chunk-index.ts';
import type { SharedIndex } from './chunk-index.ts';
import { compress } from './compress.ts';
import type { ChunkSecrets, SealedPiece, ShippedPack, WirePiece } from './messages.ts';
import { readSource } from './source.ts';
import { stripZeroPages } from './zero-runs.ts';

/** How a sealer gets empty buffers and gets rid of full ones. */
export interface PackPort {
  want(): Promise<ArrayBuffer>;
  ship(pack: ShippedPack): void;
}

interface OpenPack {
  readonly digits: string;
  readonly bytes: Buffer;
  used: number;
  readonly rows: number[];
}

export class Sealer {
  readonly #sodium: Sodium;
  readonly #secrets: ChunkSecrets;
  readonly #checkpoint: CheckpointId;
  readonly #index: ChunkIndex;
  readonly #port: PackPort;
  readonly #aad: ChunkAad;
  readonly #nonce = Buffer.alloc(NONCE_BYTES);
  #pack: OpenPack | undefined;

  constructor(sodium: Sodium, secrets: ChunkSecrets, checkpoint: CheckpointId, index: SharedIndex, port: PackPort) {
    this.#sodium = sodium;
    this.#secrets = secrets;
    this.#checkpoint = checkpoint;
    this.#index = new ChunkIndex(index);
    this.#port = port;
    this.#aad = new ChunkAad(secrets.lineage);
  }

  /** `scratch` holds at least MAX_CHUNK_BYTES and is overwritten. */
  async seal(piece: WirePiece, scratch: Buffer): Promise<SealedPiece> {
    const { length } = piece.source;
    if (length > MAX_CHUNK_BYTES) throw new StasisError('INTERNAL', `a piece of ${length} bytes is larger than a chunk can be (${MAX_CHUNK_BYTES})`);
    const stats = readSource(piece.source, scratch);
    const { kept, runs } = piece.zeroPages ? stripZeroPages(scratch, length) : { kept: length, runs: [length] };
    const result = {
      length,
      raw: kept,
      ...(runs.length > 1 ? { runs } : {}),
      ...(stats === undefined ? {} : { stats }),
    };
    if (kept === 0) return { ...result, chunk: -1, reused: false };
    const data = scratch.subarray(0, kept);
    const id = chunkId(this.#secrets.idKey, data);
    const { index, added } = this.#index.add(id);
    if (added) await this.#store(index, id, data);
    return { ...result, chunk: index, reused: !added };
  }

  async #store(index: number, id: Buffer, data: Buffer): Promise<void> {
    const { codec, payload } = compress(data);
    const stored = payload.length + sealOverhead[this.#secrets.cipher];
    const pack = await this.#room(stored);
    const target = pack.bytes.subarray(pack.used, pack.used + stored);
    if (this.#secrets.cipher === ciphers.null) target.set(payload);
    else this.#sodium.seal(target, randomFillSync(this.#nonce), payload, this.#aad.set(id, codec, data.length), this.#secrets.chunkKey);
    pack.rows.push(index, pack.used, stored, data.length, codec);
    pack.used += stored;
  }

  async #room(length: number): Promise<OpenPack> {
    if (this.#pack !== undefined && this.#pack.used + length > this.#pack.bytes.length) this.ship();
    this.#pack ??= this.#begin(await this.#port.want());
    return this.#pack;
  }

  #begin(buffer: ArrayBuffer): OpenPack {
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
    this.#port.ship({ digits: pack.digits, buffer: pack.bytes.buffer as ArrayBuffer, used: pack.used, chunks: Uint32Array.from(pack.rows) });
  }

  /** The buffer of what will not be sent. */
  discard(): ArrayBuffer | undefined {
    const buffer = this.#pack?.bytes.buffer as ArrayBuffer | undefined;
    this.#pack = undefined;
    return buffer;
  }
}
