/** The main thread's end of one stage worker: jobs by number, and what happens when the thread dies. */
import { Worker } from 'node:worker_threads';
import { StasisError } from '../../core/errors.ts';
import type { FromWorker, ToWorker, WorkerSettings } from './messages.ts';
import { fromWire } from './messages.ts';

type Answer = Extract<FromWorker, { job: number }>;
export type Notice = Exclude<FromWorker, Answer | { type: 'ready' }>;
type WithoutJob<T> = T extends { job: number } ? Omit<T, 'job'> : never;
export type Job = WithoutJob<ToWorker>;

/** Workers make few small objects; a larger nursery only keeps garbage for longer. */
const YOUNG_MIB = 2;

/**
 * Its thread starts with the first message: half of what an agent does needs no stage, and most of the rest one worker.
 */
export class WorkerHandle {
  readonly #settings: WorkerSettings;
  readonly #onNotice: (notice: Notice) => void;
  readonly #onDeath: () => void;
  readonly #jobs = new Map<number, PromiseWithResolvers<Answer>>();
  readonly #ready = Promise.withResolvers<void>();
  #worker: Worker | undefined;
  #next = 0;
  #dead: StasisError | undefined;
  /** Jobs without an answer yet. */
  load = 0;
  started = false;
  /** Pack buffers that this worker is filling. */
  buffers = 0;

  constructor(settings: WorkerSettings, onNotice: (notice: Notice) => void, onDeath: () => void) {
    this.#settings = settings;
    this.#onNotice = onNotice;
    this.#onDeath = onDeath;
    this.#ready.promise.catch(() => undefined);
  }

  get hasThread(): boolean {
    return this.#worker !== undefined;
  }

  #thread(): Worker {
    if (this.#worker !== undefined) return this.#worker;
    const worker = new Worker(new URL('./worker.js', import.meta.url), {
      workerData: this.#settings,
      name: 'stasis-stage',
      // Descriptors come from openat2 and belong to the whole process; Node would warn about each one that is closed.
      trackUnmanagedFds: false,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MIB },
    });
    worker.on('message', (message: FromWorker) => {
      if (message.type === 'ready') {
        this.started = true;
        this.#ready.resolve();
      } else if ('job' in message) this.#answer(message);
      else this.#onNotice(message);
    });
    worker.on('error', (error) => this.#die(error));
    worker.on('exit', (code) => this.#die(new Error(`exit status ${code}`)));
    return (this.#worker = worker);
  }

  get dead(): boolean {
    return this.#dead !== undefined;
  }

  async ask(job: Job, transfer: ArrayBuffer[]): Promise<Answer> {
    if (this.#dead !== undefined) throw this.#dead;
    const number = this.#next++;
    const answer = Promise.withResolvers<Answer>();
    this.#jobs.set(number, answer);
    this.load += 1;
    try {
      this.#thread().postMessage({ ...job, job: number }, transfer);
      return await answer.promise;
    } finally {
      this.#jobs.delete(number);
      this.load -= 1;
    }
  }

  tell(message: Exclude<ToWorker, { job: number }>, transfer: ArrayBuffer[] = []): void {
    if (this.#dead === undefined) this.#thread().postMessage(message, transfer);
  }

  /** One that is terminated while it loads its libraries can take the process with it. */
  async close(): Promise<void> {
    if (this.#worker === undefined) return;
    await this.#ready.promise.catch(() => undefined);
    await this.#worker.terminate();
  }

  #answer(message: Answer): void {
    const job = this.#jobs.get(message.job);
    if (message.type === 'failed') job?.reject(fromWire(message.error));
    else job?.resolve(message);
  }

  #die(cause: unknown): void {
    if (this.#dead !== undefined) return;
    this.#dead = new StasisError('INTERNAL', `a stage worker died: ${cause instanceof Error ? cause.message : String(cause)}`, { cause, hint: 'try again; if it happens twice, report it with the agent\'s log' });
    this.#ready.reject(this.#dead);
    for (const job of this.#jobs.values()) job.reject(this.#dead);
    this.#onDeath();
  }
}
