/**
 * The two ways out for memory. Through a directory: criu writes into the staging tmpfs, reserved and touched
 * beforehand; it freezes shortest (docs/BENCHMARKS.md) and takes as much memory as the container holds. Over the page server: the
 * memory needed is bounded, and when the container holds more than that, criu waits for the sealing.
 */
import { StasisError } from '../../core/errors.ts';
import { MiB, formatBytes } from '../../core/units.ts';
import type { StagingArea } from '../../host/staging.ts';
import { SlabPool, startPageServer, type PageServer } from '../../image/page-server/index.ts';
import type { ReceivedMemory } from '../../image/types.ts';
import type { CheckpointWriter } from '../../repository/types.ts';
import type { Container, Verdict } from '../../runtime/types.ts';
import type { AgentContext } from '../context.ts';

export type MemoryPathName = 'directory' | 'page-server';

export interface MemoryPath extends AsyncDisposable {
  readonly name: MemoryPathName;
  /** For the runtime's --page-server. */
  readonly pageServer: string | undefined;
  /** The reserved memory becomes criu's. */
  release(): Promise<void>;
  /** After the dump: what came over the page server, when the writer has all of it. */
  received(): Promise<ReceivedMemory | undefined>;
}

/** Metadata images, ghost files and archives of small tmpfs mounts beside the memory. */
const IMAGES_MARGIN_BYTES = 16 * MiB;
/** A container grows between the look at it and the freeze. */
const GROWTH = 1.05;
/** Enough for the page server to overlap receiving and sealing. */
const MIN_SLABS_BYTES = 64 * MiB;

export function imagesEstimate(verdict: Verdict): number {
  return Math.ceil(verdict.memory.bytes * GROWTH) + IMAGES_MARGIN_BYTES;
}

export function chooseMemoryPath(agent: AgentContext, container: Container, verdict: Verdict, wanted: 'auto' | MemoryPathName): MemoryPathName {
  const canStream = container.at.runtime === 'runc';
  if (wanted === 'page-server' && !canStream) {
    throw new StasisError('NOT_CHECKPOINTABLE', `container ${container.id} is of ${container.at.runtime}, which cannot send memory to a page server`, { hint: 'use --memory-path directory or auto' });
  }
  if (wanted !== 'auto') return wanted;
  const needed = imagesEstimate(verdict);
  if (needed <= agent.staging.availableBytes()) return 'directory';
  if (canStream) return 'page-server';
  throw new StasisError('NO_SPACE', `container ${container.id} holds about ${formatBytes(verdict.memory.bytes)}, and ${formatBytes(agent.staging.availableBytes())} of the staging memory are free`, {
    hint: `raise staging.size to ${formatBytes(needed)}; containers of runc can be streamed instead`, details: { needed },
  });
}

export async function openMemoryPath(agent: AgentContext, name: MemoryPathName, target: { staging: StagingArea; writer: CheckpointWriter; prefix: string; verdict: Verdict }, options: { signal: AbortSignal; onBytes: (count: number) => void }): Promise<MemoryPath> {
  const needed = imagesEstimate(target.verdict);
  if (name === 'directory') {
    const reservation = await target.staging.reserve(needed, { signal: options.signal });
    return { name, pageServer: undefined, release: () => reservation.release(), received: async () => undefined, [Symbol.asyncDispose]: () => reservation.release() };
  }
  const reservation = await target.staging.reserve(IMAGES_MARGIN_BYTES, { signal: options.signal });
  const bytes = Math.max(MIN_SLABS_BYTES, Math.min(needed, agent.staging.availableBytes()));
  const pool = await SlabPool.create(bytes, { signal: options.signal });
  const server: PageServer = await startPageServer({
    writer: target.writer, prefix: target.prefix, pool, criu: agent.toolchain.criu.version, signal: options.signal, onBytes: options.onBytes,
    // All pages are in the slabs: the container need not wait for their sealing.
    onClose: async () => {},
  });
  return {
    name, pageServer: server.address, release: () => reservation.release(), received: () => server.received,
    [Symbol.asyncDispose]: async () => {
      await server[Symbol.asyncDispose]();
      await reservation.release();
    },
  };
}
