/** Everything that a checkpoint needs before the freeze, and what is undone when it does not come to a commit. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { StasisError, isStasisError } from '../../core/errors.ts';
import { newCheckpointId, type LineageId } from '../../core/ids.ts';
import { MiB, formatBytes } from '../../core/units.ts';
import type { StagingArea } from '../../host/staging.ts';
import { NoScratch, criuConfig, mustLeaveRunning, namespaceOf, readOwnNetwork } from '../../runtime/index.ts';
import type { CheckpointWriter } from '../../repository/types.ts';
import type { Container, Finding, Verdict } from '../../runtime/types.ts';
import { KeptMemory, MemoryLayers } from '../../image/criu/index.ts';
import { TreeSaver } from '../../image/tree/index.ts';
import type { AgentContext } from '../context.ts';
import type { Operation } from '../operation.ts';
import type { CheckpointRequest } from './checkpoint.ts';
import { FrozenContainer } from './frozen-container.ts';
import { mostStored } from '../retention/quota.ts';
import { openLogDirectory } from '../operation-logs.ts';
import { mayHaveLinkRemaps, removeLinkRemaps, type LinkRemaps } from './link-remaps.ts';
import { chooseMemoryPath, openMemoryPath } from './memory-path.ts';
import { whyPlain } from './pre-dump.ts';
import { plaintextSelector } from '../plaintext.ts';
import { planRehearsal } from './rehearsal-plan.ts';
import { RehearsalOfCheckpoint } from './rehearse.ts';
import { CheckpointInProgress, IMAGES_PREFIX, type SavedTree } from './in-progress.ts';

export type PreparedCheckpoint = CheckpointInProgress;

/** Kept free in the repository's file system beyond what the checkpoint may need. */
const REPOSITORY_MARGIN_BYTES = 64 * MiB;

/**
 * Of memory that does not stay here, so much is kept for a rehearsal: what criu cannot leave out, as a rule some pages
 * of each process.
 */
const KEPT_BYTES = 64 * MiB;

/** Of the freeze budget, after which criu gives up by itself: before the guard has to kill it. */
const CRIU_SHARE = 0.8;

export async function prepareCheckpoint(agent: AgentContext, container: Container, verdict: Verdict, request: CheckpointRequest, operation: Operation, signal: AbortSignal): Promise<CheckpointInProgress> {
  const { settings } = agent;
  const stop = !request.flags.leaveRunning;
  const budgetMs = request.freezeBudgetMs ?? (stop ? settings.stopBudgetMs : settings.freezeBudgetMs);
  const path = chooseMemoryPath(agent, container, verdict, request.memoryPath === 'auto' ? settings.memoryPath : request.memoryPath);
  await requireRepositorySpace(agent, verdict.memory.bytes);

  await using undo = new AsyncDisposableStack();
  const reservation = undo.use(await agent.quota.reserve({ namespace: namespaceOf(container) ?? '', bytes: mostStored(verdict.memory.bytes) }, { signal }));
  const guardDirectory = join(settings.runDirectory, 'guards', operation.id);
  const staging = undo.use(await agent.staging.open(operation.id));
  const directories = { images: join(staging.directory, 'images'), work: openLogDirectory(agent, operation.id) };
  mkdirSync(directories.images, { mode: 0o700 });

  const writer = await beginWriter(agent, container, request, operation, reservation.bytes, signal);
  let manifest: 'none' | 'written' | 'committed' = 'none';
  undo.defer(async () => {
    const clean = manifest !== 'none' || (await writer.abort());
    if (manifest === 'written') await agent.repository.delete(writer.id, { signal: undefined });
    // What the store did not let go of is removed by the next start.
    if (clean) agent.journal.remove(operation.id);
  });
  const linkRemaps = linkRemapsOf(container, verdict, agent.clock.now());
  agent.journal.write({
    kind: 'checkpoint', operation: operation.id, step: 'prepare', checkpoint: writer.id, lineage: writer.lineage, stop,
    container: { id: container.id, at: container.at, pid: container.pid, pidStart: container.pidStart },
    guardDirectory, stagingDirectory: staging.directory, linkRemaps,
  });

  await reservation.begun(writer.id, { signal });

  // Starting the guard and touching memory take milliseconds each: side by side.
  const arming = FrozenContainer.arm({
    container, guardScript: settings.scripts.guard, guardDirectory, criuLog: join(directories.work, 'dump.log'), budgetMs, clock: agent.clock, log: agent.log, stop: stop ? stopMethod(agent, container) : undefined,
  });
  undo.defer(async () => (await arming.catch(() => undefined))?.[Symbol.asyncDispose]());
  const { network, lost } = await readOwnNetwork(container, settings.scripts.network, signal);
  const rounds = { mode: request.preDump ?? settings.preDump, remainingMs: operation.remainingMs };
  const plain = whyPlain(agent, container, verdict, rounds);
  const plan = planRehearsal(agent, {
    container, verdict, request, lineage: writer.lineage, stop, budgetMs, memoryPath: path, rounds: plain === undefined,
  });
  const layers = new MemoryLayers();
  const elsewhere = path === 'page-server' || plain === undefined;
  const kept = plan.skipped === undefined && elsewhere ? undo.use(keepsIn(staging.directory)) : undefined;
  const memory = undo.use(await openMemoryPath(agent, path, {
    staging, writer, prefix: IMAGES_PREFIX, verdict, layers, kept, sessionFile: join(guardDirectory, 'session'),
  }, { signal, onBytes: (count) => operation.addBytes(count) }));
  const criu = writeCriuConfig(agent, { container, budgetMs, verdict, request, directory: directories.work });
  const trees = await savedTrees(agent, container, verdict, writer, request);
  for (const tree of trees) undo.use(tree.saver);
  // Also of a container that was stopped. A root file system that is not saved is used by a restore as it is, and needs them.
  undo.defer(async () => {
    const checkpoint = manifest === 'committed' ? 'saved' : 'nothing';
    if (mayHaveLinkRemaps(directories.images)) await removeLinkRemaps(linkRemaps, checkpoint);
  });
  const rehearsing = undo.use(new RehearsalOfCheckpoint({
    agent, container, flags: request.flags, allowDifference: request.allowDifference, lineage: writer.lineage,
    operation: operation.id, plan,
    directories: { work: directories.work, memory: join(staging.directory, 'rehearsal') },
    images: () => imagesOfRehearsal({ staging, imageDir: directories.images, layers, kept, path }),
  }));
  await rehearsing.prepare(signal);
  // On top of the stack: whatever else is to be undone, the container goes on first.
  const frozen = undo.use(await arming);
  return new CheckpointInProgress({
    agent, operation, container, reservation, findings: [...verdict.findings, ...lost.map(lostNetwork)], network, request, stop, budgetMs, directories, writer, memory, layers, trees, frozen, criuConfig: criu, guardDirectory,
    plain, rehearsing, undo: undo.move(), mark: (state) => { manifest = state; },
  });
}

/** For memory that goes elsewhere and is to be rehearsed. */
function keepsIn(staging: string): KeptMemory {
  return new KeptMemory(join(staging, 'kept'), { maxBytes: KEPT_BYTES });
}

/** Where criu may leave names of its own, and since when. */
function linkRemapsOf({ rootfs }: Container, { volumes, nameless }: Verdict, sinceMs: number): LinkRemaps {
  const upper = rootfs.kind === 'overlay' ? [rootfs.upper] : [];
  return { trees: [...upper, ...volumes.map(({ source }) => source)], places: nameless ?? [], sinceMs };
}

interface DumpConfig {
  readonly container: Container;
  readonly budgetMs: number;
  readonly verdict: Verdict;
  readonly request: CheckpointRequest;
  readonly directory: string;
}

/** The path of the file. */
function writeCriuConfig(agent: AgentContext, config: DumpConfig): string {
  const { settings } = agent;
  const { container, budgetMs, verdict, request, directory } = config;
  const hook = !request.flags.leaveRunning && stopMethod(agent, container) === 'hook';
  const path = join(directory, 'criu.conf');
  writeFileSync(path, criuConfig({
    timeoutSeconds: Math.max(1, (budgetMs * CRIU_SHARE) / 1000), ghostLimitBytes: settings.ghostLimitBytes,
    watched: verdict.watched, tcpSkipInFlight: request.flags.tcpSkipInFlight,
    actionScript: hook ? settings.scripts.hook : undefined,
  }), { mode: 0o600 });
  return path;
}

interface DumpedImages {
  readonly staging: StagingArea;
  readonly imageDir: string;
  readonly layers: MemoryLayers;
  readonly kept: KeptMemory | undefined;
  readonly path: 'directory' | 'page-server';
}

/**
 * The images of the dump, or, where their memory is on its way elsewhere, others that a rehearsal can be made of.
 * Throws NoScratch.
 */
async function imagesOfRehearsal({ staging, imageDir, layers, kept, path }: DumpedImages): Promise<string> {
  if (path === 'directory' && layers.depth === 0) return imageDir;
  if (kept === undefined || kept.lost !== undefined) throw new NoScratch(kept?.lost ?? 'its memory is not kept');
  const target = join(staging.directory, 'rehearsal-images');
  await kept.layOut(target, { imageDir, layers });
  if (kept.lost !== undefined) throw new NoScratch(kept.lost);
  return target;
}

function lostNetwork(message: string): Finding {
  return { severity: 'warning', kind: 'network', message: `not in the checkpoint: ${message}`, hint: 'after a restore it must be made again by who made it' };
}

/** A runtime that would remove the container even after a failed dump is told to leave it alone. */
function stopMethod(agent: AgentContext, { at }: Container): 'hook' | 'kill' {
  const version = agent.toolchain.runtimes.find((runtime) => runtime.name === at.runtime)?.versionNumbers;
  return version !== undefined && mustLeaveRunning(at, version) ? 'kill' : 'hook';
}

/** What is wrong with the key of a lineage, as opposed to the store. */
const UNUSABLE = ['KEY_MISSING', 'KEY_WRONG', 'KEY_UNAVAILABLE', 'SIGNER_UNTRUSTED', 'SIGNATURE_INVALID', 'OBJECT_CORRUPT', 'FORMAT_UNSUPPORTED'] as const;

/**
 * A lineage ends with its last checkpoint, when its key goes, or when this node cannot use that key any more: the
 * container then begins a new one. Older checkpoints are not touched.
 */
async function beginWriter(agent: AgentContext, container: Container, request: CheckpointRequest, operation: Operation, reservedBytes: number, signal: AbortSignal): Promise<CheckpointWriter> {
  const lineage = request.newLineage ? undefined : agent.lineages.of(container)?.lineage;
  const open = plaintextSelector(container, agent.settings.plaintextFor);
  const id = newCheckpointId(agent.clock.now());
  // Before anything is written: also of a checkpoint that fails later, some may have gone out.
  if (open !== undefined) agent.log.event('checkpoint.plaintext', { checkpoint_id: id, operation_id: operation.id, container_id: container.id, ...open, principal: request.by, reason: request.reason });
  const begin = (wanted: LineageId | undefined): Promise<CheckpointWriter> => agent.repository.begin({ id, lineage: wanted, cipher: open === undefined ? 'xchacha20-poly1305' : 'null', reservedBytes }, { signal });
  try {
    return await begin(lineage);
  } catch (error) {
    if (lineage === undefined || !UNUSABLE.some((code) => isStasisError(error, code))) throw error;
    // Lineages that are for the eyes of others only (keys.recipients) are nothing to worry about.
    const sealed = isStasisError(error, 'KEY_WRONG') && error.details['recipient'] === false;
    if (!sealed && !isStasisError(error, 'KEY_MISSING')) agent.log.event('repository.problem', { lineage, err: error });
    return begin(undefined);
  }
}

async function savedTrees(agent: AgentContext, container: Container, verdict: Verdict, writer: CheckpointWriter, { flags }: CheckpointRequest): Promise<SavedTree[]> {
  const trees: SavedTree[] = [];
  if (container.rootfs.kind === 'overlay') {
    const prefix = 'containers/0/rootfs/';
    // Only of the upper directory: it belongs to this container alone. Of a volume nobody knows who else has its files mapped.
    const memory = await agent.treeMemories.load(container, prefix, writer.ancestor);
    const saver = new TreeSaver({
      writer, threads: agent.treeThreads, prefix, root: container.rootfs.upper, kind: 'overlay-upper', userxattr: container.rootfs.options.includes('userxattr'), memory, remember: flags.leaveRunning,
    });
    trees.push({ prefix, destination: '/', fstype: 'overlay', root: container.rootfs.upper, saver });
  }
  for (const [index, volume] of (verdict.volumes).entries()) {
    const prefix = `volumes/${index}/`;
    trees.push({ prefix, destination: volume.destination, fstype: volume.fstype, root: volume.source, saver: new TreeSaver({ writer, threads: agent.treeThreads, prefix, root: volume.source, kind: 'plain' }) });
  }
  return trees;
}

async function requireRepositorySpace(agent: AgentContext, memoryBytes: number): Promise<void> {
  const free = await agent.repository.freeBytes();
  const needed = memoryBytes + REPOSITORY_MARGIN_BYTES;
  if (free !== undefined && free < needed) {
    throw new StasisError('NO_SPACE', `the repository has ${formatBytes(free)} left, the checkpoint may need ${formatBytes(needed)}`, {
      hint: 'remove old checkpoints (stasis rm) or give the repository more space', details: { free, needed },
    });
  }
}
