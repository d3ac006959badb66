/** The API of the agent: requests become operations, their progress and outcome become events. */
import { isAbsolute } from 'node:path';
import { LONGEST_TIMER_MS } from '../core/clock.ts';
import { StasisError, isStasisError } from '../core/errors.ts';
import { newOperationId, parseCheckpointId, parseOperationId, type OperationId } from '../core/ids.ts';
import type { AgentHandlers, CallContext, Caller, CheckpointEvent, RestoreEvent, VerifyEvent } from '../rpc/api.ts';
import type * as api from '../rpc/api.ts';
import { findContainer } from '../runtime/index.ts';
import type { Container, RuntimeName } from '../runtime/types.ts';
import { CHECKPOINT_STEPS, checkpoint, type CheckpointOutcome } from './checkpoint/checkpoint.ts';
import type { AgentContext } from './context.ts';
import type { Operation } from './operation.ts';
import type { Started } from './operations.ts';
import { inspectCheckpoint, listCheckpoints } from './queries/checkpoints.ts';
import { listContainerInfos } from './queries/containers.ts';
import { nodeInfo } from './queries/node.ts';
import { serveExport } from './export/serve.ts';
import { serveImport } from './import/serve.ts';
import { follow, watchOperations } from './queries/watch.ts';
import { keysHandlers } from './keys-service.ts';
import { releaseLock } from './network-locks.ts';
import { repositoryHandlers } from './repository-service.ts';
import { RESTORE_STEPS, restore, type RestoreOutcome } from './restore/restore.ts';
import { knownAttributes } from './differences.ts';
import { sweepContainers } from './restore/container-directory.ts';
import { checkpointResult, operationInfo, restoreResult, someProblems } from './results.ts';

const VERIFY_STEPS = ['read'] as const;
const DELETE_STEPS = ['delete'] as const;

export function agentHandlers(agent: AgentContext): AgentHandlers {
  return {
    checkpoint: (request, context) => serveCheckpoint(agent, request, context),
    restore: (request, context) => serveRestore(agent, request, context),
    verifyCheckpoint: (request, context) => serveVerify(agent, request, context),
    deleteCheckpoint: async (request, context) => {
      await startDelete(agent, request, context).outcome;
      return { checkpoint: request.checkpoint };
    },
    listContainers: (request, context) => listContainerInfos(agent, request, context),
    listCheckpoints: (request, context) => listCheckpoints(agent, request, context),
    inspectCheckpoint: (request, context) => inspectCheckpoint(agent, request, context),
    watchOperations: (request, context) => watchOperations(agent, request, context),
    cancelOperation: async (request, context) => {
      const operation = agent.operations.get(parseOperationId(request.operationId));
      requireOwn(operation, context.caller);
      operation.cancel(new StasisError('CANCELLED', `cancelled by ${context.caller.principal}`));
      agent.log.event('operation.cancelled', { operation_id: operation.id, principal: context.caller.principal });
      return operationInfo(operation.status());
    },
    getNode: (_request, context) => nodeInfo(agent, context),
    exportCheckpoint: (request, context) => serveExport(agent, request, context),
    importCheckpoint: (messages, context) => serveImport(agent, messages, context),
    ...repositoryHandlers(agent),
    ...keysHandlers(agent),
    probeStore: async (_request, { signal, caller }) => {
      const report = await agent.probeStore({ signal });
      agent.log.event('repository.probed', { repository: report.store, usable: report.usable, principal: caller.principal });
      return report;
    },
  };
}

/** Work is ended by who asked for it, or by an operator. */
function requireOwn(operation: Operation, { principal, roles }: Caller): void {
  const owner = operation.status().principal;
  if (owner === principal || roles.has('operator')) return;
  throw new StasisError('PERMISSION_DENIED', `${JSON.stringify(principal)} may not cancel operation ${operation.id} of ${JSON.stringify(owner)}`, {
    hint: 'ask whoever started it, or an operator (a certificate with OU=operator)', details: { operation: operation.id, principal },
  });
}

function operationId(wanted: string | undefined): OperationId {
  return wanted === undefined || wanted === '' ? newOperationId() : parseOperationId(wanted);
}

async function* serveCheckpoint(agent: AgentContext, request: api.CheckpointRequest, context: CallContext): AsyncIterable<CheckpointEvent> {
  const started = await startCheckpoint(agent, request, context);
  yield* follow<CheckpointEvent>(agent, started.operation, context.signal, (progress) => ({ type: 'progress', progress }));
  yield { type: 'result', result: checkpointResult(await started.outcome) };
}

async function startCheckpoint(agent: AgentContext, request: api.CheckpointRequest, { caller, signal }: CallContext): Promise<Started<CheckpointOutcome>> {
  const id = operationId(request.operationId);
  const joined = agent.operations.join<CheckpointOutcome>(id, 'checkpoint', request.container);
  if (joined !== undefined) return joined;
  requireBudget(request.freezeBudgetMs);
  const allowDifference = knownAttributes(request.allowDifference ?? []);
  const container = await findContainer(agent.roots, request.container, { signal, ...(request.runtime === undefined ? {} : { runtime: request.runtime as RuntimeName }) });
  requireRunning(container);
  agent.fills.requireFilled(container);
  const flags = {
    leaveRunning: request.leaveRunning, tcpEstablished: request.tcpEstablished, fileLocks: request.fileLocks,
    extUnixSk: request.extUnixSk, shellJob: request.shellJob, tcpSkipInFlight: request.tcpSkipInFlight === true,
  };
  return agent.operations.start({
    id, kind: 'checkpoint', target: request.container, steps: CHECKPOINT_STEPS, deadlineMs: request.deadlineMs ?? agent.settings.operationDeadlineMs,
    exclusive: `container ${container.at.root}/${container.id}`, principal: caller.principal, reason: request.reason,
  }, logged(agent, 'checkpoint', { container_id: container.id, principal: caller.principal, reason: request.reason }, (operation) => checkpoint(agent, container, {
    flags, memoryPath: request.memoryPath ?? 'auto', preDump: request.preDump, rehearsal: request.rehearsal, freezeBudgetMs: request.freezeBudgetMs, by: caller.principal, reason: request.reason,
    newLineage: request.newLineage, keep: request.keep, allowDifference,
  }, operation)));
}

/** The guard's timer has to keep it. */
function requireBudget(ms: number | undefined): void {
  if (ms === undefined || (ms > 0 && ms <= LONGEST_TIMER_MS)) return;
  throw new StasisError('USAGE', `a freeze budget of ${ms} ms cannot be kept`, { hint: 'give more than 0 and at most 24 days, or none for the configured one' });
}

function requireRunning(container: Container): void {
  if (container.status === 'running' || container.status === 'paused') return;
  throw new StasisError('NOT_CHECKPOINTABLE', `container ${container.id} is ${container.status}`, { hint: 'only a running or paused container has something to save' });
}

async function* serveRestore(agent: AgentContext, request: api.RestoreRequest, context: CallContext): AsyncIterable<RestoreEvent> {
  const { operation, outcome } = startRestore(agent, request, context);
  yield* follow<RestoreEvent>(agent, operation, context.signal, (progress) => ({ type: 'progress', progress }));
  yield { type: 'result', result: restoreResult(await outcome) };
}

function startRestore(agent: AgentContext, request: api.RestoreRequest, { caller }: CallContext): Started<RestoreOutcome> {
  const id = operationId(request.operationId);
  const joined = agent.operations.join<RestoreOutcome>(id, 'restore', request.checkpoint);
  if (joined !== undefined) return joined;
  const checkpointId = parseCheckpointId(request.checkpoint);
  if (request.runtime !== undefined && request.runtime !== 'runc' && request.runtime !== 'crun') {
    throw new StasisError('USAGE', `${JSON.stringify(request.runtime)} is not a runtime`, { hint: 'choose runc or crun' });
  }
  if (request.bundle !== undefined && !isAbsolute(request.bundle)) {
    throw new StasisError('USAGE', `the bundle ${JSON.stringify(request.bundle.slice(0, 80))} is not an absolute path`, { hint: 'give the path from the root of the node' });
  }
  return agent.operations.start({
    id, kind: 'restore', target: request.checkpoint, steps: RESTORE_STEPS, deadlineMs: request.deadlineMs ?? agent.settings.operationDeadlineMs,
    exclusive: request.container === undefined ? `checkpoint ${checkpointId}` : `restore as ${request.container}`, principal: caller.principal, reason: request.reason,
  }, logged(agent, 'restore', { checkpoint_id: checkpointId, principal: caller.principal, reason: request.reason }, async (operation) => {
    await sweepContainers(agent);
    return restore(agent, {
      checkpoint: checkpointId, container: request.container, bundle: request.bundle, runtime: request.runtime as RuntimeName | undefined,
      lazy: request.lazy ?? 'never', by: caller.principal, reason: request.reason, clone: request.clone, ignoreCompatibility: request.ignoreCompatibility, keep: request.keep, allowDifference: knownAttributes(request.allowDifference ?? []),
      flags: { tcpEstablished: request.tcpEstablished, tcpClose: request.tcpClose, fileLocks: request.fileLocks, extUnixSk: request.extUnixSk, shellJob: request.shellJob },
    }, operation);
  }));
}

async function* serveVerify(agent: AgentContext, request: api.VerifyCheckpointRequest, context: CallContext): AsyncIterable<VerifyEvent> {
  const checkpointId = parseCheckpointId(request.checkpoint);
  const started = agent.clock.monotonic();
  const { operation, outcome } = agent.operations.start({
    id: operationId(request.operationId), kind: 'verify', target: checkpointId, steps: VERIFY_STEPS, deadlineMs: request.deadlineMs ?? agent.settings.operationDeadlineMs,
    exclusive: `verify ${checkpointId}`, principal: context.caller.principal, reason: '',
  }, (operation) => operation.step('read', (signal) => {
    let expected = false;
    return agent.repository.verify(checkpointId, {
      signal,
      onBytes: (count, total) => {
        if (!expected) operation.expectBytes(total);
        expected = true;
        operation.addBytes(count);
      },
    });
  }));
  yield* follow<VerifyEvent>(agent, operation, context.signal, (progress) => ({ type: 'progress', progress }));
  const report = await outcome;
  agent.log.event('checkpoint.verified', { checkpoint_id: checkpointId, problems: report.problems.length });
  yield { type: 'report', report: { ...report, problems: someProblems(report.problems), checkpoint: report.id, ok: report.problems.length === 0, totalMs: agent.clock.monotonic() - started } };
}

function startDelete(agent: AgentContext, request: api.DeleteCheckpointRequest, { caller }: CallContext): Started<void> {
  const checkpointId = parseCheckpointId(request.checkpoint);
  const id = operationId(request.operationId);
  const joined = agent.operations.join<void>(id, 'delete', checkpointId);
  if (joined !== undefined) return joined;
  const reading = agent.operations.list().find(({ state, kind, target }) => state === 'running' && target === checkpointId && kind !== 'delete');
  if (reading !== undefined) {
    throw new StasisError('CHECKPOINT_IN_USE', `operation ${reading.id} (${reading.kind}) reads checkpoint ${checkpointId}`, { hint: `wait for it, or cancel it: stasis cancel ${reading.id}` });
  }
  agent.fills.requireUnused(checkpointId);
  return agent.operations.start({
    id, kind: 'delete', target: checkpointId, steps: DELETE_STEPS, deadlineMs: agent.settings.operationDeadlineMs,
    exclusive: `checkpoint ${checkpointId}`, principal: caller.principal, reason: request.reason,
  }, (operation) => operation.step('delete', async (signal) => {
    await agent.repository.delete(checkpointId, { signal });
    await releaseLock(agent, checkpointId);
    agent.log.event('checkpoint.deleted', { checkpoint_id: checkpointId, principal: caller.principal, reason: request.reason });
  }));
}

/** The one place where beginning, end and failure of an operation are logged. */
function logged<T>(agent: AgentContext, kind: 'checkpoint' | 'restore', fields: Record<string, unknown>, body: (operation: Operation) => Promise<T>) {
  return async (operation: Operation): Promise<T> => {
    agent.log.event(`${kind}.started`, { operation_id: operation.id, ...fields });
    try {
      const result = await body(operation);
      agent.log.event(`${kind}.finished`, { operation_id: operation.id, ...fields, phases: operation.phases });
      return result;
    } catch (error) {
      const refused = kind === 'checkpoint' && isStasisError(error, 'NOT_CHECKPOINTABLE');
      agent.log.event(refused ? 'checkpoint.refused' : `${kind}.failed`, { operation_id: operation.id, ...fields, err: error });
      throw error;
    }
  };
}
