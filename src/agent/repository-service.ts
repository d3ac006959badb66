/** The part of the API that is about the repository as a whole. */
import { newOperationId, parseCheckpointId, parseOperationId, type OperationId } from '../core/ids.ts';
import type { AgentHandlers, CallContext } from '../rpc/api.ts';
import type * as api from '../rpc/api.ts';
import type { PruneReport } from '../repository/types.ts';
import type { AgentContext } from './context.ts';
import type { Operation } from './operation.ts';
import { follow } from './queries/watch.ts';
import { someProblems } from './results.ts';
import { applyRetention, type Retained } from './retention/apply.ts';

const PRUNE_STEPS = ['expire', 'prune'] as const;
const CHECK_STEPS = ['check'] as const;

type Handlers = Pick<AgentHandlers, 'pinCheckpoint' | 'repositoryStats' | 'checkRepository' | 'pruneRepository'>;

export function repositoryHandlers(agent: AgentContext): Handlers {
  return {
    pinCheckpoint: (request, context) => pin(agent, request, context),
    repositoryStats: async (_request, { signal }) => {
      const { loose, ...stats } = await agent.repository.maintenance.stats({ signal });
      return { ...stats, loosePacks: loose.packs, looseBytes: loose.bytes, quotaBytes: agent.settings.quotaBytes };
    },
    checkRepository: (request, context) => check(agent, request, context),
    pruneRepository: (request, context) => prune(agent, request, context),
  };
}

async function pin(agent: AgentContext, { checkpoint, pinned, reason }: api.PinCheckpointRequest, { caller, signal }: CallContext): Promise<api.PinCheckpointResponse> {
  const id = parseCheckpointId(checkpoint);
  const { maintenance } = agent.repository;
  if (pinned) await maintenance.pin({ checkpoint: id, by: caller.principal, reason, atMs: agent.clock.now() }, { signal });
  else await maintenance.unpin(id, { signal });
  agent.log.event('checkpoint.pinned', { checkpoint_id: id, pinned, principal: caller.principal, reason });
  return { checkpoint, pinned };
}

export function operationId(wanted: string | undefined): OperationId {
  return wanted === undefined || wanted === '' ? newOperationId() : parseOperationId(wanted);
}

/** Tells how far it is in numbers of things, where there are no bytes to count. */
export function countInto(operation: Operation): (done: number, total: number) => void {
  let counted = 0;
  return (done, total) => {
    if (counted === 0) operation.expectBytes(total);
    operation.addBytes(done - counted);
    counted = done;
  };
}

async function* check(agent: AgentContext, request: api.CheckRepositoryRequest, context: CallContext): AsyncIterable<api.CheckRepositoryEvent> {
  const started = agent.clock.monotonic();
  const { operation, outcome } = agent.operations.start({
    id: operationId(request.operationId), kind: 'check', target: 'repository', steps: CHECK_STEPS, deadlineMs: request.deadlineMs ?? agent.settings.operationDeadlineMs,
    exclusive: 'check of the repository', principal: context.caller.principal, reason: '',
  }, (running) => running.step('check', (signal) => agent.repository.maintenance.check({ signal, readData: request.readData, onCheckpoint: countInto(running) })));
  yield* follow<api.CheckRepositoryEvent>(agent, operation, context.signal, (progress) => ({ type: 'progress', progress }));
  const { loose, ...report } = await outcome;
  for (const { object, code, message } of someProblems(report.problems)) agent.log.event('repository.problem', { object, code, message });
  yield { type: 'report', report: { ...report, problems: someProblems(report.problems), loosePacks: loose.packs, looseBytes: loose.bytes, totalMs: agent.clock.monotonic() - started } };
}

async function* prune(agent: AgentContext, request: api.PruneRepositoryRequest, context: CallContext): AsyncIterable<api.PruneRepositoryEvent> {
  const started = agent.clock.monotonic();
  const { dryRun } = request;
  const { operation, outcome } = agent.operations.start({
    id: operationId(request.operationId), kind: 'prune', target: 'repository', steps: PRUNE_STEPS, deadlineMs: request.deadlineMs ?? agent.settings.operationDeadlineMs,
    exclusive: 'prune of the repository', principal: context.caller.principal, reason: request.reason,
  }, async (running) => {
    const retained = await running.step('expire', (signal) => applyRetention(agent, { dryRun, signal }));
    const pruned = await running.step('prune', (signal) => agent.repository.maintenance.prune({ signal, dryRun, onLineage: countInto(running) }));
    return { retained, pruned };
  });
  yield* follow<api.PruneRepositoryEvent>(agent, operation, context.signal, (progress) => ({ type: 'progress', progress }));
  const { retained, pruned } = await outcome;
  const report = pruneReport(dryRun, retained, pruned, agent.clock.monotonic() - started);
  agent.log.event('repository.pruned', { principal: context.caller.principal, ...report, expired: report.expired.length });
  yield { type: 'report', report };
}

function pruneReport(dryRun: boolean, { expired, problems }: Retained, pruned: PruneReport, totalMs: number): api.PruneRepositoryReport {
  return { ...pruned, dryRun, expired: expired.map(({ id, reason, storedBytes }) => ({ checkpoint: id, reason, storedBytes })), problems: someProblems(problems), totalMs };
}
