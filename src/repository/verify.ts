/** Reads a whole checkpoint back and checks every byte of it. */
import { asStasisError, StasisError } from '../core/errors.ts';
import type { CheckpointId } from '../core/ids.ts';
import { asBuffer, corrupt } from './format/bytes.ts';
import { packObject } from './format/body.ts';
import { manifestName } from './format/names.ts';
import { checkPackHeader, PACK_HEADER_BYTES } from './format/pack.ts';
import { FETCH_BYTES, fetchRange, inParallel } from './fetch.ts';
import type { FetchContext, WireTarget } from './fetch.ts';
import type { Manifests, OpenManifest } from './manifests.ts';
import { planChunks } from './plan.ts';
import type { PlannedFetch } from './plan.ts';
import { secretsOf } from './reader.ts';
import type { StagePool } from './stage/pool.ts';
import type { Store } from './store/store.ts';
import type { VerifyReport } from './types.ts';

interface VerifyOptions {
  readonly signal: AbortSignal | undefined;
  readonly onBytes?: (count: number, total: number) => void;
}

type Problem = VerifyReport['problems'][number];

/** What says that the store is away, not that something in it is damaged. */
const GIVE_UP = new Set(['STORE_UNAVAILABLE', 'KEY_UNAVAILABLE', 'PERMISSION_DENIED', 'CANCELLED', 'DEADLINE_EXCEEDED', 'CHECKPOINT_NOT_FOUND', 'INTERNAL']);

export async function verifyCheckpoint(id: CheckpointId, store: Store, manifests: Manifests, pool: StagePool, options: VerifyOptions): Promise<VerifyReport> {
  let manifest: OpenManifest;
  try {
    manifest = await manifests.open(id, { signal: options.signal });
  } catch (error) {
    return { id, objects: 1, chunks: 0, bytes: 0, problems: [toProblem(error, manifestName(id))] };
  }
  const context = { store, pool, secrets: secretsOf(manifest), tables: manifest.tables, verify: true };
  return new Verification(id, manifest, context, options).run();
}

/** Rethrows what is not about the object. */
function toProblem(error: unknown, object: string): Problem {
  const known = asStasisError(error, `cannot verify ${object}`);
  if (GIVE_UP.has(known.code)) throw known;
  return { object: String(known.details['object'] ?? object), code: known.code, message: known.message };
}

class Verification {
  readonly #id: CheckpointId;
  readonly #manifest: OpenManifest;
  readonly #context: FetchContext;
  readonly #options: VerifyOptions;
  readonly #problems: Problem[] = [];
  readonly #badPacks = new Set<number>();
  #done = 0;

  constructor(id: CheckpointId, manifest: OpenManifest, context: FetchContext, options: VerifyOptions) {
    this.#id = id;
    this.#manifest = manifest;
    this.#context = context;
    this.#options = options;
  }

  async run(): Promise<VerifyReport> {
    const { packs, chunks } = this.#manifest.tables;
    const width = this.#context.pool.jobs.limit;
    await inParallel(packs.keys(), width, (pack) => this.#checkPack(pack));
    const fetches = this.#fetches().filter(({ pack }) => !this.#badPacks.has(pack));
    const total = fetches.reduce((sum, { length }) => sum + length, 0);
    await inParallel(fetches, width, async (fetch) => {
      await this.#checkChunks(fetch);
      this.#done += fetch.length;
      this.#options.onBytes?.(this.#done, total);
    });
    const sorted = this.#problems.sort((a, b) => (a.object < b.object ? -1 : a.object > b.object ? 1 : 0));
    // Manifest, lineage key, packs.
    return { id: this.#id, objects: packs.length + 2, chunks: chunks.count, bytes: this.#done + this.#manifest.size, problems: sorted };
  }

  #fetches(): PlannedFetch<WireTarget>[] {
    const { tables } = this.#manifest;
    // Nothing goes anywhere: opening is the check.
    const every = Array.from({ length: tables.chunks.count }, (_, chunk) => ({ chunk, parts: [] }));
    return planChunks<WireTarget>(every, tables, Math.min(FETCH_BYTES, this.#context.pool.buffers.bufferBytes));
  }

  async #checkPack(index: number): Promise<void> {
    const pack = this.#manifest.tables.packs[index];
    if (pack === undefined) return;
    const object = packObject(pack);
    const { store } = this.#context;
    const { signal } = this.#options;
    try {
      const info = await store.head(object, { signal });
      if (info === undefined) throw new StasisError('OBJECT_MISSING', `${object} is not in the store`, { details: { object } });
      if (info.size !== pack.size) throw corrupt(object, `it has ${info.size} bytes instead of ${pack.size}`);
      const header = asBuffer(await store.get(object, { offset: 0, length: PACK_HEADER_BYTES }, { signal }));
      checkPackHeader(header, { lineage: this.#manifest.summary.lineage, checkpoint: pack.checkpoint as CheckpointId, cipher: this.#manifest.cipher, digits: pack.digits }, object);
      this.#done += PACK_HEADER_BYTES;
    } catch (error) {
      this.#badPacks.add(index);
      this.#problems.push(toProblem(error, object));
    }
  }

  async #checkChunks(fetch: PlannedFetch<WireTarget>): Promise<void> {
    const pack = this.#manifest.tables.packs[fetch.pack];
    const object = pack === undefined ? '' : packObject(pack);
    try {
      for (const { error } of await fetchRange(this.#context, fetch, this.#options.signal)) {
        this.#problems.push({ object, code: error.code, message: error.message });
      }
    } catch (error) {
      this.#problems.push(toProblem(error, object));
    }
  }
}
