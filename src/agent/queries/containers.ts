/** Containers of this node, each with a verdict: can it be checkpointed, and if not, why. */
import { asStasisError } from '../../core/errors.ts';
import type * as api from '../../rpc/api.ts';
import { examine, findContainer, listContainers } from '../../runtime/index.ts';
import type { Container, Verdict } from '../../runtime/types.ts';
import type { AgentContext } from '../context.ts';

/** What a caller who gave no options would get; TCP connections and locks can be had by asking, so they do not count against. */
const askedFor = { leaveRunning: true, tcpEstablished: true, fileLocks: true, extUnixSk: false, shellJob: false };

export async function listContainerInfos(agent: AgentContext, request: api.ListContainersRequest, { signal }: api.CallContext): Promise<api.ListContainersResponse> {
  const named = request.container !== undefined && request.container !== '';
  const found = named ? [await findContainer(agent.roots, request.container ?? '', { signal })] : (await listContainers(agent.roots, { signal })).containers;
  const shown = found.filter((container) => named || request.all || container.status !== 'stopped');
  return { containers: await Promise.all(shown.map((container) => containerInfo(agent, container, signal))) };
}

async function containerInfo(agent: AgentContext, container: Container, signal: AbortSignal): Promise<api.ContainerInfo> {
  const verdict = await verdictOf(agent, container, signal);
  const fill = agent.fills.of(container);
  const operation = agent.operations.holderOf(`container ${container.at.root}/${container.id}`) ?? agent.operations.holderOf(`fill ${container.at.root}/${container.id}`);
  return {
    id: container.id, name: container.name, runtime: container.at.runtime, root: container.at.root, manager: container.manager, status: container.status,
    pid: container.pid, bundle: container.bundle, createdMs: container.createdMs, rootfs: container.rootfs.kind,
    processes: verdict.memory.processes, memoryBytes: verdict.memory.bytes, checkpointable: verdict.checkpointable, findings: verdict.findings,
    ...(operation === undefined ? {} : { operationId: operation }),
    ...(fill === undefined ? {} : { filling: { bytesDone: fill.filledBytes, bytesTotal: fill.totalBytes } }),
  };
}

/** A container that ends while it is looked at, or has ended, is a verdict too, not a failure of the list. */
async function verdictOf(agent: AgentContext, container: Container, signal: AbortSignal): Promise<Verdict> {
  const nothing = { bytes: 0, shared: 0, processes: 0 };
  if (container.status !== 'running' && container.status !== 'paused') {
    const message = `the container is ${container.status}`;
    return { checkpointable: false, memory: nothing, volumes: [], shape: [], findings: [{ severity: 'fatal', kind: 'not-running', message, hint: 'only a running or paused container has something to save' }] };
  }
  try {
    agent.fills.requireFilled(container);
    return await examine(container, agent.toolchain, askedFor, { signal, ghostLimitBytes: agent.settings.ghostLimitBytes });
  } catch (error) {
    const { message, hint } = asStasisError(error, 'it could not be examined');
    return { checkpointable: false, memory: nothing, volumes: [], shape: [], findings: [{ severity: 'fatal', kind: agent.fills.of(container) === undefined ? 'unreadable' : 'filling', message, hint: hint ?? 'look again' }] };
  }
}
