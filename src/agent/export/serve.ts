/** ExportCheckpoint of the API: the operation writes, the stream of the call carries it away. */
import { StasisError } from '../../core/errors.ts';
import { newOperationId, parseCheckpointId, parseOperationId } from '../../core/ids.ts';
import type { CallContext } from '../../rpc/api.ts';
import type { ExportCheckpointRequest, ExportEvent } from '../../rpc/archives.ts';
import type { AgentContext } from '../context.ts';
import { Handover } from '../handover.ts';
import { progressInfo } from '../results.ts';
import { EXPORT_STEPS, exportCheckpoint, type ExportOutcome } from './export.ts';

/** Messages of 1 MiB that wait for a slow caller. */
const WAITING_MESSAGES = 4;
const PROGRESS_MS = 200;

export async function* serveExport(agent: AgentContext, request: ExportCheckpointRequest, context: CallContext): AsyncIterable<ExportEvent> {
  const checkpoint = parseCheckpointId(request.checkpoint);
  if (!request.acceptPlaintext) {
    throw new StasisError('PERMISSION_DENIED', `the export of checkpoint ${checkpoint} would be plaintext, and the request does not accept that`, {
      hint: 'the archive holds the memory of the container with every key and password in it: stasis export --accept-plaintext, if that is wanted',
    });
  }
  const { caller, signal } = context;
  const out = new Handover<Buffer>(WAITING_MESSAGES);
  const fields = { checkpoint_id: checkpoint, principal: caller.principal, reason: request.reason };
  const { operation, outcome } = agent.operations.start<ExportOutcome>({
    id: request.operationId === undefined || request.operationId === '' ? newOperationId() : freshId(agent, request.operationId), kind: 'export', target: checkpoint, steps: EXPORT_STEPS,
    deadlineMs: request.deadlineMs ?? agent.settings.operationDeadlineMs, exclusive: `export ${checkpoint} ${caller.principal}`, slots: 'transfers', principal: caller.principal, reason: request.reason,
  }, async (started) => {
    agent.log.event('export.started', { operation_id: started.id, ...fields });
    try {
      const done = await exportCheckpoint(agent, { checkpoint, image: request.image === '' ? undefined : request.image }, started, out);
      agent.log.event('checkpoint.exported', { operation_id: started.id, ...fields, bytes: done.bytes, plaintext: true });
      return done;
    } catch (error) {
      agent.log.event('export.failed', { operation_id: started.id, ...fields, err: error });
      throw error;
    }
  });
  void outcome.catch(() => undefined).finally(() => out.end());
  const leave = (): void => void operation.cancel(new StasisError('CANCELLED', 'the caller of the export went away'));
  signal.addEventListener('abort', leave, { once: true });
  try {
    let told = -Infinity;
    for await (const bytes of out) {
      const now = agent.clock.monotonic();
      if (now - told >= PROGRESS_MS) yield { type: 'progress', progress: progressInfo(operation.status(), agent.clock.now()) };
      if (now - told >= PROGRESS_MS) told = now;
      yield { type: 'data', data: { bytes } };
    }
    const { operation: operationId, bytes, totalMs, notIncluded } = await outcome;
    yield { type: 'result', result: { operationId, checkpoint, bytes, totalMs, notIncluded } };
  } finally {
    signal.removeEventListener('abort', leave);
    leave();
  }
}

/** Its bytes went to the first caller: an export cannot be joined. */
function freshId(agent: AgentContext, text: string): ReturnType<typeof parseOperationId> {
  const id = parseOperationId(text);
  if (agent.operations.join(id, 'export', '') !== undefined) throw new StasisError('USAGE', `operation id ${id} was used before`, { hint: 'choose a new operation id for each request' });
  return id;
}
