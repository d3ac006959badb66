/** ImportCheckpoint of the API: the caller's messages are the archive. */
import { StasisError } from '../../core/errors.ts';
import { newCheckpointId, newOperationId, parseOperationId } from '../../core/ids.ts';
import type { CallContext } from '../../rpc/api.ts';
import type { ImportCheckpointRequest, ImportEvent, ImportMessage, ImportResult } from '../../rpc/archives.ts';
import type { AgentContext } from '../context.ts';
import { podDescription } from '../description.ts';
import { follow } from '../queries/watch.ts';
import { IMPORT_STEPS, importCheckpoint, type ImportOutcome } from './import.ts';

export async function* serveImport(agent: AgentContext, messages: AsyncIterable<ImportMessage>, context: CallContext): AsyncIterable<ImportEvent> {
  const iterator = messages[Symbol.asyncIterator]();
  const first = await iterator.next();
  if (first.done === true || first.value.type !== 'start') throw new StasisError('USAGE', 'the first message of an import is its start');
  const { operation, outcome } = startImport(agent, first.value.start, archiveBytes(iterator), context);
  const leave = (): void => void operation.cancel(new StasisError('CANCELLED', 'the caller of the import went away'));
  context.signal.addEventListener('abort', leave, { once: true });
  try {
    yield* follow<ImportEvent>(agent, operation, context.signal, (progress) => ({ type: 'progress', progress }));
    yield { type: 'result', result: importResult(await outcome) };
  } finally {
    context.signal.removeEventListener('abort', leave);
    leave();
  }
}

async function* archiveBytes(messages: AsyncIterator<ImportMessage>): AsyncGenerator<Uint8Array> {
  for (let next = await messages.next(); next.done !== true; next = await messages.next()) {
    if (next.value.type !== 'data') throw new StasisError('USAGE', 'an import has one start, and then only data');
    if (next.value.data.bytes.length > 0) yield next.value.data.bytes;
  }
}

function startImport(agent: AgentContext, request: ImportCheckpointRequest, bytes: AsyncIterable<Uint8Array>, { caller }: CallContext) {
  const id = request.operationId === undefined || request.operationId === '' ? newOperationId() : parseOperationId(request.operationId);
  const checkpoint = newCheckpointId(agent.clock.now());
  const fields = { checkpoint_id: checkpoint, principal: caller.principal, reason: request.reason, source: request.source };
  return agent.operations.start<ImportOutcome>({
    id, kind: 'import', target: checkpoint, steps: IMPORT_STEPS, deadlineMs: request.deadlineMs ?? agent.settings.operationDeadlineMs,
    exclusive: `checkpoint ${checkpoint}`, slots: 'transfers', principal: caller.principal, reason: request.reason,
  }, async (operation) => {
    agent.log.event('import.started', { operation_id: operation.id, ...fields });
    try {
      const outcome = await importCheckpoint(agent, { checkpoint, source: request.source, by: caller.principal, reason: request.reason }, bytes, operation);
      const { imported } = podDescription(outcome.summary);
      agent.log.event('checkpoint.imported', { operation_id: operation.id, ...fields, sha256: imported?.sha256, archive_bytes: imported?.archiveBytes });
      return outcome;
    } catch (error) {
      agent.log.event('import.failed', { operation_id: operation.id, ...fields, err: error });
      throw error;
    }
  });
}

function importResult({ operation, summary, totalMs }: ImportOutcome): ImportResult {
  const description = podDescription(summary);
  return {
    operationId: operation, checkpoint: summary.id, lineage: summary.lineage, container: description.containers[0]?.name ?? '', engine: description.imported?.engine ?? '',
    archiveBytes: description.imported?.archiveBytes ?? 0, bytes: summary.bytes, totalMs, notIncluded: description.notSaved,
  };
}
