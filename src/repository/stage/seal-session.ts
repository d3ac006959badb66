/** One writer's use of the pool: pieces go in, packs come out and are put into the store. */
import { asStasisError } from '../../core/errors.ts';
import type { CheckpointId } from '../../core/ids.ts';
import type { Batch } from './batches.ts';
import type { SharedIndex } from './chunk-index.ts';
import type { ChunkPages, ChunkSecrets, SealedPiece, ShippedPack } from './messages.ts';
import type { SharedPages } from './page-table.ts';
import type { StagePool } from './pool.ts';
import type { WorkerHandle } from './worker-handle.ts';

export interface SealSessionOptions {
  readonly secrets: ChunkSecrets;
  readonly checkpoint: CheckpointId;
  readonly index: SharedIndex;
  /** The pages of the checkpoint before. */
  readonly pages: SharedPages | undefined;
  /** Makes a pack durable. */
  readonly put: (pack: ShippedPack, signal: AbortSignal) => Promise<void>;
}

export class SealSession {
  readonly #pool: StagePool;
  readonly #put: SealSessionOptions['put'];
  readonly #id: number;
  /** Those that know this session. One that died is not replaced here: its packs are lost, and so is the session. */
  readonly #workers: readonly WorkerHandle[];
  readonly #used = new Set<WorkerHandle>();
  readonly #begin: (worker: WorkerHandle) => void;
  readonly #puts = new Set<Promise<void>>();
  readonly #stop = new AbortController();

  constructor(pool: StagePool, options: SealSessionOptions) {
    this.#pool = pool;
    this.#put = options.put;
    this.#workers = [...pool.workers];
    this.#id = pool.register({
      onPack: (pack) => this.#store(pack),
      onDeath: () => this.fail(new Error('a stage worker died')),
      onStarved: () => void this.#ship().catch((error: unknown) => this.fail(error)),
    });
    const { secrets, checkpoint, index, pages } = options;
    this.#begin = (worker) => worker.tell({ type: 'begin', session: this.#id, secrets, checkpoint, index, pages });
    // There when the first piece comes.
    this.#begun(pool.idlest(this.#workers));
  }

  /** Of the workers this session uses only those that it needs. */
  #begun(worker: WorkerHandle): WorkerHandle {
    if (!this.#used.has(worker)) this.#begin(worker);
    this.#used.add(worker);
    return worker;
  }

  /** Aborted, with the reason, as soon as anything went wrong. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  fail(error: unknown): void {
    this.#stop.abort(asStasisError(error, 'cannot write the checkpoint'));
  }

  async submit(batch: Batch): Promise<readonly SealedPiece[]> {
    this.#stop.signal.throwIfAborted();
    const worker = this.#begun(this.#pool.idlest(this.#workers));
    const answer = await worker.ask({ type: 'seal', session: this.#id, pieces: batch.pieces }, batch.transfer);
    return answer.type === 'sealed' ? answer.pieces : [];
  }

  /** After the last piece: seals what was waiting for more, and tells what the chunks hold. */
  async flush(): Promise<readonly ChunkPages[]> {
    const answers = await Promise.all(
      [...this.#used].map((worker) => worker.ask({ type: 'flush', session: this.#id }, [])),
    );
    return answers.flatMap((answer) => (answer.type === 'flushed' ? [answer.pages] : []));
  }

  /** Resolves when everything that was submitted and answered is durable. */
  async finish(): Promise<void> {
    await this.#ship();
    await Promise.all(this.#puts);
    this.#stop.signal.throwIfAborted();
  }

  /** Gives everything back. Resolves when nothing of this session is in flight any more. */
  async end(): Promise<void> {
    this.#stop.abort(this.#stop.signal.reason ?? asStasisError(new DOMException('the writer was given up', 'AbortError'), 'cannot write the checkpoint'));
    this.#pool.unregister(this.#id);
    for (const worker of this.#used) worker.tell({ type: 'end', session: this.#id });
    await Promise.all(this.#puts);
  }

  async #ship(): Promise<void> {
    await Promise.all([...this.#used].map((worker) => worker.ask({ type: 'ship', session: this.#id }, [])));
  }

  #store(pack: ShippedPack): void {
    const put = this.#put(pack, this.#stop.signal)
      .catch((error: unknown) => this.fail(error))
      .finally(() => {
        this.#puts.delete(put);
        this.#pool.buffers.release(pack.buffer);
      });
    this.#puts.add(put);
  }
}
