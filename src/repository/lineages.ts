/** The keys of lineages: made, wrapped, signed; read, checked, unwrapped. */
import { randomBytes } from 'node:crypto';
import { isStasisError, StasisError } from '../core/errors.ts';
import type { LineageId } from '../core/ids.ts';
import type { LineageKeys } from './crypto/lineage-keys.ts';
import { deriveLineageKeys } from './crypto/lineage-keys.ts';
import type { Sodium } from './crypto/port.ts';
import { asBuffer, corrupt } from './format/bytes.ts';
import { decodeLineageKey, encodeLineageKey, MAX_LINEAGE_BYTES } from './format/lineage-key.ts';
import { MAX_RECIPIENTS } from './format/limits.ts';
import { lineageName } from './format/names.ts';
import type { KeyProvider } from './keys.ts';
import type { Store } from './store/store.ts';
import type { Trust } from './trust.ts';

export interface OpenLineage {
  readonly keys: LineageKeys;
  readonly epoch: number;
}

export interface NewLineage extends OpenLineage {
  /** The object to put under `lineages/<id>`. */
  readonly object: readonly Uint8Array[];
}

export class Lineages {
  readonly #store: Store;
  readonly #provider: KeyProvider;
  readonly #sodium: Sodium;
  readonly #trust: Trust;

  constructor(store: Store, provider: KeyProvider, sodium: Sodium, trust: Trust) {
    this.#store = store;
    this.#provider = provider;
    this.#sodium = sodium;
    this.#trust = trust;
  }

  /** A new data key, not yet in the store. */
  async create(lineage: LineageId): Promise<NewLineage> {
    if (this.#provider.recipients.length > MAX_RECIPIENTS) {
      throw new StasisError('LIMIT_EXCEEDED', `${this.#provider.description} names ${this.#provider.recipients.length} recipients; a lineage can have ${MAX_RECIPIENTS}`, { hint: 'wrap to a group key instead' });
    }
    const dataKey = randomBytes(32);
    const keys = deriveLineageKeys(this.#sodium, lineage, dataKey);
    const recipients = this.#provider.recipients.map((recipient) => ({ recipient, sealed: this.#sodium.boxSeal(dataKey, recipient) }));
    dataKey.fill(0);
    const signed = encodeLineageKey({ lineage, epoch: 1, signer: this.#provider.signer, check: keys.check, recipients });
    return { keys, epoch: 1, object: [signed, await this.#provider.sign(signed)] };
  }

  async open(lineage: LineageId, { signal }: { signal: AbortSignal | undefined }): Promise<OpenLineage> {
    const object = lineageName(lineage);
    const { key, signed, signature } = decodeLineageKey(await this.#read(object, signal), lineage, object);
    this.#trust.check(object, key.signer, signed, signature);
    const dataKey = await this.#provider.unwrap(key.recipients);
    if (dataKey === undefined) {
      throw new StasisError('KEY_WRONG', `${object} is wrapped to ${key.recipients.length} other key${key.recipients.length === 1 ? '' : 's'}, not to the one in ${this.#provider.description}`, {
        hint: 'use the key that it was written for, or have its owner add this node as a recipient',
        details: { object, recipient: false },
      });
    }
    const keys = deriveLineageKeys(this.#sodium, lineage, dataKey);
    dataKey.fill(0);
    if (!Buffer.from(keys.check).equals(key.check)) throw new StasisError('KEY_WRONG', `${object} unwraps to a key that is not the lineage's`, { details: { object } });
    return { keys, epoch: key.epoch };
  }

  async #read(object: string, signal: AbortSignal | undefined): Promise<Buffer> {
    const info = await this.#store.head(object, { signal });
    if (info === undefined) {
      throw new StasisError('KEY_MISSING', `${object} is not in the store`, { hint: 'the data key of this lineage was deleted; without it nobody can read its checkpoints', details: { object } });
    }
    if (info.size > MAX_LINEAGE_BYTES) throw corrupt(object, `it has ${info.size} bytes, at most ${MAX_LINEAGE_BYTES} are possible`);
    try {
      return asBuffer(await this.#store.get(object, { offset: 0, length: info.size }, { signal }));
    } catch (error) {
      if (isStasisError(error, 'OBJECT_MISSING')) throw new StasisError('KEY_MISSING', `${object} is not in the store any more`, { cause: error });
      throw error;
    }
  }
}
