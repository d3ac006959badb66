/** What is in the repository, for list and inspect. */
import { StasisError, asStasisError } from '../../core/errors.ts';
import { parseCheckpointId } from '../../core/ids.ts';
import type * as api from '../../rpc/api.ts';
import type { CheckpointSummary } from '../../repository/types.ts';
import type { AgentContext } from '../context.ts';
import { podDescription } from '../description.ts';
import { checkpointInfo, someProblems } from '../results.ts';
import { shownDescription } from './shown.ts';

/** As the API says: such a page fits into one message, reasons and names being bounded. */
const MAX_PAGE = 500;

/** Newest first, in pages; the token is the last id of the page before. Ids sort by time. */
export async function listCheckpoints(agent: AgentContext, request: api.ListCheckpointsRequest, { signal }: api.CallContext): Promise<api.ListCheckpointsResponse> {
  const pageSize = Math.min(request.pageSize > 0 ? request.pageSize : MAX_PAGE, MAX_PAGE);
  const before = request.pageToken === '' ? undefined : parseCheckpointId(request.pageToken);
  const problems: api.Problem[] = [];
  const onProblem = (object: string, error: unknown): void => {
    const { code, message } = asStasisError(error, object);
    problems.push({ object, code, message });
  };
  const found: CheckpointSummary[] = [];
  for await (const summary of agent.repository.list({ signal, onProblem })) {
    if ((before === undefined || summary.id < before) && matches(summary, request, onProblem)) found.push(summary);
  }
  const pins = new Set<string>((await agent.repository.maintenance.pins({ signal })).map(({ checkpoint }) => checkpoint));
  const page = found.sort((a, b) => (a.id < b.id ? 1 : -1)).slice(0, pageSize);
  return { checkpoints: page.map((summary) => checkpointInfo(summary, pins)), problems: someProblems(problems), nextPageToken: found.length > pageSize ? (page.at(-1)?.id ?? '') : '' };
}

function matches(summary: CheckpointSummary, request: api.ListCheckpointsRequest, onProblem: (object: string, error: unknown) => void): boolean {
  try {
    const { containers } = podDescription(summary);
    if (request.lineage !== undefined && request.lineage !== '' && summary.lineage !== request.lineage) return false;
    return request.container === undefined || request.container === '' || containers.some(({ id, name }) => id === request.container || name === request.container);
  } catch (error) {
    onProblem(`manifests/${summary.id}`, error);
    return false;
  }
}

/** `latest` of a container would be ambiguous across nodes, so an id is asked for; a unique beginning is enough. */
export async function resolveCheckpoint(agent: AgentContext, text: string, signal: AbortSignal): Promise<CheckpointSummary> {
  if (text.length === 20) return (await agent.repository.open(parseCheckpointId(text), { signal })).summary;
  const found: CheckpointSummary[] = [];
  for await (const summary of agent.repository.list({ signal })) if (text !== '' && summary.id.startsWith(text)) found.push(summary);
  const only = found[0];
  if (only === undefined) throw new StasisError('CHECKPOINT_NOT_FOUND', `no checkpoint begins with ${JSON.stringify(text)}`, { hint: 'stasis list shows all' });
  if (found.length > 1) throw new StasisError('USAGE', `${found.length} checkpoints begin with ${JSON.stringify(text)}`, { hint: 'write more of the id' });
  return only;
}

export async function inspectCheckpoint(agent: AgentContext, request: api.InspectCheckpointRequest, { signal, caller }: api.CallContext): Promise<api.CheckpointDetail> {
  const { id } = await resolveCheckpoint(agent, request.checkpoint, signal);
  const reader = await agent.repository.open(id, { signal });
  const description = podDescription(reader.summary);
  const { provenance } = description;
  return {
    info: checkpointInfo(reader.summary, new Set((await agent.repository.maintenance.pins({ signal })).map(({ checkpoint }) => checkpoint))), phases: description.phases, findings: description.findings, notIncluded: description.notSaved,
    provenance: {
      agentVersion: provenance.stasis, criuVersion: provenance.criu, runtimeVersion: description.containers[0]?.runtimeVersion ?? '', kernel: provenance.kernel,
      architecture: provenance.architecture, cpuModel: provenance.cpu.model, cpuFeatures: provenance.cpu.features,
      ...(provenance.image === undefined ? {} : { imageDigest: provenance.image }),
    },
    blobs: [...reader.blobs].map(([name, length]) => ({ name, length })),
    // Who may restore or export it gets at everything anyway.
    descriptionJson: JSON.stringify(caller.roles.has('restorer') ? description : shownDescription(description)),
  };
}
