/** Preflight: can this container be checkpointed, and if not, why? Only reads; the container runs on untouched. */
import { MiB } from '../../core/units.ts';
import { readMountinfo } from '../../host/mountinfo.ts';
import { processAlive, readNamespaces } from '../../host/proc.ts';
import type { CheckpointFlags, Container, Finding, Toolchain, Verdict } from '../types.ts';
import { collect } from './collect.ts';
import { checkInnerCgroups, checkLandlock, checkPersonalities } from './confinement-checks.ts';
import { checkAnonymousInodes, checkDeletedFiles, checkDevices, checkForeignFiles, checkPipes, checkTerminals } from './descriptor-checks.ts';
import { checkDeviceNodes } from './device-node-checks.ts';
import { checkEpolls } from './epoll-checks.ts';
import { checkBpfMaps, checkHiddenFiles, checkMessageQueues, checkNamespaceFiles, checkPacketPipes, checkPidfds, checkSecretMemory, checkTunDevices } from './file-checks.ts';
import { fatal, type Check, type Scene } from './findings.ts';
import { checkProblems, checkSpecification, checkStatus, checkVersions } from './host-checks.ts';
import { checkOwnLimits, checkProcessLimit } from './limit-checks.ts';
import { checkBreakingLeases, checkLocks } from './lock-checks.ts';
import { checkEventSemaphores } from './event-checks.ts';
import { checkFileAttributes, checkMulticast, checkNetworkDevices, checkNetworkExtras } from './loss-checks.ts';
import { checkMappings, checkSharedSegments } from './mapping-checks.ts';
import { checkHeadroom, estimateMemory } from './memory.ts';
import { checkBindMounts, checkFileSystems, checkInnerOverlays, checkProc, checkSources, findVolumes } from './mount-checks.ts';
import { namelessPlaces } from './nameless.ts';
import { checkExamined, checkExecSessions, checkNestedNamespaces, checkSharedNamespaces, checkStoppedThreads, checkStuck, checkSwap, checkTraced } from './process-checks.ts';
import { checkDeletedPrograms, checkPrograms } from './program-checks.ts';
import { shapeOfScene } from './shape.ts';
import { checkExitSignals, checkSharing, checkThreads } from './sharing-checks.ts';
import { checkSessions } from './session-checks.ts';
import { checkSockets } from './socket-checks.ts';
import { checkSocketOptions } from './socket-options.ts';
import { checkCapabilities, checkDeadLeaders, checkNamespacesForChildren, checkPendingTraps } from './task-checks.ts';
import { checkControllingTerminals } from './terminal-checks.ts';
import { checkWaiting } from './waiting-checks.ts';
import { checkWatches } from './watch-checks.ts';

export interface ExamineOptions {
  readonly signal: AbortSignal | undefined;
  /** Deleted open files up to this size travel in the images; 64 MiB unless told. */
  readonly ghostLimitBytes?: number;
}

const DEFAULT_GHOST_LIMIT = 64 * MiB;

/** Most telling first: the first fatal finding is the one that a person reads. */
const checks: readonly Check[] = [
  checkVersions, checkCapabilities, checkOwnLimits, checkSpecification, checkAnonymousInodes, checkDevices, checkMappings, checkSecretMemory, checkMessageQueues, checkSockets,
  checkTerminals, checkControllingTerminals, checkForeignFiles, checkLocks, checkEpolls, checkPidfds, checkPacketPipes, checkTunDevices, checkBpfMaps, checkHiddenFiles, checkPrograms, checkDeletedPrograms,
  checkSharedSegments, checkDeadLeaders, checkPendingTraps, checkSessions, checkNamespacesForChildren,
  checkNamespaceFiles, checkProcessLimit, checkInnerOverlays, checkProc, checkSources,
  checkLandlock, checkPersonalities, checkInnerCgroups,
  checkBreakingLeases, checkSocketOptions, checkNetworkDevices, checkNetworkExtras, checkMulticast,
  checkFileAttributes, checkEventSemaphores, checkTraced,
  checkStoppedThreads, checkThreads, checkExitSignals, checkExecSessions, checkNestedNamespaces, checkSharedNamespaces,
  checkFileSystems,
  checkDeletedFiles,
  checkBindMounts, checkPipes, checkStuck, checkSwap, checkHeadroom, checkProblems, checkExamined,
];

/** The same thing seen twice (an io_uring as descriptor and as mapping) is told once. */
function unique(findings: readonly Finding[]): Finding[] {
  const seen = new Set<string>();
  return findings.filter(({ severity, kind, pid, message }) => {
    const key = severity === 'fatal' && kind === 'io_uring' ? `${kind} ${pid}` : `${severity} ${message}`;
    if (seen.has(key)) return false;
    seen.add(key);
    return true;
  });
}

function verdict(
  findings: readonly Finding[], more: Pick<Verdict, 'memory' | 'volumes' | 'shape' | 'watched' | 'nameless'>,
): Verdict {
  const ordered = [...findings.filter(({ severity }) => severity === 'fatal'), ...findings.filter(({ severity }) => severity !== 'fatal')];
  return { checkpointable: !findings.some(({ severity }) => severity === 'fatal'), findings: ordered, ...more };
}

/** Some milliseconds for a small container, about one more for each process; bounded for very many processes. */
export async function examine(container: Container, toolchain: Toolchain, flags: CheckpointFlags, options: ExamineOptions): Promise<Verdict> {
  const nothing = { memory: { bytes: 0, shared: 0, processes: 0 }, volumes: [], shape: [] };
  const base = { container, toolchain, flags, mounts: [], own: {}, ghostLimitBytes: options.ghostLimitBytes ?? DEFAULT_GHOST_LIMIT };
  const status = checkStatus({ ...base, tree: { processes: [], strangers: [], unexamined: 0 } });
  if (container.pid === 0 || container.status === 'created') return verdict(status, nothing);
  const scene: Scene = { ...base, tree: await collect(container, { signal: options.signal }), mounts: readMountinfo(container.pid), own: readNamespaces('self') };
  if (!processAlive(container.pid, container.pidStart)) {
    return verdict([fatal('status', 'the container has ended', 'only a running container can be checkpointed')], nothing);
  }
  const watched = await checkWatches(scene, options.signal);
  const findings = [
    ...checks.flatMap((check) => check(scene)), ...watched.findings, ...await checkWaiting(scene),
    ...await checkSharing(scene),
    ...await checkDeviceNodes(scene, options.signal),
  ];
  return verdict(unique([...status, ...findings]), {
    memory: estimateMemory(scene), volumes: findVolumes(container, scene.mounts), shape: shapeOfScene(scene),
    watched: watched.paths, nameless: namelessPlaces(scene),
  });
}
