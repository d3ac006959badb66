/**
 * Checkpoint of a running container: the whole operation as a list of steps.
 *
 *   examine     is it possible, and what would be lost? nothing is touched
 *   prepare     space reserved, memory warmed, journal written, guard armed
 *   read-ahead  files are read and stored while the container runs
 *   pre-dump    where the kernel tracks written pages: memory is read and stored while the container runs
 *   freeze      every task stands still
 *   dump        criu writes memory and state; what changed in the files since is read again
 *   rehearse    the images are rebuilt in a scratch place, up to the point where the tasks would run; of a stop while they are sealed
 *   thaw        the container goes on (not when it shall stop)
 *   seal        images become sealed chunks in packs
 *   commit      all packs durable, then the manifest: the checkpoint exists. A container that shall stop dies now
 *   finish      clean up
 */
import { StasisError } from '../../core/errors.ts';
import type { OperationId } from '../../core/ids.ts';
import type { CheckpointSummary } from '../../repository/types.ts';
import type { CheckpointFlags, Container, DumpStats, Finding, Verdict } from '../../runtime/types.ts';
import { examine } from '../../runtime/index.ts';
import type { AgentContext } from '../context.ts';
import { rememberLineage } from '../lineages.ts';
import type { Operation, Phase } from '../operation.ts';
import { secretsOf } from '../secrets.ts';
import { expireAfterCheckpoint } from '../retention/apply.ts';
import { describe } from './describe.ts';
import type { PreDumpMode, PreDumped } from './pre-dump.ts';
import type { Rehearsal } from './rehearse.ts';
import type { RehearsalMode } from './rehearsal-plan.ts';
import { prepareCheckpoint, type PreparedCheckpoint } from './prepare.ts';

export const CHECKPOINT_STEPS = ['examine', 'prepare', 'read-ahead', 'pre-dump', 'freeze', 'dump', 'rehearse', 'thaw', 'seal', 'commit', 'finish'] as const;

export interface CheckpointRequest {
  readonly flags: CheckpointFlags;
  readonly memoryPath: 'auto' | 'directory' | 'page-server';
  /** Undefined: as configured. */
  readonly preDump: PreDumpMode | undefined;
  /** Undefined: as configured. */
  readonly rehearsal: RehearsalMode | undefined;
  /** Attributes of docs/FIDELITY.md in which a rehearsal may differ. */
  readonly allowDifference: readonly string[];
  /** Undefined: the configured one. */
  readonly freezeBudgetMs: number | undefined;
  /** Who asked and why, for the provenance. */
  readonly by: string;
  readonly reason: string;
  /** Do not continue the container's lineage. */
  readonly newLineage: boolean;
  /** Keep CRIU's log and configuration after a success, too. */
  readonly keep: boolean;
}

export interface CheckpointOutcome {
  readonly summary: CheckpointSummary;
  readonly operation: OperationId;
  readonly phases: readonly Phase[];
  readonly frozenMs: number;
  readonly totalMs: number;
  readonly memoryPath: 'directory' | 'page-server';
  readonly preDumped: PreDumped;
  readonly rehearsal: Rehearsal;
  readonly stats: DumpStats | undefined;
  readonly findings: readonly Finding[];
  readonly notSaved: readonly string[];
}

export async function checkpoint(agent: AgentContext, container: Container, request: CheckpointRequest, operation: Operation): Promise<CheckpointOutcome> {
  const started = agent.clock.monotonic();
  operation.hide(secretsOf(container.spec));
  const verdict = await operation.step('examine', (signal) => examineOrRefuse(agent, container, request.flags, signal));
  await using prepared = await operation.step('prepare', (signal) => prepareCheckpoint(agent, container, verdict, request, operation, signal));
  await operation.step('read-ahead', (signal) => prepared.readAhead(signal));
  await operation.step('pre-dump', (signal) => prepared.preDump(signal));
  await operation.step('freeze', (signal) => prepared.freeze(signal));
  agent.log.event('checkpoint.frozen', { operation_id: operation.id, container_id: container.id });
  await operation.step('dump', (signal) => prepared.dump(signal));
  await operation.step('rehearse', (signal) => prepared.rehearse(signal));
  if (request.flags.leaveRunning) await operation.step('thaw', async () => prepared.thaw());
  await operation.step('seal', (signal) => prepared.seal(signal));
  const summary = await operation.step('commit', (signal) => commit(agent, prepared, operation, signal));
  await operation.step('finish', () => prepared.finish());
  rememberLineage(agent, container, { lineage: summary.lineage, last: summary.id });
  await rememberTrees(agent, container, prepared, summary.id);
  agent.quota.wrote(summary.bytes.stored);
  expireAfterCheckpoint(agent, summary.lineage);
  return {
    summary, operation: operation.id, phases: operation.phases, frozenMs: prepared.frozenMs, totalMs: agent.clock.monotonic() - started,
    memoryPath: prepared.memoryPath, preDumped: prepared.preDumped, rehearsal: prepared.rehearsal,
    stats: prepared.stats, findings: [...prepared.findings, ...prepared.rehearsed], notSaved: prepared.notSaved,
  };
}

async function examineOrRefuse(agent: AgentContext, container: Container, flags: CheckpointFlags, signal: AbortSignal): Promise<Verdict> {
  const verdict = await examine(container, agent.toolchain, flags, { signal, ghostLimitBytes: agent.settings.ghostLimitBytes });
  const fatal = verdict.findings.filter((finding) => finding.severity === 'fatal');
  const first = fatal[0];
  if (first !== undefined) {
    const others = fatal.slice(1).map((finding) => `; also: ${finding.message}`).join('');
    throw new StasisError('NOT_CHECKPOINTABLE', `container ${container.id} cannot be checkpointed: ${first.message}${others}`, {
      hint: first.hint, details: { kind: first.kind, findings: fatal.length },
    });
  }
  return verdict;
}

/** For a checkpoint that is made: that something cannot be noted down (a full disk) only makes the next one read more. */
async function rememberTrees(agent: AgentContext, container: Container, prepared: PreparedCheckpoint, checkpoint: CheckpointSummary['id']): Promise<void> {
  for (const { prefix } of prepared.trees) {
    const { memory } = prepared.treeCounts(prefix);
    if (memory === undefined) continue;
    try {
      await agent.treeMemories.store(container, prefix, checkpoint, memory);
    } catch (error) {
      agent.log.event('trees.unwritten', { container_id: container.id, err: error });
    }
  }
}

/**
 * The manifest first, then the decision. If anything comes between the two (the guard was faster, criu was killed, a
 * cancel) the container goes on, and the manifest is taken back with the rest: the operation has failed and must not
 * leave a checkpoint that nobody knows of. After the decision nothing undoes it.
 */
async function commit(agent: AgentContext, prepared: PreparedCheckpoint, operation: Operation, signal: AbortSignal): Promise<CheckpointSummary> {
  const summary = await prepared.writeManifest(describe(agent, prepared, operation), signal);
  await agent.failpoints.hit('checkpoint.commit.manifest', { signal });
  operation.settle();
  prepared.decide();
  await agent.failpoints.hit('checkpoint.commit.decided', { signal: undefined });
  if (prepared.stop) await prepared.kill();
  return summary;
}
