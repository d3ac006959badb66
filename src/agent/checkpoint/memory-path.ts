/**
 * The two ways out for memory. Through a directory: criu writes into the staging tmpfs, reserved and touched
 * beforehand; it freezes shortest (docs/BENCHMARKS.md) and takes as much memory as the container holds. Over the page server: the
 * memory needed is bounded, and when the container holds more than that, criu waits for the sealing.
 */
import { stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import { MiB, formatBytes } from '../../core/units.ts';
import { sessionHoldsSocket } from '../../host/tcp-peer.ts';
import type { StagingArea } from '../../host/staging.ts';
import { pagesName, saveRound, type KeptMemory, type MemoryLayers } from '../../image/criu/index.ts';
import { SlabPool, startPageServer, type PageServer } from '../../image/page-server/index.ts';
import type { MemoryLayer, ReceivedMemory } from '../../image/types.ts';
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
  /** For a dump before the last one, while the container runs; with the file that will have the number of its session. */
  openRound(sessionFile: string): Promise<MemoryRound>;
  /** After rounds: so much memory is reserved and touched again, all of it unless told. */
  renew(bytes: number | undefined): Promise<void>;
  /** After the dump: what came over the page server, when the writer has all of it. */
  received(): Promise<ReceivedMemory | undefined>;
}

export interface MemoryRound extends AsyncDisposable {
  /** For the runtime's --page-server. */
  readonly pageServer: string | undefined;
  /** After the dump: its memory, when the writer has all of it. From then on its images take no space. */
  taken(imageDir: string): Promise<readonly MemoryLayer[]>;
}

export interface MemoryTarget {
  readonly staging: StagingArea;
  readonly writer: CheckpointWriter;
  readonly prefix: string;
  readonly verdict: Verdict;
  readonly layers: MemoryLayers;
  /** Absent when there is no rehearsal. */
  readonly kept: KeptMemory | undefined;
  /** Where the number of the dump's session will be (Guard.sessionFile). */
  readonly sessionFile: string;
}

interface PathOptions {
  readonly signal: AbortSignal;
  readonly onBytes: (count: number) => void;
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

export async function openMemoryPath(agent: AgentContext, name: MemoryPathName, target: MemoryTarget, options: PathOptions): Promise<MemoryPath> {
  return name === 'directory' ? openDirectory(target, options) : openPageServer(agent, target, options);
}

async function openDirectory(
  { staging, writer, verdict, layers, kept }: MemoryTarget, options: PathOptions,
): Promise<MemoryPath> {
  const reservation = await staging.reserve(imagesEstimate(verdict), { signal: options.signal });
  return {
    name: 'directory', pageServer: undefined, release: () => reservation.release(), received: async () => undefined,
    renew: (bytes) => reservation.refill({ signal: options.signal, bytes }),
    openRound: async () => {
      await reservation.release();
      return {
        pageServer: undefined,
        taken: async (imageDir) => {
          const images = await saveRound(writer, layers.begin(), imageDir, options);
          for (const image of images) {
            const path = join(imageDir, pagesName(image.pagesId));
            kept?.keepFile(image, path);
            await hollow(path);
          }
          return images;
        },
        [Symbol.asyncDispose]: async () => {},
      };
    },
    [Symbol.asyncDispose]: () => reservation.release(),
  };
}

async function openPageServer(agent: AgentContext, {
  staging, writer, prefix, verdict, layers, kept, sessionFile,
}: MemoryTarget, options: PathOptions): Promise<MemoryPath> {
  const reservation = await staging.reserve(IMAGES_MARGIN_BYTES, { signal: options.signal });
  const bytes = Math.max(MIN_SLABS_BYTES, Math.min(imagesEstimate(verdict), agent.staging.availableBytes()));
  const pool = await SlabPool.create(bytes, { signal: options.signal });
  const common = { writer, prefix, pool, kept, criu: agent.toolchain.criu.version, ...options };
  const server: PageServer = await startPageServer({
    ...common, rounds: { layers, round: false }, mayConnect: (inode) => sessionHoldsSocket(sessionFile, inode),
    // All pages are in the slabs: the container need not wait for their sealing.
    onClose: async () => {},
  });
  return {
    name: 'page-server', pageServer: server.address, release: () => reservation.release(), received: () => server.received, renew: async () => {},
    openRound: async (roundSession) => {
      const round = await startPageServer({ ...common, rounds: { layers, round: true }, mayConnect: (inode) => sessionHoldsSocket(roundSession, inode) });
      return { pageServer: round.address, taken: async () => (await round.received).layers ?? [], [Symbol.asyncDispose]: () => round[Symbol.asyncDispose]() };
    },
    [Symbol.asyncDispose]: async () => {
      await server[Symbol.asyncDispose]();
      await reservation.release();
    },
  };
}

/** The file stays as long as it was, for criu, which opens it and reads nothing of it. */
async function hollow(path: string): Promise<void> {
  const { size } = await stat(path);
  await truncate(path, 0);
  await truncate(path, size);
}
