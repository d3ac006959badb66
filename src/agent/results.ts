/** The agent's own types in the words of the API. */
import type * as api from '../rpc/api.ts';
import { errorInfo } from '../rpc/status.ts';
import type { CheckpointSummary } from '../repository/types.ts';
import type { CheckpointOutcome } from './checkpoint/checkpoint.ts';
import { podDescription } from './description.ts';
import type { OperationStatus } from './operation.ts';
import type { RestoreOutcome } from './restore/restore.ts';

export function checkpointResult(outcome: CheckpointOutcome): api.CheckpointResult {
  const { summary } = outcome;
  const { raw, stored } = summary.bytes;
  return {
    operationId: outcome.operation, checkpoint: summary.id, lineage: summary.lineage, container: podDescription(summary).containers[0]?.id ?? '',
    phases: outcome.phases, frozenMs: outcome.frozenMs, totalMs: outcome.totalMs, bytes: summary.bytes,
    ratio: stored === 0 ? 0 : raw / stored, bytesPerSecond: rate(raw, outcome.totalMs), memoryPath: outcome.memoryPath,
    findings: outcome.findings, notIncluded: outcome.notSaved, leftRunning: podDescription(summary).mode === 'leave-running', cipher: summary.cipher,
    rehearsal: outcome.rehearsal.done ? outcome.rehearsal : { ...outcome.rehearsal, ms: 0 },
    preDumpRounds: outcome.preDumped.rounds, ...(outcome.preDumped.plain === undefined ? {} : { plainBecause: outcome.preDumped.plain }),
  };
}

export function restoreResult(outcome: RestoreOutcome): api.RestoreResult {
  const { container } = outcome;
  return {
    operationId: outcome.operation, checkpoint: outcome.checkpoint, container: container.id, runtime: container.at.runtime, bundle: container.bundle,
    pid: container.pid, phases: outcome.phases, totalMs: outcome.totalMs, bytes: outcome.bytes, bytesRead: outcome.storedBytes,
    bytesPerSecond: rate(outcome.bytes, outcome.totalMs), findings: outcome.findings, lazyBytes: outcome.fill?.totalBytes ?? 0,
    ...(outcome.lazyReason === undefined ? {} : { lazyReason: outcome.lazyReason }),
    ...(outcome.fill === undefined ? {} : { fillOperationId: outcome.fill.operation }),
    ...(outcome.downtimeMs === undefined ? {} : { downtimeMs: outcome.downtimeMs }),
  };
}

/** A store may make up damaged objects without end: so many are named, and the rest is counted. */
const MAX_PROBLEMS = 1000;
const MAX_PROBLEM_TEXT = 1000;

export function someProblems(problems: readonly api.Problem[]): readonly api.Problem[] {
  const named = problems.slice(0, MAX_PROBLEMS).map(({ object, code, message }) => ({ object: object.slice(0, MAX_PROBLEM_TEXT), code, message: message.slice(0, MAX_PROBLEM_TEXT) }));
  const more = problems.length - named.length;
  return more === 0 ? named : [...named, { object: '', code: 'LIMIT_EXCEEDED', message: `${more} more problems are not named` }];
}

/** Of requests from before there was a bound. */
const MAX_REASON = 1024;

export function rate(bytes: number, ms: number): number {
  return ms <= 0 ? 0 : Math.round((bytes * 1000) / ms);
}

export function checkpointInfo(summary: CheckpointSummary, pins: ReadonlySet<string>): api.CheckpointInfo {
  const description = podDescription(summary);
  return {
    id: summary.id, lineage: summary.lineage, createdMs: summary.createdMs, node: description.provenance.node,
    containers: description.containers.map(({ id, name, runtime, manager, rootfs }) => ({ id, name, runtime, manager, rootfs: rootfs.layout.kind })),
    reason: description.provenance.reason.slice(0, MAX_REASON), principal: description.provenance.by, cipher: summary.cipher, signer: summary.signer, bytes: summary.bytes,
    frozenMs: description.frozenMs, leftRunning: description.mode === 'leave-running', imported: description.imported !== undefined, pinned: pins.has(summary.id),
    ...(description.provenance.parent === undefined ? {} : { parent: description.provenance.parent }),
  };
}

export function progressInfo(status: OperationStatus, nowMs: number): api.Progress {
  const elapsedMs = (status.endedMs ?? nowMs) - status.startedMs;
  return {
    operationId: status.id, kind: status.kind, step: status.step, stepNumber: status.stepNumber, stepCount: status.stepCount,
    bytesDone: status.bytesDone, bytesTotal: status.bytesTotal, bytesPerSecond: rate(status.bytesDone, elapsedMs), elapsedMs,
    frozen: status.state === 'running' && ['freeze', 'dump', 'rehearse'].includes(status.step),
  };
}

export function operationInfo(status: OperationStatus, nowMs = status.endedMs ?? status.startedMs): api.Operation {
  const restoring = status.kind !== 'checkpoint' && status.kind !== 'fill';
  return {
    id: status.id, kind: status.kind, state: status.stepNumber === 0 && status.state === 'running' ? 'queued' : status.state,
    container: restoring ? '' : status.target, checkpoint: restoring ? status.target : '', principal: status.principal, reason: status.reason,
    startedMs: status.startedMs, progress: progressInfo(status, nowMs),
    ...(status.endedMs === undefined ? {} : { finishedMs: status.endedMs }),
    ...(status.error === undefined ? {} : { error: errorInfo(status.error) }),
  };
}
