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
import { KeyMemory } from './key-memory.ts';
import type { KnownKey } from './key-memory.ts';
import type { KeyProvider } from './keys/port.ts';
import type { Store } from './store/store.ts';
import { hex } from './trust.ts';
import type { Trust } from './trust.ts';
import type { KeyChange, KeyState } from './types.ts';

export interface OpenLineage {
  readonly keys: LineageKeys;
  readonly epoch: number;
}

/** An open lineage and what is public about its key. */
export interface KnownLineage extends OpenLineage, KeyState {}

export interface NewLineage extends OpenLineage {
  /** The object to put under `lineages/<id>`. */
  readonly object: readonly Uint8Array[];
}

export class Lineages {
  readonly #store: Store;
  readonly #provider: KeyProvider;
  readonly #sodium: Sodium;
  readonly #trust: Trust;
  readonly #memory: KeyMemory;

  constructor(store: Store, provider: KeyProvider, sodium: Sodium, trust: Trust, memory = new KeyMemory()) {
    this.#store = store;
    this.#provider = provider;
    this.#sodium = sodium;
    this.#trust = trust;
    this.#memory = memory;
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
    const signed = encodeLineageKey({ lineage, epoch: 1, signer: node.signer, check: keys.check, recipients, ended: false });
    return { keys, epoch: 1, object: [signed, await node.sign(signed)] };
  }

  async open(lineage: LineageId, { signal }: { signal: AbortSignal | undefined }): Promise<KnownLineage> {
    const { dataKey, keys, key } = await this.#unwrap(lineage, signal);
    dataKey.fill(0);
    return { keys, epoch: key.epoch, ...stateOf(key) };
  }

  /** What is public about a key, its signature checked. */
  async inspect(lineage: LineageId, { signal }: { signal: AbortSignal | undefined }): Promise<KeyState & { epoch: number; signer: string }> {
    const key = await this.#signed(lineage, signal);
    return { epoch: key.epoch, signer: hex(key.signer), ...stateOf(key) };
  }

  differs(a: KeyState, b: KeyState): boolean {
    return a.ended !== b.ended || new Set(a.recipients).symmetricDifference(new Set(b.recipients)).size > 0;
  }

  /** The same data key for other recipients, in the next epoch; not yet in the store. No object when nothing is to change. Throws KEY_WRONG when it is not wrapped to us. */
  async rewrap(lineage: LineageId, change: KeyChange, { signal }: { signal: AbortSignal | undefined }): Promise<{ object: readonly Uint8Array[] | undefined; epoch: number; ended: boolean }> {
    const { dataKey, keys, key } = await this.#unwrap(lineage, signal);
    try {
      const [state, epoch] = [stateOf(key), key.epoch + 1];
      const wanted = change(state);
      if (!this.differs(state, wanted)) return { object: undefined, epoch: key.epoch, ended: key.ended };
      const recipients = [...new Set(wanted.recipients)].map((recipient) => Buffer.from(recipient, 'hex'));
      if (recipients.length === 0 || recipients.length > MAX_RECIPIENTS || recipients.some(({ length }) => length !== KEY_BYTES)) {
        throw new StasisError('USAGE', `lineage ${lineage} would have ${recipients.length} recipients; 1 to ${MAX_RECIPIENTS} keys of ${KEY_BYTES} bytes are possible`, { hint: 'stasis keys shred makes a lineage unreadable for everybody' });
      }
      const sealed = recipients.map((recipient) => ({ recipient, sealed: this.#sodium.boxSeal(dataKey, recipient) }));
      const node = await this.#provider.keys();
      const signed = encodeLineageKey({ lineage, epoch, signer: node.signer, check: keys.check, recipients: sealed, ended: wanted.ended });
      return { object: [signed, await node.sign(signed)], epoch, ended: wanted.ended };
    } finally {
      dataKey.fill(0);
    }
  }

  /** A key that this node has put into the store. */
  learn(lineage: LineageId, key: KnownKey): void {
    this.#memory.learn(lineage, key);
  }

  /** Throws also when it is older than one that this node knows (OBJECT_CORRUPT). */
  async #signed(lineage: LineageId, signal: AbortSignal | undefined): Promise<LineageKey> {
    const object = lineageName(lineage);
    // What is learnt while the store answers may be newer than the answer.
    const known = this.#memory.of(lineage);
    const { key, signed, signature } = decodeLineageKey(await this.#read(object, signal), lineage, object);
    await this.#trust.check(object, key.signer, signed, signature);
    this.#memory.requireNotOlder(object, key, known);
    this.#memory.learn(lineage, key);
    return key;
  }

  async #unwrap(lineage: LineageId, signal: AbortSignal | undefined): Promise<{ keys: LineageKeys; key: LineageKey; dataKey: Uint8Array }> {
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
    return { keys, key, dataKey };
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

function stateOf({ recipients, ended }: LineageKey): KeyState {
  return { recipients: recipients.map(({ recipient }) => hex(recipient)), ended };
}
