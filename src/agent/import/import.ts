/**
 * Import of an archive of podman or CRI-O as a sealed checkpoint.
 *
 *   prepare  staging opened, journal written
 *   receive  the archive taken apart: images into private memory, files into sealed chunks
 *   seal     images checked and sealed
 *   commit   all packs durable, then the manifest
 *
 * Nobody vouches for an archive. Nothing in it names a place on this node: a restore takes everything that grants
 * something from a bundle that the operator gives.
 */
import { createHash } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { longTimer } from '../../core/clock.ts';
import { StasisError, isStasisError } from '../../core/errors.ts';
import type { CheckpointId, OperationId } from '../../core/ids.ts';
import { receiveArchive, type Received } from '../../image/archive/index.ts';
import { examineImages, saveImages } from '../../image/criu/index.ts';
import type { CriuImageSummary } from '../../image/types.ts';
import type { CheckpointSummary, CheckpointWriter } from '../../repository/types.ts';
import type { AgentContext } from '../context.ts';
import { IMAGES_PREFIX } from '../checkpoint/in-progress.ts';
import type { Operation } from '../operation.ts';
import { describeImport, ROOTFS_PREFIX, SHM_PREFIX } from './describe.ts';

export const IMPORT_STEPS = ['prepare', 'receive', 'seal', 'commit'] as const;

export interface ImportRequest {
  readonly checkpoint: CheckpointId;
  /** What the archive is called. */
  readonly source: string;
  readonly by: string;
  readonly reason: string;
}

export interface ImportOutcome {
  readonly operation: OperationId;
  readonly summary: CheckpointSummary;
  readonly totalMs: number;
}

export async function importCheckpoint(agent: AgentContext, request: ImportRequest, bytes: AsyncIterable<Uint8Array>, operation: Operation): Promise<ImportOutcome> {
  const started = agent.clock.monotonic();
  await using undo = new AsyncDisposableStack();
  const { writer, images, reserve } = await operation.step('prepare', (signal) => prepare(agent, request, operation, undo, signal));
  const arrival = new Arrival(bytes, operation.signal, agent.settings.stallMs, (count) => operation.addBytes(count));
  const received = await operation.step('receive', async (signal) => {
    const result = await receiveArchive(arrival, { writer, imageDir: images, rootfs: ROOTFS_PREFIX, shm: SHM_PREFIX, reserve, onBytes: () => {}, signal });
    await arrival.readToEnd();
    return result;
  });
  const saved = await operation.step('seal', (signal) => sealImages(writer, images, signal));
  const summary = await operation.step('commit', (signal) => commit(agent, request, { writer, received, images: saved, arrival }, operation, signal));
  return { operation: operation.id, summary, totalMs: agent.clock.monotonic() - started };
}

interface Prepared {
  readonly writer: CheckpointWriter;
  readonly images: string;
  readonly reserve: (bytes: number) => Promise<void>;
}

async function prepare(agent: AgentContext, request: ImportRequest, operation: Operation, undo: AsyncDisposableStack, signal: AbortSignal): Promise<Prepared> {
  const staging = undo.use(await agent.staging.open(operation.id));
  let clean = true;
  undo.defer(() => { if (clean) agent.journal.remove(operation.id); });
  agent.journal.write({ kind: 'import', operation: operation.id, step: 'prepare', checkpoint: request.checkpoint, stagingDirectory: staging.directory });
  const writer = await agent.repository.begin({ id: request.checkpoint, lineage: undefined }, { signal });
  undo.defer(async () => {
    if (!(await agent.repository.exists(request.checkpoint, { signal: undefined }))) clean = await writer.abort();
  });
  const images = join(staging.directory, 'images');
  mkdirSync(images, { mode: 0o700 });
  return { writer, images, reserve: (bytes) => staging.require(bytes, { signal }) };
}

/** What is wrong with the images is wrong with the archive. */
async function sealImages(writer: CheckpointWriter, images: string, signal: AbortSignal): Promise<CriuImageSummary> {
  try {
    const summary = await saveImages(writer, IMAGES_PREFIX, images, { signal });
    if ((summary.report?.imageVersion ?? 0) < 1 || summary.processes < 1) throw new StasisError('ARCHIVE_INVALID', 'the images in the archive hold no process');
    await examineImages(images);
    return summary;
  } catch (error) {
    if (!isStasisError(error, 'DUMP_FAILED') && !isStasisError(error, 'OBJECT_CORRUPT')) throw error;
    throw new StasisError('ARCHIVE_INVALID', `CRIU's images in the archive are damaged, or hold what containers do not need: ${error.message}`, { cause: error, hint: 'is it an archive of podman or CRI-O, and complete?' });
  }
}

interface Complete {
  readonly writer: CheckpointWriter;
  readonly received: Received;
  readonly images: CriuImageSummary;
  readonly arrival: Arrival;
}

async function commit(agent: AgentContext, request: ImportRequest, { writer, received, images, arrival }: Complete, operation: Operation, signal: AbortSignal): Promise<CheckpointSummary> {
  const description = describeImport({
    request, received, images, archiveBytes: arrival.count, sha256: arrival.sha256(), nowMs: agent.clock.now(),
    operation: operation.id, phases: operation.phases, node: agent.settings.nodeName, stasis: agent.settings.version,
  });
  return writer.commit(description, { signal });
}

/** The archive as it comes: counted and hashed, for the provenance. */
class Arrival implements AsyncIterable<Uint8Array> {
  readonly #bytes: AsyncIterator<Uint8Array>;
  readonly #hash = createHash('sha256');
  readonly #onBytes: (count: number) => void;
  readonly #signal: AbortSignal;
  readonly #stallMs: number;
  count = 0;

  constructor(bytes: AsyncIterable<Uint8Array>, signal: AbortSignal, stallMs: number, onBytes: (count: number) => void) {
    this.#bytes = bytes[Symbol.asyncIterator]();
    this.#onBytes = onBytes;
    this.#signal = signal;
    this.#stallMs = stallMs;
  }

  /** A sender that falls silent keeps nobody waiting for long, a cancelled operation not at all. */
  #next(): Promise<IteratorResult<Uint8Array>> {
    return new Promise((resolve, reject) => {
      const abort = (): void => reject(this.#signal.reason as Error);
      if (this.#signal.aborted) return abort();
      this.#signal.addEventListener('abort', abort, { once: true });
      const timer = longTimer(() => reject(new StasisError('DEADLINE_EXCEEDED', `the caller has sent nothing for ${this.#stallMs} ms`, { hint: 'send the archive without a pause; operations.stall says how long the agent waits' })), this.#stallMs);
      void this.#bytes.next().then(resolve, reject).finally(() => {
        timer.clear();
        this.#signal.removeEventListener('abort', abort);
      });
    });
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (let next = await this.#next(); next.done !== true; next = await this.#next()) {
      this.count += next.value.length;
      this.#hash.update(next.value);
      this.#onBytes(next.value.length);
      yield next.value;
    }
  }

  /** What a reader leaves after the end of the tar file. */
  async readToEnd(): Promise<void> {
    for await (const _ of this);
  }

  sha256(): string {
    return this.#hash.digest('hex');
  }
}
