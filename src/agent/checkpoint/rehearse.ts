/**
 * The rehearsal of a stop: before the container dies for its checkpoint, the images just written are rebuilt in a scratch
 * place beside it, up to the point where the tasks would run, and thrown away. What cannot be rebuilt is not stopped.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { StasisError, asStasisError, isStasisError } from '../../core/errors.ts';
import type { LineageId, OperationId } from '../../core/ids.ts';
import { formatDuration } from '../../core/units.ts';
import { cgroupProcesses } from '../../host/cgroup-walk.ts';
import { RestoreGate, type GateStage } from '../../host/restore-gate.ts';
import {
  observe, putBackCgroups, putBackMounts, surroundingsOf, type FidelityRecord,
} from '../../runtime/fidelity/index.ts';
import {
  NoScratch, criuConfig, differencesInPlace, freezerOf, limitsInPlace, makePlace, networkKind, pidInPlace, putBack,
  readNetwork, rebuild, removePlace, scratchId, type KernelState, type ScratchPlace,
} from '../../runtime/index.ts';
import type { Container, Finding } from '../../runtime/types.ts';
import type { AgentContext } from '../context.ts';
import { allowedFindings, differs, lostAttributes, refusedOf } from '../differences.ts';
import { requireBack } from '../put-back.ts';
import type { CheckpointRequest } from './checkpoint.ts';
import type { RehearsalPlan } from './rehearsal-plan.ts';

export type Rehearsal = { readonly done: true; readonly ms: number } | { readonly done: false; readonly reason: string };

/** What the kernel said of the container when it stood still. */
export interface SavedState {
  readonly kernel: KernelState;
  readonly fidelity: FidelityRecord;
}

export interface RehearsalParts {
  readonly agent: AgentContext;
  readonly container: Container;
  readonly flags: CheckpointRequest['flags'];
  readonly allowDifference: readonly string[];
  readonly lineage: LineageId;
  readonly operation: OperationId;
  /** Once the dump is there: the directory of images to rebuild. Throws NoScratch. */
  readonly images: () => Promise<string>;
  /** CRIU's working directory of the operation; a directory in memory. */
  readonly directories: { readonly work: string; readonly memory: string };
  readonly plan: RehearsalPlan;
}

type Interfaces = Awaited<ReturnType<typeof readNetwork>>;

/** Each rehearsal has a directory below this one, by its operation. */
export function rehearsalsDirectory(agent: AgentContext): string {
  return join(agent.settings.runDirectory, 'rehearsals');
}

export class RehearsalOfCheckpoint implements AsyncDisposable {
  readonly #parts: RehearsalParts;
  readonly #directory: string;
  readonly #ended = new AbortController();
  #interfaces: Interfaces = [];
  #begun: Promise<Rehearsal> | undefined;
  #rebuilding: Promise<void> | undefined;
  #removed: Promise<void> | undefined;
  #findings: readonly Finding[] = [];

  constructor(parts: RehearsalParts) {
    this.#parts = parts;
    this.#directory = join(rehearsalsDirectory(parts.agent), parts.operation);
  }

  get wanted(): boolean {
    return this.#parts.plan.skipped === undefined;
  }

  /** Differences that the caller allowed. */
  get findings(): readonly Finding[] {
    return this.#findings;
  }

  /** Before the freeze: what takes time and does not change. */
  async prepare(signal: AbortSignal): Promise<void> {
    if (this.wanted && networkKind(this.#parts.container.spec) !== 'own') this.#interfaces = await readNetwork(this.#parts.container.pid, { signal });
  }

  /**
   * With every task of the container standing still and its images complete. Throws REHEARSAL_FAILED with the cause, or the
   * signal's reason. Nothing of it runs any more when this has settled, or soon after.
   */
  begin(saved: SavedState, options: { readonly signal: AbortSignal; readonly timeoutMs: number }): Promise<Rehearsal> {
    this.#begun ??= this.#run(saved, options);
    return this.#begun;
  }

  async #run(
    saved: SavedState, options: { readonly signal: AbortSignal; readonly timeoutMs: number },
  ): Promise<Rehearsal> {
    try {
      const rehearsal = await this.#attempt(saved, options);
      this.#note(rehearsal);
      return rehearsal;
    } catch (error) {
      if (isStasisError(error, 'REHEARSAL_FAILED')) this.#note(undefined);
      throw error;
    }
  }

  /** For the next stop. That it cannot be noted down only makes that one be rehearsed again. */
  #note(rehearsal: Rehearsal | undefined): void {
    const { agent, lineage, plan, container } = this.#parts;
    try {
      if (rehearsal?.done === true) agent.rehearsals.remember(lineage, plan.shape, rehearsal.ms);
      else if (rehearsal === undefined || plan.impossible || this.wanted) agent.rehearsals.forget(lineage);
    } catch (error) {
      agent.log.event('lineage.unwritten', { container_id: container.id, err: error });
    }
  }

  async #attempt(
    saved: SavedState, { signal, timeoutMs }: { readonly signal: AbortSignal; readonly timeoutMs: number },
  ): Promise<Rehearsal> {
    const { agent, container, plan: { skipped, required }, operation } = this.#parts;
    if (skipped !== undefined) return { done: false, reason: skipped };
    const started = agent.clock.monotonic();
    try {
      await this.#rebuild(saved, AbortSignal.any([signal, this.#ended.signal]), timeoutMs);
      const ms = agent.clock.monotonic() - started;
      agent.log.event('checkpoint.rehearsed', { operation_id: operation, container_id: container.id, ms });
      return { done: true, ms };
    } catch (error) {
      if (error instanceof NoScratch && !required) return { done: false, reason: error.message };
      signal.throwIfAborted();
      const failure = rehearsalFailed(container, scratchId(this.#directory), error);
      agent.log.event('checkpoint.unrehearsed', { operation_id: operation, container_id: container.id, err: failure });
      throw failure;
    } finally {
      void this.#remove().catch(() => undefined);
    }
  }

  async #rebuild(saved: SavedState, signal: AbortSignal, timeoutMs: number): Promise<void> {
    const { agent, container, flags, directories, operation, plan } = this.#parts;
    const imageDir = await this.#parts.images();
    const place = makePlace({
      container, directory: this.#directory, memory: directories.memory, interfaces: this.#interfaces,
      kernel: saved.kernel,
    });
    const workDir = join(directories.work, 'rehearsal');
    mkdirSync(workDir, { mode: 0o700 });
    const config = join(workDir, 'criu.conf');
    writeFileSync(config, criuConfig({
      timeoutSeconds: timeoutMs / 1000, ghostLimitBytes: agent.settings.ghostLimitBytes, actionScript: agent.settings.scripts.restoreHook,
      // crun has no flag for it.
      lazyPages: plan.lazy && container.at.runtime === 'crun',
    }), { mode: 0o600 });
    using gate = RestoreGate.open(join(place.directory, 'gate'));
    const ended = new AbortController();
    this.#rebuilding = rebuild({
      place, at: container.at, imageDir, workDir, lazyPages: plan.lazy && container.at.runtime === 'runc',
      flags: { ...flags, tcpClose: false }, criuConfig: config, operationId: operation,
      gateDirectory: gate.directory, cgroupNamespace: container.spec.linux?.namespaces?.some(({ type }) => type === 'cgroup') ?? false, scripts: agent.settings.scripts,
    }, agent.toolchain, { signal: AbortSignal.any([signal, ended.signal]), timeoutMs });
    try {
      const over = AbortSignal.any([signal, ended.signal]);
      await Promise.race([this.#rebuilding, this.#examine(place, saved, gate, over), this.#overdue(timeoutMs, over)]);
    } finally {
      // The end of its first process is the end of all of it.
      ended.abort(new StasisError('CANCELLED', 'the rehearsal is over'));
      this.#rebuilding.catch(() => undefined);
    }
  }

  /** Resolves when the tasks stand where they would run, and are what was saved. They are never let go. */
  async #examine(
    place: ScratchPlace, { kernel, fidelity }: SavedState, gate: RestoreGate, signal: AbortSignal,
  ): Promise<void> {
    const { agent: { failpoints }, container } = this.#parts;
    const reached = async (stage: GateStage): Promise<number> => {
      const inner = await gate.reached(stage, { signal });
      const pid = pidInPlace(place, inner);
      if (pid === undefined) throw new StasisError(
        'RESTORE_FAILED', `the rebuilt tasks of container ${container.id} ended before they could be looked at`,
        { hint: 'was one killed, for want of memory or by somebody? try again' },
      );
      return pid;
    };
    putBackMounts(fidelity, await reached('post-restore'));
    gate.allow('post-restore');
    await gate.reached('pre-resume', { signal });
    await failpoints.hit('checkpoint.rehearse.rebuilt', { signal });
    const pid = await reached('pre-resume');
    const there = { ...kernel, limits: limitsInPlace(kernel.limits) };
    requireBack(putBack(there, pid, cgroupProcesses(freezerOf(pid)?.directory ?? '')));
    this.#compare({ kernel, fidelity }, pid, place);
  }

  /** Throws RESTORE_DIFFERS with what a restore would refuse. */
  #compare({ kernel, fidelity }: SavedState, pid: number, place: ScratchPlace): void {
    const { allowDifference, directories, container: { spec } } = this.#parts;
    const surroundings = surroundingsOf(pid, {
      spec, freezer: freezerOf(pid)?.directory, given: false, network: kernel.network,
    });
    const failed = putBackCgroups(fidelity, pid, surroundings);
    if (!allowDifference.includes('cgroup')) requireBack(failed);
    const differences = [
      ...differencesInPlace(fidelity, observe(pid, 'all', surroundings), place),
      ...lostAttributes(join(directories.work, 'rehearsal')),
    ];
    const refused = refusedOf(differences, allowDifference);
    if (refused.length > 0) {
      throw differs(
        'the container would not be what was saved', refused,
        (names) => `if that is acceptable: stasis checkpoint --allow-difference ${names}, and the same again when it `
          + 'is restored',
      );
    }
    this.#findings = allowedFindings(differences);
  }

  /** The runtime is killed then, too; nobody waits until it is gone. */
  async #overdue(timeoutMs: number, signal: AbortSignal): Promise<never> {
    await this.#parts.agent.clock.sleep(timeoutMs, { signal });
    throw new StasisError('DEADLINE_EXCEEDED', `its tasks were not rebuilt within ${formatDuration(timeoutMs)}`, { hint: 'criu hangs, or the node is too busy: look at its log, or give a longer freeze budget' });
  }

  #remove(): Promise<void> {
    this.#removed ??= (this.#rebuilding ?? Promise.resolve()).catch(() => undefined).then(() => removePlace(this.#directory));
    return this.#removed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort(new StasisError('CANCELLED', 'the checkpoint is over'));
    if (this.#begun === undefined) return;
    await this.#begun.catch(() => undefined);
    await this.#remove();
  }
}

function rehearsalFailed(container: Container, id: string, error: unknown): StasisError {
  if (error instanceof NoScratch) {
    return new StasisError('REHEARSAL_FAILED', `container ${container.id} goes on: its stop cannot be rehearsed here: ${error.message}`, { cause: error, hint: 'let the rehearsal be auto or never' });
  }
  const cause = asStasisError(error, 'the rehearsal');
  return new StasisError('REHEARSAL_FAILED', `container ${container.id} goes on: a restore of this checkpoint would fail: ${cause.message.replace(`container ${id} could not be restored: `, '').replaceAll(id, container.id)}`, {
    cause, hint: cause.hint, details: { ...cause.details, code: cause.code },
  });
}

/** What a dead agent left of rehearsals: their processes died with it. */
export async function sweepRehearsal(agent: AgentContext, operation: OperationId): Promise<void> {
  await removePlace(join(rehearsalsDirectory(agent), operation));
}
