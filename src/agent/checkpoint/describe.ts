/** Builds the description that is sealed into the manifest. */
import type { Description } from '../../repository/types.ts';
import { namespaceOf } from '../../runtime/index.ts';
import type { AgentContext } from '../context.ts';
import { DESCRIPTION_VERSION, type PodDescription, type SavedContainer, type SavedVolume } from '../description.ts';
import { cpuDescription } from '../node-info.ts';
import type { Operation } from '../operation.ts';
import { IMAGES_PREFIX, type CheckpointInProgress } from './in-progress.ts';

export function describe(agent: AgentContext, prepared: CheckpointInProgress, operation: Operation): Description {
  const { container, request } = prepared;
  const annotations = container.spec.annotations ?? {};
  const parent = agent.lineages.of(container);
  const namespace = namespaceOf(container);
  const description: PodDescription = {
    version: DESCRIPTION_VERSION,
    mode: prepared.stop ? 'stop' : 'leave-running',
    memoryPath: prepared.memoryPath,
    ...(prepared.preDumped.plain === undefined ? { preDump: prepared.preDumped.rounds } : {}),
    rehearsal: prepared.rehearsal,
    frozenAtMs: prepared.frozenAtMs,
    frozenMs: prepared.frozenMs,
    phases: operation.phases,
    findings: [...prepared.findings, ...prepared.rehearsed],
    pod: { name: container.name, ...(namespace === undefined ? {} : { namespace }) },
    containers: [savedContainer(agent, prepared)],
    notSaved: prepared.notSaved,
    provenance: {
      by: request.by, reason: request.reason, operation: operation.id, node: agent.settings.nodeName, stasis: agent.settings.version,
      kernel: agent.toolchain.kernel, architecture: process.arch, cpu: cpuDescription(), criu: agent.toolchain.criu.text,
      image: container.image?.name ?? annotations['org.opencontainers.image.ref.name'],
      parent: parent?.lineage === prepared.writer.lineage ? parent.last : undefined,
    },
  };
  return description as unknown as Description;
}

function savedContainer(agent: AgentContext, prepared: CheckpointInProgress): SavedContainer {
  const { container, request } = prepared;
  const runtime = agent.toolchain.runtimes.find((candidate) => candidate.name === container.at.runtime);
  const rootTree = prepared.trees.find((tree) => tree.destination === '/');
  const rootCounts = rootTree === undefined ? undefined : prepared.treeCounts(rootTree.prefix);
  return {
    index: 0, id: container.id, name: container.name, manager: container.manager, ...(container.image === undefined ? {} : { image: container.image }), runtime: container.at.runtime,
    runtimeVersion: runtime?.version ?? '', root: container.at.root, bundle: container.bundle, spec: container.spec, flags: request.flags,
    rootfs: { saved: rootTree !== undefined, prefix: rootTree?.prefix ?? '', layout: container.rootfs, entries: rootCounts?.entries ?? 0, bytes: rootCounts?.dataBytes ?? 0 },
    volumes: savedVolumes(prepared),
    images: { ...prepared.images, prefix: IMAGES_PREFIX },
    kernel: prepared.kernel,
    fidelity: prepared.fidelity,
    pidAtDump: container.pid,
  };
}

function savedVolumes(prepared: CheckpointInProgress): SavedVolume[] {
  return prepared.trees.filter((tree) => tree.destination !== '/').map(({ prefix, destination, fstype }) => {
    const counts = prepared.treeCounts(prefix);
    const mount = prepared.volumeMounts.get(destination);
    return {
      prefix, destination, fstype, ...(mount === undefined ? {} : { mount }),
      entries: counts.entries, bytes: counts.dataBytes,
    };
  });
}
