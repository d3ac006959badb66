/** What the tests of the repository share: keys without files, small repositories, stores that fail. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isStasisError, StasisError } from '../../src/core/errors.ts';
import { systemClock } from '../../src/core/clock.ts';
import type { CheckpointId } from '../../src/core/ids.ts';
import { newCheckpointId } from '../../src/core/ids.ts';
import { nativeSodium } from '../../src/repository/crypto/native.ts';
import type { CheckpointSummary, KeyProvider, NodeKeys, WrappedKey, ObjectInfo, Repository, RepositoryOptions, Store } from '../../src/repository/index.ts';
import { fixedKeys, MemoryStore, openRepository } from '../../src/repository/index.ts';

export const anySignal = { signal: undefined };

export function testKeys(seed: Uint8Array = randomBytes(32)): NodeKeys & KeyProvider & { unwrap(recipients: readonly WrappedKey[]): Promise<Uint8Array | undefined> } {
  const box = nativeSodium.boxPair(nativeSodium.subkey(seed, 1));
  const signing = nativeSodium.signPair(nativeSodium.subkey(seed, 2));
  return fixedKeys({
    description: 'test keys',
    signer: signing.publicKey,
    formerSigners: [],
    recipients: [box.publicKey],
    own: [box.publicKey],
    sign: (message) => Promise.resolve(nativeSodium.sign(message, signing.secretKey)),
    unwrap: (recipients) => {
      const mine = recipients.find(({ recipient }) => Buffer.compare(recipient, box.publicKey) === 0);
      const key = mine && nativeSodium.boxSealOpen(mine.sealed, box);
      if (mine !== undefined && key === undefined) return Promise.reject(new StasisError('KEY_WRONG', 'does not open'));
      return Promise.resolve(key);
    },
  });
}

let lastMs = 0;
/** Ids in the order of the calls. */
export function nextId(): CheckpointId {
  lastMs = Math.max(lastMs + 1, systemClock.now());
  return newCheckpointId(lastMs);
}

/** A repository for one test; closed at its end. */
export async function withRepository<T>(options: Partial<RepositoryOptions>, use: (repository: Repository, store: Store) => Promise<T>): Promise<T> {
  const store = options.store ?? new MemoryStore();
  const repository = await openRepository({ keys: testKeys(), clock: systemClock, workers: 2, owner: 'the one agent', ...options, store });
  try {
    return await use(repository, store);
  } finally {
    await repository.close();
  }
}

export async function withDirectory<T>(use: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'stasis-repository-'));
  try {
    return await use(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

export function shared(bytes: Uint8Array): SharedArrayBuffer {
  const buffer = new SharedArrayBuffer(bytes.length);
  new Uint8Array(buffer).set(bytes);
  return buffer;
}

/** Pieces of at most `size` bytes out of memory. */
export function* piecesOf(bytes: Uint8Array, size: number): Iterable<{ source: { kind: 'memory'; buffer: SharedArrayBuffer; offset: number; length: number }; zeroPages: boolean }> {
  const buffer = shared(bytes);
  for (let offset = 0; offset < bytes.length; offset += size) {
    yield { source: { kind: 'memory', buffer, offset, length: Math.min(size, bytes.length - offset) }, zeroPages: true };
  }
}

/** A checkpoint with one bulk blob and two small ones. */
export async function save(repository: Repository, options: { bytes: Uint8Array; lineage?: CheckpointSummary['lineage']; cipher?: string; id?: CheckpointId }): Promise<CheckpointSummary> {
  const id = options.id ?? nextId();
  const writer = await repository.begin({ id, lineage: options.lineage, ...(options.cipher === undefined ? {} : { cipher: options.cipher }) }, anySignal);
  try {
    await writer.append('memory', piecesOf(options.bytes, 65536), anySignal);
    await writer.putSmall('a.img', Buffer.from('first small blob'), anySignal);
    await writer.putSmall('b.img', Buffer.from('second small blob'), anySignal);
    return await writer.commit({ about: 'a test' }, anySignal);
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

/** What {@link save} saved is what comes back, through every way of reading. */
export async function load(repository: Repository, id: CheckpointId): Promise<Buffer> {
  const reader = await repository.open(id, anySignal);
  const length = reader.blobs.get('memory') ?? 0;
  const buffer = new SharedArrayBuffer(length);
  await reader.extract([{ blob: 'memory', sink: ({ offset }) => ({ kind: 'memory', buffer, offset }) }], anySignal);
  return Buffer.from(new Uint8Array(buffer));
}

export function codeOf(error: unknown): string {
  return isStasisError(error) ? error.code : `not a StasisError: ${String(error)}`;
}

/** The code that a promise is rejected with; "none" when it is not. */
export async function failure(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'none',
    (error: unknown) => codeOf(error),
  );
}

/** Passes calls on until the n-th, which fails; with `dead`, so do all that follow, as after a crash. */
export class FaultyStore implements Store {
  readonly description = 'faulty';
  readonly #store: Store;
  readonly #failAt: number;
  readonly #dead: boolean;
  /** The failing call does its work first: its answer was lost. */
  readonly #after: boolean;
  readonly #code: 'STORE_UNAVAILABLE' | 'NO_SPACE';
  calls = 0;

  constructor(store: Store, failAt: number, how: { dead?: boolean; after?: boolean; code?: 'STORE_UNAVAILABLE' | 'NO_SPACE' }) {
    this.#store = store;
    this.#failAt = failAt;
    this.#dead = how.dead ?? false;
    this.#after = how.after ?? false;
    this.#code = how.code ?? 'STORE_UNAVAILABLE';
  }

  async #run<T>(work: () => Promise<T>): Promise<T> {
    this.calls += 1;
    const call = this.calls;
    const fails = call === this.#failAt || (this.#dead && call > this.#failAt);
    if (fails && !(this.#after && call === this.#failAt)) throw this.#error(call);
    const result = await work();
    if (fails) throw this.#error(call);
    return result;
  }

  #error(call: number): StasisError {
    return new StasisError(this.#code, `injected at call ${call}`);
  }

  put: Store['put'] = (...args) => this.#run(() => this.#store.put(...args));
  get: Store['get'] = (...args) => this.#run(() => this.#store.get(...args));
  head: Store['head'] = (...args) => this.#run(() => this.#store.head(...args));
  delete: Store['delete'] = (...args) => this.#run(() => this.#store.delete(...args));
  freeBytes: Store['freeBytes'] = () => this.#store.freeBytes();

  async *list(prefix: string, options: { signal: AbortSignal | undefined }): AsyncIterable<ObjectInfo> {
    for (const info of await this.#run(() => Array.fromAsync(this.#store.list(prefix, options)))) yield info;
  }
}
