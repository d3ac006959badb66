/** A stage worker: the thread in which bulk bytes are read, hashed, compressed and sealed, or opened and written. */
import { parentPort, workerData } from 'node:worker_threads';
import { invariant } from '../../core/assert.ts';
import { StasisError } from '../../core/errors.ts';
import { MAX_CHUNK_BYTES } from '../format/limits.ts';
import { Collector } from './collector.ts';
import { loadSodium } from '../crypto/sodium.ts';
import { HEADROOM_BYTES } from '../crypto/page-digests.ts';
import type { Sodium } from '../crypto/port.ts';
import type { ChunkProblem, FromWorker, SealedPiece, ToWorker, WorkerSettings } from './messages.ts';
import { toWire } from './messages.ts';
import { newOpenScratch, Opener } from './opener.ts';
import type { PackPort } from './sealer.ts';
import { Sealer } from './sealer.ts';
import { writeSink } from './sink.ts';

type Port = NonNullable<typeof parentPort>;
type Message<T extends ToWorker['type']> = Extract<ToWorker, { type: T }>;

class Session implements PackPort {
  readonly sealer: Sealer;
  readonly #id: number;
  readonly #port: Port;
  #waiting: PromiseWithResolvers<SharedArrayBuffer> | undefined;

  constructor(port: Port, sodium: Sodium, begin: Message<'begin'>) {
    this.#port = port;
    this.#id = begin.session;
    this.sealer = new Sealer(sodium, begin.secrets, begin.checkpoint, begin, this);
  }

  want(): Promise<SharedArrayBuffer> {
    this.#port.postMessage({ type: 'want', session: this.#id } satisfies FromWorker);
    this.#waiting = Promise.withResolvers<SharedArrayBuffer>();
    return this.#waiting.promise;
  }

  grant(buffer: SharedArrayBuffer): void {
    invariant(this.#waiting !== undefined, 'a buffer comes only when it was asked for');
    this.#waiting.resolve(buffer);
    this.#waiting = undefined;
  }

  /** Wakes a job that waits for a buffer which will not come. */
  end(): SharedArrayBuffer | undefined {
    this.#waiting?.reject(new StasisError('CANCELLED', 'the writer was given up'));
    return this.sealer.discard();
  }

  ship(pack: Parameters<PackPort['ship']>[0]): void {
    this.#port.postMessage({ type: 'pack', session: this.#id, pack } satisfies FromWorker, [pack.chunks.buffer]);
  }
}

class StageWorker {
  readonly #port: Port;
  readonly #sodium: Sodium;
  readonly #sessions = new Map<number, Session>();
  readonly #queue: (Message<'seal'> | Message<'flush'>)[] = [];
  readonly #collector = new Collector();
  readonly #scratch = Buffer.allocUnsafeSlow(HEADROOM_BYTES + MAX_CHUNK_BYTES);
  /** Its own: a chunk is opened while a piece in the other one waits for a buffer. */
  readonly #openScratch = newOpenScratch();
  #busy = false;

  constructor(port: Port, sodium: Sodium) {
    this.#port = port;
    this.#sodium = sodium;
  }

  receive(message: ToWorker): void {
    switch (message.type) {
      case 'begin':
        this.#sessions.set(message.session, new Session(this.#port, this.#sodium, message));
        return;
      case 'seal':
      case 'flush':
        this.#queue.push(message);
        if (!this.#busy) void this.#work();
        return;
      // The others pass by the queue: a job that waits for a buffer must not hold up what brings it one.
      case 'open':
        this.#open(message);
        return;
      case 'grant':
        this.#grant(message);
        return;
      case 'ship':
        this.#sessions.get(message.session)?.sealer.ship();
        this.#send({ type: 'shipped', job: message.job });
        return;
      case 'end':
        this.#end(message.session);
    }
  }

  #grant({ session, buffer }: Message<'grant'>): void {
    const open = this.#sessions.get(session);
    if (open === undefined) this.#send({ type: 'unused', buffer });
    else open.grant(buffer);
  }

  #end(id: number): void {
    const session = this.#sessions.get(id);
    if (session === undefined) return;
    this.#sessions.delete(id);
    const buffer = session.end();
    if (buffer !== undefined) this.#send({ type: 'unused', buffer });
  }

  async #work(): Promise<void> {
    this.#busy = true;
    for (let job = this.#queue.shift(); job !== undefined; job = this.#queue.shift()) {
      await (job.type === 'seal' ? this.#seal(job) : this.#flush(job));
    }
    this.#busy = false;
  }

  async #seal(job: Message<'seal'>): Promise<void> {
    try {
      const pieces: SealedPiece[] = [];
      for (const piece of job.pieces) {
        const session = this.#sessions.get(job.session);
        if (session === undefined) throw new StasisError('CANCELLED', 'the writer was given up');
        pieces.push(await session.sealer.seal(piece, this.#scratch));
        this.#collector.note(piece.source.length);
      }
      this.#send({ type: 'sealed', job: job.job, pieces }, pieces.flatMap(({ stats, segments }) => [stats, segments].flatMap((columns) => (columns === undefined ? [] : [columns.buffer]))));
    } catch (error) {
      this.#send({ type: 'failed', job: job.job, error: toWire(error, 'cannot seal') });
    }
  }

  async #flush(job: Message<'flush'>): Promise<void> {
    try {
      const session = this.#sessions.get(job.session);
      if (session === undefined) throw new StasisError('CANCELLED', 'the writer was given up');
      const pages = await session.sealer.flush();
      this.#send({ type: 'flushed', job: job.job, pages }, [pages.chunks.buffer, pages.digests.buffer]);
    } catch (error) {
      this.#send({ type: 'failed', job: job.job, error: toWire(error, 'cannot seal') });
    }
  }

  #open(job: Message<'open'>): void {
    const opener = new Opener(this.#sodium, job.secrets, this.#openScratch);
    const bytes = Buffer.from(job.buffer);
    const problems: ChunkProblem[] = [];
    for (const task of job.tasks) {
      try {
        const sealed = bytes.subarray(task.at, task.at + task.stored);
        const data = opener.open(task, sealed, () => `${job.pack} at byte ${job.base + task.at}`, job.verify);
        this.#collector.note(task.raw);
        for (const part of task.parts) writeSink(part.sink, data.subarray(part.offset, part.offset + part.length));
      } catch (error) {
        problems.push({ chunk: task.chunk, error: toWire(error, 'cannot write what was read') });
        // A reader stops at the first bad byte; a verification wants to know them all.
        if (!job.verify) break;
      }
    }
    this.#send({ type: 'opened', job: job.job, buffer: job.buffer, problems });
  }

  #send(message: FromWorker, transfer: ArrayBuffer[] = []): void {
    this.#port.postMessage(message, transfer);
  }
}

async function main(port: Port, settings: WorkerSettings): Promise<void> {
  const worker = new StageWorker(port, await loadSodium(settings.sodium));
  port.on('message', (message: ToWorker) => worker.receive(message));
  port.postMessage({ type: 'ready' } satisfies FromWorker);
}

if (parentPort !== null) void main(parentPort, workerData as WorkerSettings);
