/**
 * Rounds before the freeze: where the kernel tracks which pages are written (soft-dirty bits), criu dumps the memory
 * while the container goes on, then once more what was written meanwhile, and so on; the dump in the freeze holds the rest
 * only. Each round stops the container for a moment by itself. A round that fails costs nothing but its time: the
 * dump is then a plain one.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { isStasisError } from '../../core/errors.ts';
import { MiB, formatBytes } from '../../core/units.ts';
import { cgroupProcesses } from '../../host/cgroup-walk.ts';
import { removeTree } from '../../host/files.ts';
import { stoppedOf } from '../../host/stopped-tasks.ts';
import { PE_PRESENT, readDumpStats, type MemoryLayers } from '../../image/criu/index.ts';
import type { MemoryLayer } from '../../image/types.ts';
import { criuConfig, dump } from '../../runtime/index.ts';
import type { Container, Verdict } from '../../runtime/types.ts';
import type { AgentContext } from '../context.ts';
import type { Operation } from '../operation.ts';
import { FrozenContainer } from './frozen-container.ts';
import type { MemoryPath } from './memory-path.ts';

export type PreDumpMode = 'auto' | 'never';

export interface PreDumpRound {
  readonly pages: number;
  readonly ms: number;
  /** For so long this round itself stopped the container. */
  readonly frozenMs: number;
}

interface Round extends PreDumpRound {
  /** Stretches that the pages lie in. */
  readonly runs: number;
}

export interface PreDumped {
  readonly rounds: readonly PreDumpRound[];
  /** Why the dump holds everything; undefined when it builds on the rounds. */
  readonly plain: string | undefined;
}

export interface PreDumpParts {
  readonly agent: AgentContext;
  readonly operation: Operation;
  readonly container: Container;
  readonly directories: { readonly images: string; readonly work: string };
  readonly memory: MemoryPath;
  readonly layers: MemoryLayers;
  /** The freeze lasts until the memory is sealed, not only until it is read. */
  readonly stop: boolean;
}

/** The first is the whole memory, the others what was written since. */
const MAX_ROUNDS = 4;
/** So little is dumped in less time than a round takes. */
const SMALL_BYTES = 16 * MiB;
/** A round that is not smaller than this share of the one before shows a container that writes faster than it is dumped. */
const SHRINK = 0.7;
/** Below this a plain dump is as fast. */
const WORTH_BYTES = 64 * MiB;
/**
 * criu takes about as long for one stretch of pages, with its log, as for reading ten pages of a long one: what is
 * scattered more widely than that is read faster with all the rest.
 */
const PAGES_A_RUN = 10;
/** criu stops the container itself, and waits for a task that does not stop: that must not be long. */
const COLLECT_SECONDS = 2;
/** Of the time until the deadline, the rounds may take this share, and are expected to go this fast. */
const TIME_SHARE = 0.25;
const ROUND_BYTES_PER_MS = (100 * MiB) / 1000;
const PAGE = 4096;

/** Why there are no rounds for this container; undefined: there are. */
export function whyPlain({ toolchain }: AgentContext, container: Container, verdict: Verdict, { mode, remainingMs }: { mode: PreDumpMode; remainingMs: number }): string | undefined {
  if (mode === 'never') return 'pre-dump is switched off';
  if (toolchain.features['mem_dirty_track'] !== true) return 'the kernel does not track written pages (CONFIG_MEM_SOFT_DIRTY)';
  if (container.status === 'paused') return 'the container is paused';
  if (container.freezer?.version === 1 && stoppedOf(cgroupProcesses(container.freezer.directory)).length > 0) return 'a process is stopped, and criu cannot attach to it in a round';
  if (verdict.memory.bytes / ROUND_BYTES_PER_MS > remainingMs * TIME_SHARE) return 'the deadline leaves no time for it';
  return verdict.memory.bytes < WORTH_BYTES ? `the container holds only ${formatBytes(verdict.memory.bytes)}` : undefined;
}

/** The images of the last round, as the dump is to name them. */
export function parentOf({ rounds, plain }: PreDumped): string | undefined {
  return plain === undefined && rounds.length > 0 ? `../pre-${rounds.length}` : undefined;
}

export async function preDump(parts: PreDumpParts, signal: AbortSignal): Promise<PreDumped> {
  const { agent, container, operation, memory, layers } = parts;
  const rounds: Round[] = [];
  const mostMs = operation.remainingMs * TIME_SHARE;
  try {
    while (!isEnough(rounds, mostMs)) {
      signal.throwIfAborted();
      rounds.push(await oneRound(parts, rounds.length + 1, signal));
    }
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof RoundFailed) || isStasisError(error.cause, 'CONTAINER_EXITED')) throw error instanceof RoundFailed ? error.cause : error;
    agent.log.event('predump.failed', { operation_id: operation.id, container_id: container.id, round: rounds.length + 1, err: error.cause });
    layers.clear();
    await memory.renew(undefined);
    return { rounds: rounds.map(told), plain: `round ${rounds.length + 1} failed: ${(error.cause as Error).message}` };
  }
  if (!parts.stop && (rounds.at(-1)?.runs ?? 0) * PAGES_A_RUN > (rounds[0]?.pages ?? 0)) {
    layers.clear();
    await memory.renew(undefined);
    return { rounds: rounds.map(told), plain: 'the memory is written to in so many places that reading all of it is faster' };
  }
  await memory.renew((rounds.at(-1)?.pages ?? 0) * PAGE * MAX_ROUNDS + SMALL_BYTES);
  return { rounds: rounds.map(told), plain: undefined };
}

function isEnough(rounds: readonly PreDumpRound[], mostMs: number): boolean {
  const [last, before] = [rounds.at(-1), rounds.at(-2)];
  if (last === undefined) return false;
  if (rounds.length === MAX_ROUNDS || rounds.reduce((sum, { ms }) => sum + ms, 0) + last.ms > mostMs) return true;
  return last.pages * PAGE <= SMALL_BYTES || (before !== undefined && last.pages > before.pages * SHRINK);
}

/** What criu did not manage; a writer that fails is no matter of the round alone. */
class RoundFailed extends Error {}

async function oneRound(parts: PreDumpParts, number: number, signal: AbortSignal): Promise<Round> {
  const { agent, memory, layers } = parts;
  const started = agent.clock.monotonic();
  const images = join(dirname(parts.directories.images), `pre-${number}`);
  const work = join(parts.directories.work, `pre-${number}`);
  for (const directory of [images, work]) mkdirSync(directory, { mode: 0o700 });
  await using round = await memory.openRound(join(roundGuard(agent, parts.operation, number), 'session'));
  try {
    await dumpMemory(parts, { number, images, work, pageServer: round.pageServer, signal });
  } catch (error) {
    removeTree(images);
    throw new RoundFailed('a round failed', { cause: error });
  }
  const taken = await round.taken(images);
  layers.add(taken);
  const stats = await readDumpStats(work).catch(() => undefined);
  return { ...presentPages(taken), ms: agent.clock.monotonic() - started, frozenMs: (stats?.frozenUs ?? 0) / 1000 };
}

function roundGuard({ settings }: AgentContext, operation: Operation, number: number): string {
  return join(settings.runDirectory, 'guards', `${operation.id}-pre-${number}`);
}

async function dumpMemory(
  { agent, container, operation }: PreDumpParts,
  {
    number, images, work, pageServer, signal,
  }: { number: number; images: string; work: string; pageServer: string | undefined; signal: AbortSignal },
): Promise<void> {
  const { settings } = agent;
  const config = join(work, 'criu.conf');
  writeFileSync(config, criuConfig({ timeoutSeconds: COLLECT_SECONDS, ghostLimitBytes: settings.ghostLimitBytes }), { mode: 0o600 });
  const guardDirectory = roundGuard(agent, operation, number);
  const flags = { leaveRunning: true, tcpEstablished: false, fileLocks: false, extUnixSk: false, shellJob: false };
  await using guarded = await FrozenContainer.arm({ container, guardScript: settings.scripts.guard, guardDirectory, criuLog: undefined, stop: undefined, budgetMs: settings.freezeBudgetMs, clock: agent.clock, log: agent.log });
  // A cancel does not kill criu in the middle, where it may take its victim with it: FrozenContainer does, at a good
  // moment.
  await guarded.guarded(() => dump({
    container, flags, imageDir: images, workDir: work, pageServer, criuConfig: config, operationId: operation.id, guardDirectory,
    preDump: true, parent: number === 1 ? undefined : `../pre-${number - 1}`,
  }, agent.toolchain, { signal: undefined, timeoutMs: settings.freezeBudgetMs }), { signal });
}

function presentPages(images: readonly MemoryLayer[]): { pages: number; runs: number } {
  const present = images.flatMap(({ runs }) => runs.filter(({ flags }) => (flags & PE_PRESENT) !== 0));
  return { pages: present.reduce((sum, { pages }) => sum + pages, 0), runs: present.length };
}

const told = ({ pages, ms, frozenMs }: Round): PreDumpRound => ({ pages, ms, frozenMs });
