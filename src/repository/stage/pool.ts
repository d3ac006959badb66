/** The stage workers and the memory they share. One pool serves all writers and readers of a repository. */
import { Semaphore } from '../../core/limits.ts';
import { MiB } from '../../core/units.ts';
import { MAX_CHUNK_BYTES, MAX_PACK_BYTES } from '../format/limits.ts';
import type { SodiumChoice } from '../crypto/sodium.ts';
import { BufferPool } from './buffers.ts';
import { IndexPool } from './chunk-index.ts';
import type { ChunkProblem, ChunkSecrets, ChunkTask, ShippedPack } from './messages.ts';
import { WorkerHandle } from './worker-handle.ts';
import type { Notice } from './worker-handle.ts';

export interface PoolOptions {
  /** Threads; one per processor is right. */
  readonly workers: number;
  /** Hard limit of pack buffers and the workers' scratch memory together. */
  readonly memoryBytes: number;
  readonly sodium: SodiumChoice;
}

/** What one worker takes beside pack buffers: a piece, its compressed form, and what is waiting to be collected. */
const SCRATCH_BYTES = 3 * MAX_CHUNK_BYTES;
const PACK_BYTES = 16 * MiB;
/** Room for the largest chunk and then some. */
const LEAST_PACK_BYTES = 6 * MiB;

const URGENT_BUFFERS = 2;
/** One at work, one waiting, so that no worker idles while the main thread is busy. */
const JOBS_EACH = 2;

/** How many workers, and which buffers, fit into the memory. */
export function planMemory({ workers, memoryBytes }: { workers: number; memoryBytes: number }): { workers: number; buffers: number; packBytes: number } {
  const most = Math.max(1, Math.floor(memoryBytes / (SCRATCH_BYTES + 2 * LEAST_PACK_BYTES)));
  const count = Math.max(1, Math.min(workers, most));
  const rest = Math.max(memoryBytes - count * SCRATCH_BYTES, 2 * LEAST_PACK_BYTES);
  // Two buffers per worker at least: one that is filled and one on its way to the store.
  const packBytes = Math.min(PACK_BYTES, MAX_PACK_BYTES, Math.max(LEAST_PACK_BYTES, Math.floor(rest / (2 * count))));
  return { workers: count, buffers: Math.max(2, Math.floor(rest / packBytes)), packBytes };
}

/** A writer's side of the pool: which worker wants a buffer, and what became of a pack. */
export interface SessionEvents {
  onPack(pack: ShippedPack): void;
  onDeath(): void;
  /** Send what is partly filled: others wait for the buffers. */
  onStarved(): void;
}

export class StagePool {
  readonly workers: readonly WorkerHandle[] = [];
  readonly buffers: BufferPool;
  /** For single chunks that somebody waits for: they wait for none of the others. Made when they are needed first. */
  readonly urgent: BufferPool = new BufferPool(LEAST_PACK_BYTES, URGENT_BUFFERS, () => undefined);
  readonly indexes: IndexPool = new IndexPool();
  readonly jobs: Semaphore;
  readonly #sessions = new Map<number, SessionEvents>();
  readonly #settings: { sodium: SodiumChoice; packBytes: number };
  #nextSession = 1;
  #closed = false;

  constructor(options: PoolOptions) {
    const plan = planMemory(options);
    this.#settings = { sodium: options.sodium, packBytes: plan.packBytes };
    this.buffers = new BufferPool(plan.packBytes, plan.buffers, () => this.#sessions.forEach((session) => session.onStarved()));
    this.jobs = new Semaphore(plan.workers * JOBS_EACH);
    this.workers = Array.from({ length: plan.workers }, (_, slot) => this.#start(slot));
  }

  get memoryBytes(): number {
    return this.buffers.bytes + this.urgent.bytes + this.workers.length * SCRATCH_BYTES;
  }

  /**
   * The worker with the least to do; the first of equals, so that little work fills one pack and not several. A thread
   * is started when each of the others has a job at work and one waiting.
   */
  idlest(workers: readonly WorkerHandle[] = this.workers): WorkerHandle {
    const weight = (worker: WorkerHandle): number => worker.load + (worker.hasThread ? 0 : JOBS_EACH);
    return workers.reduce((best, worker) => (weight(worker) < weight(best) ? worker : best));
  }

  register(events: SessionEvents): number {
    const session = this.#nextSession++;
    this.#sessions.set(session, events);
    return session;
  }

  unregister(session: number): void {
    this.#sessions.delete(session);
  }

  /** Opens chunks of one fetched range in a worker. The buffer goes back to where it is from. */
  async open(job: { secrets: ChunkSecrets; pack: string; base: number; buffer: SharedArrayBuffer; verify: boolean; tasks: readonly ChunkTask[] }, transfer: ArrayBuffer[], from: BufferPool): Promise<readonly ChunkProblem[]> {
    let buffer: SharedArrayBuffer | undefined;
    try {
      const answer = await this.idlest().ask({ type: 'open', ...job }, transfer);
      if (answer.type !== 'opened') return [];
      buffer = answer.buffer;
      return answer.problems;
    } finally {
      if (buffer === undefined) from.lose(1);
      else from.release(buffer);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.workers.map((worker) => worker.close()));
  }

  #start(slot: number): WorkerHandle {
    const handle: WorkerHandle = new WorkerHandle(
      this.#settings,
      (notice) => this.#hear(handle, notice),
      () => this.#bury(handle, slot),
    );
    return handle;
  }

  #hear(worker: WorkerHandle, notice: Notice): void {
    switch (notice.type) {
      case 'want':
        void this.#grant(worker, notice.session);
        return;
      case 'pack': {
        this.#returned(worker);
        const session = this.#sessions.get(notice.session);
        if (session === undefined) this.buffers.release(notice.pack.buffer);
        else session.onPack(notice.pack);
        return;
      }
      case 'unused':
        this.#returned(worker);
        this.buffers.release(notice.buffer);
    }
  }

  async #grant(worker: WorkerHandle, session: number): Promise<void> {
    const buffer = await this.buffers.acquire({ signal: undefined });
    if (worker.dead) {
      this.buffers.release(buffer);
      return;
    }
    worker.buffers += 1;
    worker.tell({ type: 'grant', session, buffer });
    this.buffers.toWorker();
  }

  #returned(worker: WorkerHandle): void {
    worker.buffers -= 1;
    this.buffers.fromWorker();
  }

  /** Whoever was using the worker fails; a new thread takes its place for whoever comes next. */
  #bury(worker: WorkerHandle, slot: number): void {
    if (this.#closed) return;
    const held = worker.buffers;
    for (let i = worker.buffers; i > 0; i -= 1) this.#returned(worker);
    this.buffers.lose(held);
    for (const session of this.#sessions.values()) session.onDeath();
    // One that never came up would not come up the next time either.
    if (!worker.started) return;
    (this.workers as WorkerHandle[])[slot] = this.#start(slot);
  }
}
