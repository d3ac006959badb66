/** A restore between prepare and finish: one method for each step. Disposing of it undoes an unfinished one. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import { cgroupProcesses } from '../../host/cgroup-walk.ts';
import { removeTree } from '../../host/files.ts';
import { RestoreGate, type GateStage } from '../../host/restore-gate.ts';
import type { OperationId } from '../../core/ids.ts';
import { loadImages, mendTimers, readNetworkLock, type NetworkLockOfImages } from '../../image/criu/index.ts';
import type { WorkingSet } from '../../image/lazy/index.ts';
import { loadTree, loadTreeMerged } from '../../image/tree/index.ts';
import {
  criuConfig, findContainer, freezerOf, nodeRules, nodeRulesForStrangers, openBundle, printable, prepareNetwork,
  putBack, putBackLast, readSpec, remove, removeBundle, restore as runtimeRestore, roomForRestore,
} from '../../runtime/index.ts';
import type { Bundle, KernelState } from '../../runtime/index.ts';
import type { Container, Finding, OciSpec } from '../../runtime/types.ts';
import type { StagingArea } from '../../host/staging.ts';
import type { AgentContext } from '../context.ts';
import { expectLock, holdConnections, joinedNetwork, letConnections, releaseLock, settleLock } from '../network-locks.ts';
import type { Operation } from '../operation.ts';
import { containerDirectory, fillDirectory, gateDirectory, outputFiles } from './container-directory.ts';
import { startFill } from './fill.ts';
import { requirePlaces, requireSame } from './fidelity.ts';
import { Filling } from './filling.ts';
import { keepGate } from './gate.ts';
import { requireBack } from '../put-back.ts';
import { requireGrantedNodes } from './granted-nodes.ts';
import { admitImported } from './imported.ts';
import { requireRealPaths } from './real-paths.ts';
import { openLogDirectory } from '../operation-logs.ts';
import type { RestorePlan } from './restore.ts';

interface Parts {
  readonly agent: AgentContext;
  readonly plan: RestorePlan;
  readonly operation: Operation;
  readonly staging: StagingArea;
  readonly gate: RestoreGate;
  readonly directories: { readonly images: string; readonly work: string; readonly container: string };
  readonly undo: AsyncDisposableStack;
}

interface Finished {
  readonly container: Container;
  readonly findings: readonly Finding[];
  readonly fill: { readonly operation: OperationId; readonly totalBytes: number } | undefined;
}

/** CRIU needs this much beyond the images themselves. */
const MEMORY_MARGIN = 1.05;

/** So long criu and the runtime may stand still, waiting for the disk or for the agent, for the smallest container. */
const RUNTIME_BASE_MS = 20_000;
/** Memory that comes lazily they wait for: from a store in trouble at a twentieth of what criu restores otherwise. */
const RUNTIME_BYTES_PER_MS = 50_000;

/**
 * criu waits for ever when a task that it is rebuilding is killed (by the kernel, for want of memory): the task is
 * the runtime's child, and criu never hears of its end.
 */
function runtimeDeadlineMs({ saved }: RestorePlan): number {
  return RUNTIME_BASE_MS + saved.images.pagesBytes / RUNTIME_BYTES_PER_MS;
}

export class RestoreInProgress implements AsyncDisposable {
  readonly #parts: Parts;
  #bundle: Bundle | undefined;
  /** Of a lazy restore with pages that come later. */
  #filling: Filling | undefined;
  readonly #workingSet: WorkingSet;
  #networkLock: NetworkLockOfImages | undefined;
  #filled: Disposable | undefined;
  /** Directory of the freezer of what was rebuilt. */
  #freezer: string | undefined;
  /** Differences that were let pass. */
  #findings: readonly Finding[] = [];
  readonly #leftOut: Finding[] = [];

  private constructor(parts: Parts) {
    this.#parts = parts;
    this.#workingSet = parts.agent.workingSets.load(parts.plan.reader.summary.lineage);
  }

  static async prepare(agent: AgentContext, plan: RestorePlan, operation: Operation, signal: AbortSignal): Promise<RestoreInProgress> {
    await using undo = new AsyncDisposableStack();
    const staging = undo.use(await agent.staging.open(operation.id));
    const images = plan.saved.images;
    operation.expectBytes(plan.reader.summary.bytes.raw - images.pagesBytes + eagerBytes(agent, plan));
    await staging.require((eagerBytes(agent, plan) + images.metadataBytes) * MEMORY_MARGIN, { signal });
    const container = containerDirectory(agent, plan.id);
    const gate = undo.use(RestoreGate.open(gateDirectory(agent, operation.id)));
    undo.defer(async () => agent.journal.remove(operation.id));
    const directories = { images: join(staging.directory, 'images'), work: openLogDirectory(agent, operation.id), container };
    agent.journal.write({
      kind: 'restore', operation: operation.id, step: 'prepare', checkpoint: plan.request.checkpoint, container: { id: plan.id, at: plan.at },
      bundle: plan.request.bundle ?? container, rebuilt: plan.request.bundle === undefined, stagingDirectory: staging.directory, workDirectory: directories.work,
    });
    mkdirSync(directories.images, { mode: 0o700 });
    mkdirSync(container, { recursive: true, mode: 0o700 });
    undo.defer(() => removeBundle(container));
    return new RestoreInProgress({ agent, plan, operation, staging, gate, directories, undo: undo.move() });
  }

  /** The overlay's upper directory is written before it is mounted: below a mounted overlay that would be undefined. */
  async files(signal: AbortSignal): Promise<void> {
    const { agent, plan, directories, operation, undo } = this.#parts;
    const { reader, saved } = plan;
    const examined = await this.#examineImported(signal);
    const bundle = await openBundle({
      given: plan.request.bundle, directory: directories.container, id: plan.id, spec: roomForRestore(saved.spec, saved.kernel?.limits), rootfs: saved.rootfs.layout,
      volumes: saved.volumes,
    });
    this.#bundle = bundle;
    undo.defer(() => bundle.remove());
    const spec = await readSpec(bundle.directory);
    const how = {
      signal, threads: agent.treeThreads, onBytes: (count: number): void => operation.addBytes(count),
      devices: examined === undefined ? nodeRules(spec) : nodeRulesForStrangers(spec),
    };
    if (saved.rootfs.saved) {
      if (bundle.upper !== undefined) this.#tell(await loadTree(reader, saved.rootfs.prefix, bundle.upper, how), '/');
      else this.#tell(await loadTreeMerged(reader, saved.rootfs.prefix, bundle.rootfs, how), '/');
    }
    for (const [index, volume] of saved.volumes.entries()) {
      const target = bundle.volumes[index];
      if (target === undefined) throw new StasisError('RESTORE_INCOMPATIBLE', `the bundle has no mount for the saved volume ${volume.destination}`);
      this.#tell(await loadTree(reader, volume.prefix, target, how), volume.destination);
    }
    await bundle.mount();
    if (examined !== undefined) requireRealPaths(examined.paths, { rootfs: bundle.rootfs, mounts: examined.spec.mounts });
  }

  /** What was left out of a tree. */
  #tell({ warnings }: { readonly warnings: readonly string[] }, destination: string): void {
    this.#leftOut.push(...warnings.map((warning): Finding => ({
      severity: 'warning', kind: 'left-out', message: `below ${printable(destination)}: ${warning}`,
      hint: 'let the program make it again; a device can be granted by the bundle (stasis restore --bundle) in '
        + 'linux.resources.devices, with access "m"',
    })));
  }

  /** A stranger's images are looked at before anything of theirs is put anywhere. */
  async #examineImported(signal: AbortSignal): Promise<{ readonly paths: ReadonlySet<string>; readonly spec: OciSpec } | undefined> {
    const { plan, directories, staging } = this.#parts;
    if (plan.description.imported === undefined || plan.request.bundle === undefined) return undefined;
    await this.#fetchImages(signal);
    const spec = await readSpec(plan.request.bundle).catch((error: unknown) => {
      throw new StasisError('RESTORE_INCOMPATIBLE', `the bundle ${JSON.stringify(plan.request.bundle)} cannot be used: config.json: ${(error as Error).message}`, { cause: error, hint: 'give a directory with config.json and the root file system' });
    });
    await requireGrantedNodes(plan, spec, signal);
    return { spec, paths: await admitImported(directories.images, spec, join(staging.directory, 'seccomp.bpf')) };
  }

  async fetch(signal: AbortSignal): Promise<void> {
    if (this.#parts.plan.description.imported === undefined) await this.#fetchImages(signal);
  }

  async #fetchImages(signal: AbortSignal): Promise<void> {
    const { agent, plan, directories, operation, undo, gate } = this.#parts;
    const how = { signal, onBytes: (count: number): void => operation.addBytes(count) };
    if (!plan.lazy) {
      await loadImages(plan.reader, plan.saved.images.prefix, directories.images, how);
      return;
    }
    const guard = fillDirectory(agent, operation.id);
    this.#filling = await Filling.open({ agent, plan, directories: { ...directories, guard }, workingSet: this.#workingSet, gate }, how);
    if (this.#filling !== undefined) undo.use(this.#filling);
  }

  async restore(signal: AbortSignal): Promise<void> {
    const { agent, plan, operation, directories, undo, gate } = this.#parts;
    const filling = this.#filling;
    const config = join(directories.work, 'criu.conf');
    writeFileSync(config, criuConfig({ timeoutSeconds: Math.ceil(agent.settings.operationDeadlineMs / 1000), ghostLimitBytes: agent.settings.ghostLimitBytes, tcpClose: plan.flags.tcpClose, actionScript: agent.settings.scripts.restoreHook }), { mode: 0o600 });
    const bundle = this.#bundle!.directory;
    await this.#expectLock(bundle);
    await mendTimers(directories.images);
    if (filling !== undefined) this.#filled = undo.use(agent.fills.add(plan, { checkpoint: plan.request.checkpoint, totalBytes: filling.totalBytes, get filledBytes() { return filling.filledBytes; } }));
    const networkDirectory = prepareNetwork(plan.saved.kernel?.network, await readSpec(bundle), join(directories.work, 'network'));
    const restored = runtimeRestore({
      at: plan.at, id: plan.id, bundle, imageDir: directories.images, workDir: directories.work, flags: plan.flags,
      criuConfig: config, operationId: operation.id, pidFile: join(directories.container, 'pid'), gateDirectory: gate.directory, networkDirectory,
      cgroupNamespace: plan.saved.spec.linux?.namespaces?.some(({ type }) => type === 'cgroup') ?? false,
      ...outputFiles(agent, plan.id),
      lazyPages: filling !== undefined, imported: plan.description.imported !== undefined,
    }, agent.toolchain, {
      signal, timeoutMs: runtimeDeadlineMs(plan), whileStill: true, launcher: agent.settings.scripts.restore,
    });
    // Not before: a failed restore leaves nothing, and a container that somebody else has made under this id is not ours.
    const made = restored.then(({ pid }) => {
      undo.defer(() => remove(plan.at, plan.id, { force: true, bundle, signal: undefined }));
      requireBack(this.#kernel === undefined ? [] : putBackLast(this.#kernel, pid, this.#freezer));
    });
    const check = (stage: GateStage) => (pid: number, how: { readonly signal: AbortSignal }): Promise<void> => this.#check(stage, pid, how);
    await beside(made, (ended) => keepGate(gate, { 'post-restore': check('post-restore'), 'pre-resume': check('pre-resume') }, { signal: AbortSignal.any([signal, ended]) })).catch((error: unknown) => { throw filling?.reason ?? error; });
    gate[Symbol.dispose]();
  }

  /** Before any task of the container runs. */
  async #check(stage: GateStage, pid: number, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    const { agent, plan } = this.#parts;
    const { directory } = this.#bundle!;
    try {
      await agent.failpoints.hit(`restore.gate.${stage}`, { signal });
      if (stage === 'post-restore') {
        await this.#filling?.admit(pid);
        await requirePlaces(this.#parts, directory, pid);
        await holdConnections(pid, this.#held);
      } else {
        this.#freezer = freezerOf(pid)?.directory;
        requireBack(this.#putBack(pid));
        this.#findings = await requireSame(this.#parts, directory, pid);
        await letConnections(pid, this.#held);
      }
    } catch (error) {
      // criu has just unlocked the network, and the tasks are about to be killed: their connections must not see that.
      if (stage === 'pre-resume') await settleLock(agent, plan.request.checkpoint, { again: true });
      throw error;
    }
  }

  /** criu blocks a network namespace that the container joins, and a failed one leaves it so. */
  async #expectLock(bundle: string): Promise<void> {
    const { agent, plan, directories, undo } = this.#parts;
    this.#networkLock = await readNetworkLock(directories.images);
    expectLock(agent, plan.request.checkpoint, joinedNetwork(await readSpec(bundle)), { ...this.#networkLock, connections: [] });
    undo.defer(() => settleLock(agent, plan.request.checkpoint, { again: true }));
  }

  /** What must not come alive before the restore is sure. */
  get #held(): NetworkLockOfImages | undefined {
    return this.#parts.plan.flags.tcpEstablished ? this.#networkLock : undefined;
  }

  /** The limits of a bundle that the caller gave are the caller's. */
  get #kernel(): KernelState | undefined {
    const { request, saved: { kernel } } = this.#parts.plan;
    return kernel === undefined || request.bundle === undefined ? kernel : { ...kernel, limits: {} };
  }

  /** The tasks are whole and have not run. */
  #putBack(pid: number): string[] {
    return this.#kernel === undefined ? [] : putBack(this.#kernel, pid, cgroupProcesses(this.#freezer ?? ''));
  }

  /** From here on the container is one like any other: only the staging and the journal go. */
  async finish(signal: AbortSignal): Promise<Finished> {
    const { agent, plan, operation } = this.#parts;
    const container = await findContainer(agent.roots, plan.id, { signal });
    operation.settle();
    await releaseLock(agent, plan.request.checkpoint);
    // What was made stays: the stack is emptied without being run.
    const undo = this.#parts.undo.move();
    const filling = this.#filling;
    if (filling === undefined) {
      await this.#done();
      return { container, findings: [...this.#leftOut, ...this.#findings], fill: undefined };
    }
    const fill = startFill({
      agent, plan, container, filling, workingSet: this.#workingSet, principal: plan.request.by, reason: plan.request.reason,
      undo: () => undo.disposeAsync(),
      done: async () => {
        await filling[Symbol.asyncDispose]();
        this.#filled?.[Symbol.dispose]();
        await this.#done();
      },
    });
    return {
      container, findings: [...this.#leftOut, ...this.#findings],
      fill: { operation: fill.id, totalBytes: filling.totalBytes },
    };
  }

  async #done(): Promise<void> {
    const { agent, plan, operation, staging, directories } = this.#parts;
    agent.journal.remove(operation.id);
    await staging[Symbol.asyncDispose]();
    if (!plan.request.keep) removeTree(directories.work);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.undo.disposeAsync();
  }
}

/** Bytes of pages that must lie in staging at once: of a lazy restore only those that cannot come later, and a working set. */
function eagerBytes(agent: AgentContext, { lazy, saved: { images }, reader }: RestorePlan): number {
  if (!lazy) return images.pagesBytes;
  const lazyBytes = (images.lazyPages / Math.max(1, images.pages)) * images.pagesBytes;
  return images.pagesBytes - lazyBytes + Math.min(lazyBytes, agent.workingSets.load(reader.summary.lineage).bytes);
}

/** Both, or the first failure; what runs beside ends with the main thing. */
async function beside(main: Promise<unknown>, companion: (ended: AbortSignal) => Promise<void>): Promise<void> {
  const ended = new AbortController();
  const accompanied = companion(ended.signal);
  accompanied.catch(() => {});
  try {
    await main;
  } catch (error) {
    ended.abort(error);
    // Its failure made the main thing fail, unless it only heard of that.
    await accompanied.catch((cause: unknown) => {
      if (!ended.signal.aborted || cause !== error) throw cause;
    });
    throw error;
  }
  ended.abort(new StasisError('RESTORE_FAILED', 'criu let the tasks run without asking the agent', { hint: 'does a criu.conf of this node take the action script away?' }));
  await accompanied;
}
