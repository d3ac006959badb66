/** A checkpoint between prepare and finish: one method for each step. Disposing of it undoes what was not committed. */
import { invariant } from '../../core/assert.ts';
import { longTimer, type LongTimer } from '../../core/clock.ts';
import { StasisError, asStasisError } from '../../core/errors.ts';
import { removeTree } from '../../host/files.ts';
import { budgetExceeded } from '../../host/guard.ts';
import { readMountinfo } from '../../host/mountinfo.ts';
import { networkOf } from '../../host/packet-filter.ts';
import { processRuns } from '../../host/proc.ts';
import {
  blockedSignals, readDumpStats, readNetworkLock, saveImages, type MemoryLayers, type NetworkLockOfImages,
} from '../../image/criu/index.ts';
import type { CriuImageSummary } from '../../image/types.ts';
import type { SavedTreeCounts, TreeSaver } from '../../image/tree/index.ts';
import { blockedFromImages, observe, surroundingsOf, type FidelityRecord } from '../../runtime/fidelity/index.ts';
import type { CheckpointSummary, CheckpointWriter, Description } from '../../repository/types.ts';
import { dump, readKernelState, remove, volumeMount, type KernelState } from '../../runtime/index.ts';
import type { Container, DumpStats, Finding, VolumeMount } from '../../runtime/types.ts';
import type { AgentContext } from '../context.ts';
import { expectLock, releaseLock, settleLock } from '../network-locks.ts';
import type { Operation } from '../operation.ts';
import { sweepContainers } from '../restore/container-directory.ts';
import type { CheckpointRequest } from './checkpoint.ts';
import type { FrozenContainer } from './frozen-container.ts';
import type { Reservation } from '../retention/quota.ts';
import type { MemoryPath } from './memory-path.ts';
import { mayHaveLinkRemaps } from './link-remaps.ts';
import { parentOf, preDump, type PreDumped } from './pre-dump.ts';
import type { Rehearsal, RehearsalOfCheckpoint } from './rehearse.ts';
import { sharedWritableFiles } from './shared-mappings.ts';

export interface SavedTree {
  readonly prefix: string;
  readonly destination: string;
  readonly fstype: string;
  /** Directory on the node. */
  readonly root: string;
  readonly saver: TreeSaver;
}

export interface InProgressParts {
  readonly agent: AgentContext;
  readonly operation: Operation;
  readonly reservation: Reservation;
  readonly container: Container;
  readonly findings: readonly Finding[];
  readonly request: CheckpointRequest;
  readonly stop: boolean;
  readonly budgetMs: number;
  readonly directories: { readonly images: string; readonly work: string };
  readonly writer: CheckpointWriter;
  readonly memory: MemoryPath;
  readonly layers: MemoryLayers;
  /** Why there are no rounds before the freeze; undefined: there are. */
  readonly plain: string | undefined;
  readonly trees: readonly SavedTree[];
  readonly rehearsing: RehearsalOfCheckpoint;
  readonly frozen: FrozenContainer;
  readonly network: KernelState['network'];
  readonly criuConfig: string;
  readonly guardDirectory: string;
  readonly undo: AsyncDisposableStack;
  /** How far the manifest is: what is undone depends on it. */
  readonly mark: (state: 'written' | 'committed') => void;
}

/** Of what is left of the freeze budget. */
const REHEARSAL_SHARE = 0.5;
/** The agent ends what is going on so long before the end of the budget. */
const EARLY_MS = 1000;
const EARLY_SHARE = 0.1;
const WATCH_MS = 250;
/** criu gets this long to see for itself that the container has ended. */
const DEAD_MS = 1000;

export const IMAGES_PREFIX = 'containers/0/criu/';

export class CheckpointInProgress implements AsyncDisposable {
  readonly #parts: InProgressParts;
  #dump: Promise<unknown> | undefined;
  #budget: LongTimer | undefined;
  #undoing = false;
  #frozenAtMs = 0;
  #distrusted: readonly Buffer[] = [];
  #preDumped: PreDumped;
  #rehearsal: Promise<Rehearsal> | undefined;
  #rehearsed: Rehearsal | undefined;
  #images: CriuImageSummary | undefined;
  #kernel: KernelState | undefined;
  #fidelity: FidelityRecord | undefined;
  #volumeMounts: ReadonlyMap<string, VolumeMount> = new Map();
  #networkLock: NetworkLockOfImages | undefined;
  #decided = false;
  #stats: DumpStats | undefined;
  readonly #treeCounts = new Map<string, SavedTreeCounts>();

  constructor(parts: InProgressParts) {
    this.#parts = parts;
    this.#preDumped = { rounds: [], plain: parts.plain };
  }

  get container(): Container { return this.#parts.container; }
  get findings(): readonly Finding[] { return this.#parts.findings; }
  get request(): CheckpointRequest { return this.#parts.request; }
  get writer(): CheckpointWriter { return this.#parts.writer; }
  get trees(): readonly SavedTree[] { return this.#parts.trees; }
  get stop(): boolean { return this.#parts.stop; }
  get memoryPath(): 'directory' | 'page-server' { return this.#parts.memory.name; }
  get preDumped(): PreDumped { return this.#preDumped; }

  get rehearsal(): Rehearsal {
    invariant(this.#rehearsed !== undefined, 'the rehearsal is over after seal');
    return this.#rehearsed;
  }

  /** What the rehearsal found and the caller allowed. */
  get rehearsed(): readonly Finding[] { return this.#parts.rehearsing.findings; }
  get stats(): DumpStats | undefined { return this.#stats; }
  get frozenMs(): number { return this.#parts.frozen.frozenMs; }
  get frozenAtMs(): number { return this.#frozenAtMs; }

  get kernel(): KernelState {
    invariant(this.#kernel !== undefined, 'the state of the kernel is known after the freeze');
    return this.#kernel;
  }
  get fidelity(): FidelityRecord {
    invariant(this.#fidelity !== undefined, 'the record of the tasks is made in the freeze');
    return this.#fidelity;
  }
  /** By destination. */
  get volumeMounts(): ReadonlyMap<string, VolumeMount> { return this.#volumeMounts; }

  get images(): CriuImageSummary {
    invariant(this.#images !== undefined, 'images are known after seal');
    return this.#images;
  }

  treeCounts(prefix: string): SavedTreeCounts {
    const counts = this.#treeCounts.get(prefix);
    invariant(counts !== undefined, 'tree counts are known after seal');
    return counts;
  }

  /** In plain words, for the manifest and the caller. */
  get notSaved(): readonly string[] {
    const { rootfs } = this.container;
    const skipped = [...this.#treeCounts.values()].flatMap((counts) => counts.warnings);
    if (rootfs.kind === 'overlay') return skipped;
    return [...skipped, `files below ${rootfs.path}: the root file system is a plain directory, or an overlay that was mounted with relative paths; a restore uses it as it is then`];
  }

  async readAhead(signal: AbortSignal): Promise<void> {
    this.#distrusted = await sharedWritableFiles(this.#parts.frozen.pids());
    for (const tree of this.trees) await tree.saver.readAhead({ signal, onBytes: (count) => this.#parts.operation.addBytes(count) });
    await this.#parts.reservation.wrote(this.writer.bytes().stored, { signal });
  }

  /** Nothing where it does not pay. */
  async preDump(signal: AbortSignal): Promise<void> {
    if (this.#parts.plain === undefined) this.#preDumped = await preDump(this.#parts, signal);
  }

  async freeze(signal: AbortSignal): Promise<void> {
    await this.#parts.memory.release();
    this.#frozenAtMs = this.#parts.agent.clock.now();
    await this.#parts.frozen.freeze(signal);
    // Before the guard does it: the guard does not ask what criu is doing when it kills it.
    const { budgetMs } = this.#parts;
    this.#budget = longTimer(() => this.#parts.operation.cancel(budgetExceeded()), budgetMs - Math.min(EARLY_MS, budgetMs * EARLY_SHARE));
    try {
      this.#readState();
    } catch (error) {
      throw this.#explain(error);
    }
  }

  /** What the kernel says of it while it stands still. */
  #readState(): void {
    const { container, frozen, network } = this.#parts;
    this.#kernel = { ...readKernelState(container, frozen.pids()), ...(network === undefined ? {} : { network }) };
    const { pid, spec, freezer } = container;
    this.#fidelity = observe(
      pid, 'all', surroundingsOf(pid, { spec, freezer: freezer?.directory, given: false, network }),
    );
    this.#volumeMounts = this.#readVolumeMounts();
  }

  #readVolumeMounts(): Map<string, VolumeMount> {
    const volumes = this.trees.filter(({ destination }) => destination !== '/');
    const mounts = volumes.length === 0 ? [] : readMountinfo(this.container.pid);
    return new Map(volumes.flatMap(({ destination }) => {
      const found = volumeMount(mounts, destination);
      return found === undefined ? [] : [[destination, found] as const];
    }));
  }

  async dump(signal: AbortSignal): Promise<void> {
    const { container, directories, memory, frozen, agent, operation } = this.#parts;
    // A cancel does not kill criu in the middle, where it may take its victim with it: FrozenContainer does, at a good moment.
    const dumping = dump({
      container, flags: this.request.flags, imageDir: directories.images, workDir: directories.work, pageServer: memory.pageServer, parent: parentOf(this.#preDumped),
      criuConfig: this.#parts.criuConfig, operationId: operation.id, guardDirectory: this.#parts.guardDirectory,
    }, agent.toolchain, { signal: undefined, timeoutMs: this.#parts.budgetMs });
    this.#dump = dumping;
    dumping.catch(() => undefined);
    using _watch = this.#watchContainer();
    try {
      await Promise.all([frozen.imagesWritten(dumping, signal), this.#deltas(signal)]);
      // criu has put links to nameless open files into the root file system: they belong to the checkpoint.
      if (mayHaveLinkRemaps(directories.images)) await this.#deltas(signal);
      if (this.#fidelity !== undefined) this.#fidelity = blockedFromImages(
        this.#fidelity, (tid) => blockedSignals(directories.images, tid),
      );
      if (this.stop) this.#watchDump(dumping);
    } catch (error) {
      throw this.#explain(error);
    }
  }

  /** A criu under whose hands the tasks were killed may wait for them until its budget ends: without a container it has no work. */
  #watchContainer(): Disposable {
    const { container, frozen } = this.#parts;
    let dead = 0;
    const timer = setInterval(() => {
      if (processRuns(container.pid, container.pidStart)) return;
      dead += WATCH_MS;
      if (dead === DEAD_MS) void frozen.endRuntime();
    }, WATCH_MS);
    return { [Symbol.dispose]: () => clearInterval(timer) };
  }

  /** criu waits for the commit now. If it ends before, the container goes on and nothing more is to be sealed. */
  #watchDump(dumping: Promise<{ leftRunning: boolean }>): void {
    const { operation, frozen } = this.#parts;
    const lost = (): void => {
      if (!this.#undoing) operation.cancel(this.#explain(frozen.lost()));
    };
    dumping.then(({ leftRunning }) => { if (!leftRunning) lost(); }, lost);
  }

  /** Beside the dump: what changed in the files since they were read ahead. */
  async #deltas(signal: AbortSignal): Promise<void> {
    if (this.trees.length === 0) return;
    const distrust = [...this.#distrusted, ...(await sharedWritableFiles(this.#parts.frozen.pids()))];
    for (const tree of this.trees) await tree.saver.delta({ signal, distrust: tree.destination === '/' ? distrust : [] });
  }

  /**
   * Of a container that is left running it is over when this resolves; of a stop it goes on beside the sealing, which ends
   * with it, since the container stands still until the commit anyway. What cannot be rebuilt is not stopped.
   */
  async rehearse(signal: AbortSignal): Promise<void> {
    const { rehearsing, operation, budgetMs, frozen } = this.#parts;
    const rehearsal = rehearsing.begin({ kernel: this.kernel, fidelity: this.fidelity }, {
      signal, timeoutMs: Math.max(1, (budgetMs - frozen.frozenMs) * REHEARSAL_SHARE),
    });
    this.#rehearsal = rehearsal;
    if (!this.stop) this.#rehearsed = await rehearsal;
    else rehearsal.catch((error: unknown) => operation.cancel(this.#explain(asStasisError(error, 'the rehearsal'))));
  }

  thaw(): void {
    this.#budget?.clear();
    this.#parts.frozen.thaw();
  }

  async seal(signal: AbortSignal): Promise<void> {
    const { directories, writer, memory, layers, operation } = this.#parts;
    const onBytes = (count: number): void => operation.addBytes(count);
    const received = await memory.received();
    this.#images = await saveImages(writer, IMAGES_PREFIX, directories.images, { signal, onBytes, layers, ...(received === undefined ? {} : { received }) });
    for (const tree of this.trees) this.#treeCounts.set(tree.prefix, await tree.saver.finish({ signal }));
    if (this.stop) this.#networkLock = await readNetworkLock(directories.images);
    this.#rehearsed = await this.#rehearsal;
  }

  async writeManifest(description: Description, signal: AbortSignal): Promise<CheckpointSummary> {
    const summary = await this.writer.commit(description, { signal });
    this.#parts.mark('written');
    return summary;
  }

  /** The checkpoint stands. Throws when the container that should die for it goes on. */
  decide(): void {
    this.#budget?.clear();
    if (this.stop) {
      invariant(this.#networkLock !== undefined, 'decide before seal');
      // Before the decision: from then on the container may die without this process.
      expectLock(this.#parts.agent, this.writer.id, networkOf(this.container.pid), this.#networkLock);
      this.#parts.frozen.decide();
    }
    this.#decided = true;
    this.#parts.mark('committed');
  }

  /** Stop mode only, after the decision. What the runtime leaves undone does not undo the checkpoint. */
  async kill(): Promise<void> {
    invariant(this.#dump !== undefined, 'kill before dump');
    const { agent, container, frozen, operation } = this.#parts;
    try {
      await frozen.kill(this.#dump);
      await remove(container.at, container.id, { force: false, signal: undefined });
      await sweepContainers(agent);
    } catch (error) {
      agent.log.event('container.left', { operation_id: operation.id, container_id: container.id, err: error });
    }
    await settleLock(agent, this.writer.id);
  }

  /** criu has written its statistics by now, also when it had to wait for the commit. */
  async finish(): Promise<void> {
    const { work } = this.#parts.directories;
    // Only told to the caller: a file that criu could not write whole (a full disk) does not make the checkpoint fail.
    this.#stats = await readDumpStats(work).catch(() => undefined);
    if (!this.request.keep) removeTree(work);
    // Side by side, since each waits for the end of a process or thread; the stack then finds little left to do.
    const ending: AsyncDisposable[] = [this.#parts.frozen, this.#parts.rehearsing, this.#parts.memory, ...this.trees.map((tree) => tree.saver)];
    await Promise.all(ending.map((resource) => resource[Symbol.asyncDispose]()));
    await this.#parts.undo.disposeAsync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#undoing = true;
    this.#budget?.clear();
    await this.#parts.undo.disposeAsync();
    if (!this.#decided) await releaseLock(this.#parts.agent, this.writer.id);
  }

  /** A container that died is the cause, whatever criu had to say about it. */
  #explain<T>(error: T): T | StasisError {
    const { id, pid, pidStart } = this.container;
    if (processRuns(pid, pidStart)) return this.#parts.frozen.overdue ? budgetExceeded() : error;
    return new StasisError('CONTAINER_EXITED', `container ${id} ended while it was checkpointed`, { cause: error, hint: 'no checkpoint was made; start the container again' });
  }
}
