/** Manifests in the store: written last, read first, never believed before their signature and seal are good. */
import { randomBytes } from 'node:crypto';
import { isStasisError, StasisError } from '../core/errors.ts';
import type { CheckpointId, LineageId } from '../core/ids.ts';
import { NONCE_BYTES } from './crypto/port.ts';
import type { Sodium } from './crypto/port.ts';
import { cipherName, ciphers, sealOverhead } from './format/algorithms.ts';
import type { CipherId } from './format/algorithms.ts';
import { decodeBody, decodeSummary, encodeBody } from './format/body.ts';
import type { Summary, Tables } from './format/body.ts';
import { asBuffer, corrupt } from './format/bytes.ts';
import { MAX_BODY_BYTES, MAX_MANIFEST_BYTES } from './format/limits.ts';
import { encodeManifestHeader, MANIFEST_HEADER_BYTES, manifestLineage, splitManifest } from './format/manifest.ts';
import type { ManifestHeader } from './format/manifest.ts';
import { checkpointOfManifest, MANIFESTS, manifestName } from './format/names.ts';
import type { KeyProvider } from './keys/port.ts';
import type { Lineages, OpenLineage } from './lineages.ts';
import { Compressor, decompressInto } from './stage/compress.ts';
import type { Store } from './store/store.ts';
import { hex } from './trust.ts';
import type { Trust } from './trust.ts';
import type { CheckpointSummary } from './types.ts';

interface Options {
  readonly signal: AbortSignal | undefined;
}

/** How many checkpoints' lineages are remembered. */
const REMEMBERED = 100_000;

export interface OpenManifest {
  readonly summary: CheckpointSummary;
  readonly cipher: CipherId;
  readonly lineage: OpenLineage;
  readonly tables: Tables;
  /** Bytes of the object. */
  readonly size: number;
}

/** Keys that were opened in the course of one call. */
export type LineageCache = Map<LineageId, Promise<OpenLineage>>;

export interface NewManifest {
  readonly checkpoint: CheckpointId;
  readonly cipher: CipherId;
  readonly lineage: OpenLineage;
  readonly createdMs: number;
  readonly summary: Summary;
  readonly tables: Tables;
}

export class Manifests {
  readonly #store: Store;
  readonly #provider: KeyProvider;
  readonly #sodium: Sodium;
  readonly #trust: Trust;
  readonly #lineages: Lineages;
  /** What manifests say of their lineage; that never changes. */
  readonly #lineageOf = new Map<CheckpointId, LineageId>();
  #running: Promise<unknown> = Promise.resolve();
  #next: Promise<readonly CheckpointId[]> | undefined;

  constructor(store: Store, provider: KeyProvider, sodium: Sodium, trust: Trust, lineages: Lineages) {
    this.#store = store;
    this.#provider = provider;
    this.#sodium = sodium;
    this.#trust = trust;
    this.#lineages = lineages;
  }

  async write(manifest: NewManifest, { signal }: Options): Promise<CheckpointSummary> {
    const body = encodeBody(manifest.summary, manifest.tables);
    const packed = new Compressor().always(body);
    const sealed = Buffer.allocUnsafe(packed.length + sealOverhead[ciphers['xchacha20-poly1305']]);
    for (const [length, most, what] of [[body.length, MAX_BODY_BYTES, 'bytes of body'], [sealed.length, MAX_MANIFEST_BYTES, 'bytes of manifest']] as const) {
      if (length > most) throw new StasisError('LIMIT_EXCEEDED', `this checkpoint needs ${length} ${what}; the format allows ${most}`, { hint: 'docs/FORMAT.md lists the limits and their reasons' });
    }
    const keys = await this.#provider.keys();
    const header: ManifestHeader = {
      checkpoint: manifest.checkpoint,
      lineage: manifest.lineage.keys.lineage,
      cipher: manifest.cipher,
      epoch: manifest.lineage.epoch,
      createdMs: manifest.createdMs,
      signer: keys.signer,
      sealedLength: sealed.length,
      bodyLength: body.length,
    };
    const headerBytes = encodeManifestHeader(header);
    this.#sodium.seal(sealed, randomBytes(NONCE_BYTES), packed, headerBytes, manifest.lineage.keys.manifestKey);
    const signature = await keys.sign(Buffer.concat([headerBytes, sealed]));
    await this.#store.put(manifestName(manifest.checkpoint), [headerBytes, sealed, signature], { signal });
    return summaryOf(header, manifest.summary);
  }

  async open(id: CheckpointId, { signal, cache }: Options & { cache?: LineageCache }): Promise<OpenManifest> {
    const { header, lineage, body, size } = await this.#unseal(id, signal, cache ?? new Map());
    const { summary, tables } = decodeBody(body, header.cipher, manifestName(id));
    return { summary: summaryOf(header, summary), cipher: header.cipher, lineage, tables, size };
  }

  async summary(id: CheckpointId, { signal, cache }: Options & { cache: LineageCache }): Promise<CheckpointSummary> {
    const { header, body } = await this.#unseal(id, signal, cache);
    return summaryOf(header, decodeSummary(body, manifestName(id)));
  }

  /** The lineage that a manifest claims; nothing else of it is looked at. One that is gone by now may still be remembered. */
  async lineageOf(id: CheckpointId, { signal }: Options): Promise<LineageId> {
    const known = this.#lineageOf.get(id);
    if (known !== undefined) return known;
    const object = manifestName(id);
    const bytes = await this.#store.get(object, { offset: 0, length: MANIFEST_HEADER_BYTES }, { signal });
    const lineage = manifestLineage(asBuffer(bytes), object);
    if (this.#lineageOf.size >= REMEMBERED) this.#lineageOf.clear();
    this.#lineageOf.set(id, lineage);
    return lineage;
  }

  async exists(id: CheckpointId, { signal }: Options): Promise<boolean> {
    return (await this.#store.head(manifestName(id), { signal })) !== undefined;
  }

  /** As ids(), all at once, of a list that began after this call. Who asks while one is on its way waits for the next, with all others who do. */
  freshIds(): Promise<readonly CheckpointId[]> {
    if (this.#next !== undefined) return this.#next;
    const before = this.#running;
    const mine = before.catch(() => undefined).then(() => {
      this.#next = undefined;
      return Array.fromAsync(this.ids({ signal: undefined }));
    });
    this.#next = mine;
    this.#running = mine;
    return mine;
  }

  /** All checkpoints, oldest first. Strangers' files are reported and passed over. */
  async *ids({ signal, onProblem }: Options & { onProblem?: ((object: string, error: Error) => void) | undefined }): AsyncIterable<CheckpointId> {
    for await (const { name } of this.#store.list(MANIFESTS, { signal })) {
      let id: CheckpointId;
      try {
        id = checkpointOfManifest(name);
      } catch (error) {
        onProblem?.(name, error as Error);
        continue;
      }
      yield id;
    }
  }

  async #unseal(id: CheckpointId, signal: AbortSignal | undefined, cache: LineageCache): Promise<{ header: ManifestHeader; lineage: OpenLineage; body: Buffer; size: number }> {
    const object = manifestName(id);
    const bytes = await this.#read(id, signal);
    const { header, headerBytes, sealed, signed, signature } = splitManifest(bytes, id, object);
    await this.#trust.check(object, header.signer, signed, signature);
    const lineage = await this.#lineage(header.lineage, signal, cache);
    if (lineage.epoch < header.epoch) {
      throw corrupt(`lineages/${header.lineage}`, `its epoch is ${lineage.epoch}, but checkpoint ${id} was written in epoch ${header.epoch}: it is an older copy`);
    }
    const packed = Buffer.allocUnsafe(Math.max(0, sealed.length - sealOverhead[ciphers['xchacha20-poly1305']]));
    if (!this.#sodium.open(packed, sealed, headerBytes, lineage.keys.manifestKey)) throw corrupt(object, 'its seal is broken');
    const body = Buffer.alloc(header.bodyLength);
    if (!decompressInto(body, packed)) throw corrupt(object, 'its body does not expand to its length');
    return { header, lineage, body, size: bytes.length };
  }

  async #lineage(id: LineageId, signal: AbortSignal | undefined, cache: LineageCache): Promise<OpenLineage> {
    const known = cache.get(id);
    if (known !== undefined) return known;
    const opening = this.#lineages.open(id, { signal });
    cache.set(id, opening);
    return opening;
  }

  async #read(id: CheckpointId, signal: AbortSignal | undefined): Promise<Buffer> {
    const object = manifestName(id);
    const most = MANIFEST_HEADER_BYTES + MAX_MANIFEST_BYTES + 64;
    try {
      const info = await this.#store.head(object, { signal });
      if (info !== undefined && info.size > most) throw new StasisError('LIMIT_EXCEEDED', `${object} has ${info.size} bytes; the limit is ${most}`, { details: { object } });
      return asBuffer(await this.#store.get(object, undefined, { signal }));
    } catch (error) {
      if (!isStasisError(error, 'OBJECT_MISSING')) throw error;
      throw new StasisError('CHECKPOINT_NOT_FOUND', `there is no checkpoint ${id} in ${this.#store.description}`, { hint: 'stasis list shows what is there', cause: error });
    }
  }
}

function summaryOf(header: ManifestHeader, summary: Summary): CheckpointSummary {
  return {
    id: header.checkpoint,
    lineage: header.lineage,
    createdMs: header.createdMs,
    cipher: cipherName(header.cipher),
    signer: hex(header.signer),
    description: summary.description,
    bytes: summary.bytes,
  };
}
