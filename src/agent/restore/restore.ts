/**
 * Restore of a checkpoint as an ordinary container of runc or crun: the whole operation as a list of steps.
 *
 *   open      manifest read, seal and signature checked
 *   examine   does it fit this node, is the id free, does no other copy run?
 *   prepare   space reserved, journal written
 *   files     root file system and volumes rebuilt, every byte verified
 *   fetch     criu's images into private memory, every byte verified
 *   restore   the runtime brings the processes back
 *   finish    clean up
 *
 * Nothing runs before everything is verified. A failure leaves neither container nor bundle behind.
 */
import { join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import { parseContainerId, type CheckpointId, type ContainerId, type OperationId } from '../../core/ids.ts';
import type { CheckpointReader } from '../../repository/types.ts';
import { listContainers, readSpec } from '../../runtime/index.ts';
import type { Container, Finding, RuntimeName, RuntimeRoot } from '../../runtime/types.ts';
import type { AgentContext } from '../context.ts';
import { podDescription, type PodDescription, type SavedContainer } from '../description.ts';
import { rememberLineage } from '../lineages.ts';
import { requireCpu } from '../node-info.ts';
import type { LazyMode } from '../../rpc/api.ts';
import type { Operation, Phase } from '../operation.ts';
import { secretsOf } from '../secrets.ts';
import { chooseLazy } from './choose-lazy.ts';
import { RestoreInProgress } from './in-progress.ts';

export const RESTORE_STEPS = ['open', 'examine', 'prepare', 'files', 'fetch', 'restore', 'finish'] as const;

export interface RestoreRequest {
  readonly checkpoint: CheckpointId;
  /** Undefined: the id it had. */
  readonly container: string | undefined;
  /** Undefined: the bundle is rebuilt. */
  readonly bundle: string | undefined;
  readonly runtime: RuntimeName | undefined;
  /** Although a container of the same lineage runs here. */
  readonly clone: boolean;
  readonly ignoreCompatibility: boolean;
  /** Attributes of docs/FIDELITY.md that may differ. */
  readonly allowDifference: readonly string[];
  /** Whether pages may arrive after the container runs. */
  readonly lazy: LazyMode;
  /** Who asked and why, for the operation that brings the rest of the pages. */
  readonly by: string;
  readonly reason: string;
  /** Keep CRIU's log and configuration after a success, too. */
  readonly keep: boolean;
  readonly flags: { readonly tcpEstablished: boolean; readonly tcpClose: boolean; readonly fileLocks: boolean; readonly extUnixSk: boolean; readonly shellJob: boolean };
}

export interface RestoreOutcome {
  readonly operation: OperationId;
  readonly checkpoint: CheckpointId;
  readonly container: Container;
  readonly phases: readonly Phase[];
  readonly totalMs: number;
  /** Differences from what was saved that were let pass. */
  readonly findings: readonly Finding[];
  readonly bytes: number;
  readonly storedBytes: number;
  /** From the freeze of a container that was stopped to the end of this restore. */
  readonly downtimeMs: number | undefined;
  /** The operation that brings the rest of the memory, and how much that is. */
  readonly fill: { readonly operation: OperationId; readonly totalBytes: number } | undefined;
  /** Why it was lazy, or was not, when the agent had the choice. */
  readonly lazyReason: string | undefined;
}

/** What is to be restored, as what, by whom. */
export interface RestorePlan {
  readonly reader: CheckpointReader;
  /** Keeps others from deleting what is being read. */
  readonly held: AsyncDisposableStack;
  readonly description: PodDescription;
  readonly saved: SavedContainer;
  readonly id: ContainerId;
  readonly at: RuntimeRoot;
  readonly request: RestoreRequest;
  readonly flags: RestoreRequest['flags'];
  /** Some of its pages arrive after it runs. */
  readonly lazy: boolean;
  /** Why, or why not, when the agent had the choice. */
  readonly lazyReason: string | undefined;
}

export async function restore(agent: AgentContext, request: RestoreRequest, operation: Operation): Promise<RestoreOutcome> {
  const started = agent.clock.monotonic();
  await using held = new AsyncDisposableStack();
  const opened = await operation.step('open', async (signal) => {
    held.use(await agent.repository.maintenance.hold(request.checkpoint, { signal }));
    const reader = await agent.repository.open(request.checkpoint, { signal });
    return { reader, held, description: podDescription(reader.summary) };
  });
  await hideSecrets(operation, opened.description, request.bundle);
  const plan = await operation.step('examine', (signal) => examineRestore(agent, request, opened, operation, signal));
  await using inProgress = await operation.step('prepare', (signal) => RestoreInProgress.prepare(agent, plan, operation, signal));
  await operation.step('files', (signal) => inProgress.files(signal));
  await operation.step('fetch', (signal) => inProgress.fetch(signal));
  await operation.step('restore', (signal) => inProgress.restore(signal));
  const { container, fill, findings } = await operation.step('finish', (signal) => inProgress.finish(signal));
  rememberLineage(agent, container, { lineage: plan.reader.summary.lineage, last: request.checkpoint });
  return {
    operation: operation.id, checkpoint: request.checkpoint, container, phases: operation.phases, totalMs: agent.clock.monotonic() - started,
    bytes: plan.reader.summary.bytes.raw, storedBytes: plan.reader.summary.bytes.stored,
    downtimeMs: plan.description.mode === 'stop' ? agent.clock.now() - plan.description.frozenAtMs : undefined, fill, findings, lazyReason: plan.lazyReason,
  };
}

/** A bundle that cannot be read is told later, by whoever needs it. */
async function hideSecrets(operation: Operation, { containers }: PodDescription, bundle: string | undefined): Promise<void> {
  const given = bundle === undefined ? undefined : await readSpec(bundle).catch(() => undefined);
  for (const spec of [...containers.map((saved) => saved.spec), ...(given === undefined ? [] : [given])]) operation.hide(secretsOf(spec));
}

async function examineRestore(agent: AgentContext, request: RestoreRequest, opened: Pick<RestorePlan, 'reader' | 'held' | 'description'>, operation: Operation, signal: AbortSignal): Promise<RestorePlan> {
  const { description, reader } = opened;
  const saved = description.containers[0];
  if (saved === undefined || description.containers.length !== 1) {
    throw new StasisError('RESTORE_INCOMPATIBLE', `checkpoint ${request.checkpoint} holds ${description.containers.length} containers, this node restores checkpoints of one`);
  }
  if (description.imported !== undefined && request.bundle === undefined) {
    throw new StasisError('RESTORE_INCOMPATIBLE', `checkpoint ${request.checkpoint} was imported from ${JSON.stringify(description.imported.source)}: mounts, capabilities and all else that grants something must come from you`, {
      hint: 'make a bundle with config.json and the root file system of its image, and give it: stasis restore --bundle DIR',
    });
  }
  if (!request.ignoreCompatibility) {
    requireCpu(description.provenance.cpu, description.provenance.architecture);
    requireCriu(agent, description);
  }
  const id = parseContainerId(request.container ?? saved.id);
  const at = restoreRoot(agent, request.runtime ?? saved.runtime);
  // Others may be restoring at the same time: what one finds free must not be taken by both.
  for (const key of [`restore as ${id}`, `container ${at.root}/${id}`]) agent.operations.claim(operation.id, key, `container ${id}`);
  if (!request.clone) agent.operations.claim(operation.id, `lineage ${reader.summary.lineage}`, `the lineage of checkpoint ${request.checkpoint}`);
  await requireFreeId(agent, id, signal);
  if (!request.clone) await requireNoCopy(agent, reader, signal);
  const { lazy, reason } = await chooseLazy(agent, { mode: request.lazy, at, spec: saved.spec, images: saved.images, reader }, signal);
  if (reason !== undefined) agent.log.event('restore.laziness', { operation_id: operation.id, checkpoint_id: request.checkpoint, container_id: id, lazy, reason });
  return { ...opened, saved, id, at, request, flags: restoreFlags(request, saved), lazy, lazyReason: reason };
}

/** What the dump was made with, the restore needs too; connections can still be closed instead. */
function restoreFlags({ flags }: RestoreRequest, { flags: dumped }: SavedContainer): RestoreRequest['flags'] {
  return {
    tcpClose: flags.tcpClose,
    tcpEstablished: !flags.tcpClose && (flags.tcpEstablished || dumped.tcpEstablished),
    fileLocks: flags.fileLocks || dumped.fileLocks,
    extUnixSk: flags.extUnixSk || dumped.extUnixSk,
    shellJob: flags.shellJob || dumped.shellJob,
  };
}

/** Images of criu 4.2 cannot be read by an older criu, and a newer one may have written what this one does not know. */
function requireCriu(agent: AgentContext, description: PodDescription): void {
  const [major = 0, minor = 0] = (/(\d+)\.(\d+)/.exec(description.provenance.criu)?.slice(1) ?? []).map(Number);
  const [hereMajor, hereMinor] = agent.toolchain.criu.version;
  if (hereMajor < major || (hereMajor === major && hereMinor < minor)) {
    throw new StasisError('RESTORE_INCOMPATIBLE', `the checkpoint was made by criu ${major}.${minor}, this node has criu ${hereMajor}.${hereMinor}`, {
      hint: 'restore on a node with the same criu or a newer one',
    });
  }
}

/** Restored containers live in the first plain state directory of their runtime, where its own command line finds them. */
function restoreRoot(agent: AgentContext, runtime: RuntimeName): RuntimeRoot {
  const installed = agent.toolchain.runtimes.find((candidate) => candidate.name === runtime);
  if (installed === undefined) {
    throw new StasisError('RESTORE_INCOMPATIBLE', `${runtime} is not installed on this node`, { hint: 'install it, or choose the other runtime: stasis restore --runtime' });
  }
  return agent.roots.find((root) => root.runtime === runtime && !root.root.endsWith('*')) ?? { runtime, binary: installed.binary, root: join('/run', runtime) };
}

/** Not as a person names a container: others may begin with the same letters. */
async function requireFreeId(agent: AgentContext, id: ContainerId, signal: AbortSignal): Promise<void> {
  const { containers } = await listContainers(agent.roots, { signal });
  const holder = containers.find((container) => container.id === id);
  if (holder === undefined) return;
  throw new StasisError('CONTAINER_EXISTS', `a container ${id} (${holder.status}) exists below ${holder.at.root}`, {
    hint: 'delete it, or restore under another id: stasis restore --name NEW',
  });
}

async function requireNoCopy(agent: AgentContext, reader: CheckpointReader, signal: AbortSignal): Promise<void> {
  const { containers } = await listContainers(agent.roots, { signal });
  const copy = containers.find((container) => container.status !== 'stopped' && agent.lineages.of(container)?.lineage === reader.summary.lineage);
  if (copy !== undefined) {
    throw new StasisError('CHECKPOINT_IN_USE', `container ${copy.id} of the same lineage is ${copy.status}: a second copy would do its work twice`, {
      hint: 'stop it first, or ask for a copy: stasis restore --clone',
    });
  }
}
