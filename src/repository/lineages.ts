/** The keys of lineages: made, wrapped, signed; read, checked, unwrapped. */
import { randomBytes } from 'node:crypto';
import { isStasisError, StasisError } from '../core/errors.ts';
import type { LineageId } from '../core/ids.ts';
import type { LineageKeys } from './crypto/lineage-keys.ts';
import { deriveLineageKeys } from './crypto/lineage-keys.ts';
import { KEY_BYTES } from './crypto/port.ts';
import type { Sodium } from './crypto/port.ts';
import { asBuffer, corrupt } from './format/bytes.ts';
import { decodeLineageKey, encodeLineageKey, MAX_LINEAGE_BYTES } from './format/lineage-key.ts';
import type { LineageKey } from './format/lineage-key.ts';
import { MAX_RECIPIENTS } from './format/limits.ts';
import { lineageName } from './format/names.ts';
import type { KeyProvider } from './keys/port.ts';
import type { Store } from './store/store.ts';
import { hex } from './trust.ts';
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
    const node = await this.#provider.keys();
    if (node.recipients.length > MAX_RECIPIENTS) {
      throw new StasisError('LIMIT_EXCEEDED', `${node.description} names ${node.recipients.length} recipients; a lineage can have ${MAX_RECIPIENTS}`, { hint: 'wrap to a group key instead' });
    }
    const dataKey = randomBytes(32);
    const keys = deriveLineageKeys(this.#sodium, lineage, dataKey);
    const recipients = node.recipients.map((recipient) => ({ recipient, sealed: this.#sodium.boxSeal(dataKey, recipient) }));
    dataKey.fill(0);
    const signed = encodeLineageKey({ lineage, epoch: 1, signer: node.signer, check: keys.check, recipients });
    return { keys, epoch: 1, object: [signed, await node.sign(signed)] };
  }

  async open(lineage: LineageId, { signal }: { signal: AbortSignal | undefined }): Promise<OpenLineage> {
    const { dataKey, keys, epoch } = await this.#unwrap(lineage, signal);
    dataKey.fill(0);
    return { keys, epoch };
  }

  /** What is public about a key, its signature checked. */
  async inspect(lineage: LineageId, { signal }: { signal: AbortSignal | undefined }): Promise<{ epoch: number; recipients: string[]; signer: string }> {
    const { epoch, recipients, signer } = await this.#signed(lineage, signal);
    return { epoch, recipients: recipients.map(({ recipient }) => hex(recipient)), signer: hex(signer) };
  }

  /** The same data key for other recipients, in the next epoch; not yet in the store. Throws KEY_WRONG when it is not wrapped to us. */
  async rewrap(lineage: LineageId, change: (recipients: readonly string[]) => readonly string[], { signal }: { signal: AbortSignal | undefined }): Promise<{ object: readonly Uint8Array[]; epoch: number }> {
    const { dataKey, keys, epoch, recipients } = await this.#unwrap(lineage, signal);
    try {
      const wanted = [...new Set(change(recipients.map(({ recipient }) => hex(recipient))))].map((key) => Buffer.from(key, 'hex'));
      if (wanted.length === 0 || wanted.length > MAX_RECIPIENTS || wanted.some(({ length }) => length !== KEY_BYTES)) {
        throw new StasisError('USAGE', `a lineage has 1 to ${MAX_RECIPIENTS} recipients of ${KEY_BYTES} bytes, not ${wanted.length}`, { hint: 'stasis keys shred makes a lineage unreadable for everybody' });
      }
      const sealed = wanted.map((recipient) => ({ recipient, sealed: this.#sodium.boxSeal(dataKey, recipient) }));
      const node = await this.#provider.keys();
      const signed = encodeLineageKey({ lineage, epoch: epoch + 1, signer: node.signer, check: keys.check, recipients: sealed });
      return { object: [signed, await node.sign(signed)], epoch: epoch + 1 };
    } finally {
      dataKey.fill(0);
    }
  }

  async #signed(lineage: LineageId, signal: AbortSignal | undefined): Promise<LineageKey> {
    const object = lineageName(lineage);
    const { key, signed, signature } = decodeLineageKey(await this.#read(object, signal), lineage, object);
    await this.#trust.check(object, key.signer, signed, signature);
    return key;
  }

  async #unwrap(lineage: LineageId, signal: AbortSignal | undefined): Promise<OpenLineage & { dataKey: Uint8Array; recipients: LineageKey['recipients'] }> {
    const object = lineageName(lineage);
    const key = await this.#signed(lineage, signal);
    const node = await this.#provider.keys();
    const dataKey = await node.unwrap(key.recipients, lineage);
    if (dataKey === undefined) {
      throw new StasisError('KEY_WRONG', `${object} is wrapped to ${key.recipients.length} other key${key.recipients.length === 1 ? '' : 's'}, not to the one in ${node.description}`, {
        hint: 'use the key that it was written for, or have its owner add this node as a recipient',
        details: { object, recipient: false },
      });
    }
    const keys = deriveLineageKeys(this.#sodium, lineage, dataKey);
    if (!Buffer.from(keys.check).equals(key.check)) throw new StasisError('KEY_WRONG', `${object} unwraps to a key that is not the lineage's`, { details: { object } });
    return { keys, epoch: key.epoch, dataKey, recipients: key.recipients };
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
