/**
 * The agent's API in the words of TypeScript; proto/stasis/agent/v1/agent.proto has the same fields and the
 * meaning of each, and test/rpc/codec.test.ts keeps the two equal. Sizes are bytes, checked to be safe integers.
 * Absent optional fields are left out. Nothing here imports gRPC: agent and command line meet in these types.
 */
import type { KeysHandlers } from './api-keys.ts';
import type { ExportCheckpointRequest, ExportEvent, ImportEvent, ImportMessage } from './archives.ts';
import type {
  CheckRepositoryEvent, CheckRepositoryRequest, PinCheckpointRequest, PinCheckpointResponse, PruneRepositoryEvent, PruneRepositoryRequest, RepositoryStatsRequest, RepositoryStatsResponse,
} from './api-repository.ts';
import type { CheckpointResult, PreDump, RehearsalMode } from './api-checkpoint.ts';
import type { Role } from './roles.ts';
import type { ProbeStoreRequest, ProbeStoreResponse } from './store-report.ts';

export type * from './api-keys.ts';
export type * from './api-checkpoint.ts';
export type * from './api-repository.ts';

export type MemoryPath = 'auto' | 'directory' | 'page-server';
export type OperationKind = 'checkpoint' | 'restore' | 'verify' | 'delete' | 'export' | 'import' | 'fill' | 'check' | 'prune' | 'rotate';
/** Whether pages may arrive after the container runs; auto: where it pays. */
export type LazyMode = 'never' | 'always' | 'auto';
export type OperationState = 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled';

export interface CheckpointRequest {
  readonly container: string;
  readonly runtime?: string;
  readonly operationId?: string;
  readonly reason: string;
  readonly leaveRunning: boolean;
  readonly tcpEstablished: boolean;
  readonly fileLocks: boolean;
  readonly extUnixSk: boolean;
  readonly shellJob: boolean;
  readonly memoryPath?: MemoryPath;
  /** Absent: as configured on the node. */
  readonly preDump?: PreDump;
  /** Absent: as configured on the node. */
  readonly rehearsal?: RehearsalMode;
  /**
   * Leave out TCP connections that nobody has accepted yet: their peers see a reset. Otherwise they refuse the
   * checkpoint.
   */
  readonly tcpSkipInFlight?: boolean;
  /** Attributes that may differ in a rehearsal, by the names of docs/FIDELITY.md. */
  readonly allowDifference?: readonly string[];
  readonly freezeBudgetMs?: number;
  readonly deadlineMs?: number;
  readonly newLineage: boolean;
  readonly keep: boolean;
}

export interface RestoreRequest {
  readonly checkpoint: string;
  readonly container?: string;
  readonly bundle?: string;
  readonly operationId?: string;
  readonly reason: string;
  readonly clone: boolean;
  readonly runtime?: string;
  readonly tcpEstablished: boolean;
  readonly tcpClose: boolean;
  readonly fileLocks: boolean;
  readonly extUnixSk: boolean;
  readonly shellJob: boolean;
  readonly ignoreCompatibility: boolean;
  readonly deadlineMs?: number;
  readonly keep: boolean;
  /** Attributes that may differ from what was saved, by the names of docs/FIDELITY.md. */
  readonly allowDifference?: readonly string[];
  /** Absent: never. */
  readonly lazy?: LazyMode;
}

export interface Progress {
  readonly operationId: string;
  readonly kind: OperationKind;
  readonly step: string;
  /** From 1; 0 while the operation waits its turn. */
  readonly stepNumber: number;
  readonly stepCount: number;
  readonly bytesDone: number;
  /** 0 while it is not known. */
  readonly bytesTotal: number;
  readonly bytesPerSecond: number;
  readonly elapsedMs: number;
  readonly frozen: boolean;
}

export interface Phase {
  readonly name: string;
  readonly ms: number;
}

export interface Finding {
  readonly severity: 'fatal' | 'warning';
  readonly kind: string;
  readonly message: string;
  readonly hint: string;
  readonly pid?: number;
}

export interface ByteCounts {
  readonly raw: number;
  readonly zero: number;
  readonly reused: number;
  readonly stored: number;
}

export interface RestoreResult {
  readonly operationId: string;
  readonly checkpoint: string;
  readonly container: string;
  readonly runtime: string;
  readonly bundle: string;
  readonly pid: number;
  readonly phases: readonly Phase[];
  readonly totalMs: number;
  readonly bytes: number;
  readonly bytesRead: number;
  readonly bytesPerSecond: number;
  readonly downtimeMs?: number;
  readonly findings: readonly Finding[];
  /** The operation that brings the rest of the memory, when some of it is still to come. */
  readonly fillOperationId?: string;
  /** Bytes of memory that are still to come. */
  readonly lazyBytes: number;
  /** Why it was lazy, or was not: where the agent had the choice, or memory of this container never comes later. */
  readonly lazyReason?: string;
}

export type CheckpointEvent =
  | { readonly type: 'progress'; readonly progress: Progress }
  | { readonly type: 'result'; readonly result: CheckpointResult };

export type RestoreEvent =
  | { readonly type: 'progress'; readonly progress: Progress }
  | { readonly type: 'result'; readonly result: RestoreResult };

export interface ListContainersRequest {
  readonly container?: string;
  readonly all: boolean;
}

export interface Filling {
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export interface ContainerInfo {
  readonly id: string;
  readonly name: string;
  readonly runtime: string;
  readonly root: string;
  readonly manager: string;
  readonly status: string;
  readonly pid: number;
  readonly bundle: string;
  readonly createdMs: number;
  readonly rootfs: string;
  readonly processes: number;
  readonly memoryBytes: number;
  readonly checkpointable: boolean;
  readonly findings: readonly Finding[];
  readonly operationId?: string;
  /** Present while the memory of a lazy restore still arrives. */
  readonly filling?: Filling;
}

export interface ListContainersResponse {
  readonly containers: readonly ContainerInfo[];
}

export interface ListCheckpointsRequest {
  readonly container?: string;
  readonly lineage?: string;
  readonly pageSize: number;
  readonly pageToken: string;
}

export interface ListCheckpointsResponse {
  readonly checkpoints: readonly CheckpointInfo[];
  readonly problems: readonly Problem[];
  readonly nextPageToken: string;
}

export interface Problem {
  readonly object: string;
  readonly code: string;
  readonly message: string;
}

export interface CheckpointInfo {
  readonly id: string;
  readonly lineage: string;
  readonly parent?: string;
  readonly createdMs: number;
  readonly node: string;
  readonly containers: readonly CheckpointContainer[];
  readonly reason: string;
  readonly principal: string;
  readonly cipher: string;
  readonly signer: string;
  readonly bytes: ByteCounts;
  readonly frozenMs: number;
  readonly leftRunning: boolean;
  readonly imported: boolean;
  readonly pinned: boolean;
}

export interface CheckpointContainer {
  readonly id: string;
  readonly name: string;
  readonly runtime: string;
  readonly manager: string;
  readonly rootfs: string;
}

export interface InspectCheckpointRequest {
  readonly checkpoint: string;
}

export interface CheckpointDetail {
  readonly info: CheckpointInfo;
  readonly phases: readonly Phase[];
  readonly findings: readonly Finding[];
  readonly notIncluded: readonly string[];
  readonly provenance: Provenance;
  readonly blobs: readonly Blob[];
  readonly descriptionJson: string;
}

export interface Provenance {
  readonly agentVersion: string;
  readonly criuVersion: string;
  readonly runtimeVersion: string;
  readonly kernel: string;
  readonly architecture: string;
  readonly cpuModel: string;
  readonly cpuFeatures: readonly string[];
  readonly imageDigest?: string;
}

export interface Blob {
  readonly name: string;
  readonly length: number;
}

export interface VerifyCheckpointRequest {
  readonly checkpoint: string;
  readonly operationId?: string;
  readonly deadlineMs?: number;
}

export type VerifyEvent =
  | { readonly type: 'progress'; readonly progress: Progress }
  | { readonly type: 'report'; readonly report: VerifyReport };

export interface VerifyReport {
  readonly checkpoint: string;
  readonly ok: boolean;
  readonly objects: number;
  readonly chunks: number;
  readonly bytes: number;
  readonly problems: readonly Problem[];
  readonly totalMs: number;
}

export interface DeleteCheckpointRequest {
  readonly checkpoint: string;
  readonly operationId?: string;
  readonly reason: string;
}

export interface DeleteCheckpointResponse {
  readonly checkpoint: string;
}

export interface WatchOperationsRequest {
  readonly operationId?: string;
}

export type OperationEvent =
  | { readonly type: 'snapshot'; readonly snapshot: { readonly operations: readonly Operation[] } }
  | { readonly type: 'changed'; readonly changed: Operation };

export interface ErrorInfo {
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
  readonly details: readonly Detail[];
}

export type Detail =
  | { readonly name: string; readonly type: 'text'; readonly text: string }
  | { readonly name: string; readonly type: 'number'; readonly number: number }
  | { readonly name: string; readonly type: 'flag'; readonly flag: boolean };

export interface Operation {
  readonly id: string;
  readonly kind: OperationKind;
  readonly state: OperationState;
  readonly container: string;
  readonly checkpoint: string;
  readonly principal: string;
  readonly reason: string;
  readonly startedMs: number;
  readonly finishedMs?: number;
  readonly progress: Progress;
  /** Make it with errorInfo() of status.ts. */
  readonly error?: ErrorInfo;
}

export interface CancelOperationRequest {
  readonly operationId: string;
}

export type GetNodeRequest = Readonly<Record<never, never>>;

export interface Node {
  readonly name: string;
  readonly agentVersion: string;
  readonly startedMs: number;
  readonly kernel: string;
  readonly architecture: string;
  readonly criuVersion: string;
  readonly runtimes: readonly RuntimeInfo[];
  readonly features: readonly { readonly name: string; readonly available: boolean }[];
  readonly problems: readonly string[];
  readonly limits: { readonly parallelOperations: number; readonly freezeBudgetMs: number; readonly stopBudgetMs: number; readonly ghostLimitBytes: number };
  readonly keys: { readonly signer: string; readonly recipient: string; readonly trustedSigners: readonly string[] };
  readonly staging: { readonly sizeBytes: number; readonly usedBytes: number };
  readonly repository: { readonly description: string; readonly cipher: string; readonly plaintextFor: readonly string[]; readonly freeBytes?: number };
  readonly operationsRunning: number;
  readonly callerRoles: readonly string[];
}

export interface RuntimeInfo {
  readonly name: string;
  readonly binary: string;
  readonly version: string;
  readonly roots: readonly string[];
}

/** Who calls. The name goes into provenance, journal and log. */
export interface Caller {
  /** "local" for the UNIX socket; else the common name of the client's certificate. */
  readonly principal: string;
  readonly roles: ReadonlySet<Role>;
  readonly transport: 'unix' | 'tls';
}

export interface CallContext {
  /**
   * Aborted when the caller cancels or goes away (CANCELLED), the call's deadline passes (DEADLINE_EXCEEDED) or the
   * server shuts down (AGENT_STOPPING). It ends the call. An operation has a life of its own and goes on:
   * only CancelOperation, its deadline or its budget end it.
   */
  readonly signal: AbortSignal;
  readonly caller: Caller;
}

/** What the agent implements. Requests have passed the codec (types, safe integers), nothing else is checked. */
export interface AgentHandlers extends KeysHandlers {
  checkpoint(request: CheckpointRequest, context: CallContext): AsyncIterable<CheckpointEvent>;
  restore(request: RestoreRequest, context: CallContext): AsyncIterable<RestoreEvent>;
  listContainers(request: ListContainersRequest, context: CallContext): Promise<ListContainersResponse>;
  listCheckpoints(request: ListCheckpointsRequest, context: CallContext): Promise<ListCheckpointsResponse>;
  inspectCheckpoint(request: InspectCheckpointRequest, context: CallContext): Promise<CheckpointDetail>;
  verifyCheckpoint(request: VerifyCheckpointRequest, context: CallContext): AsyncIterable<VerifyEvent>;
  deleteCheckpoint(request: DeleteCheckpointRequest, context: CallContext): Promise<DeleteCheckpointResponse>;
  watchOperations(request: WatchOperationsRequest, context: CallContext): AsyncIterable<OperationEvent>;
  cancelOperation(request: CancelOperationRequest, context: CallContext): Promise<Operation>;
  getNode(request: GetNodeRequest, context: CallContext): Promise<Node>;
  exportCheckpoint(request: ExportCheckpointRequest, context: CallContext): AsyncIterable<ExportEvent>;
  importCheckpoint(messages: AsyncIterable<ImportMessage>, context: CallContext): AsyncIterable<ImportEvent>;
  pinCheckpoint(request: PinCheckpointRequest, context: CallContext): Promise<PinCheckpointResponse>;
  repositoryStats(request: RepositoryStatsRequest, context: CallContext): Promise<RepositoryStatsResponse>;
  checkRepository(request: CheckRepositoryRequest, context: CallContext): AsyncIterable<CheckRepositoryEvent>;
  pruneRepository(request: PruneRepositoryRequest, context: CallContext): AsyncIterable<PruneRepositoryEvent>;
  probeStore(request: ProbeStoreRequest, context: CallContext): Promise<ProbeStoreResponse>;
}

export interface CallOptions {
  readonly signal: AbortSignal | undefined;
  /** How long the call may take, from now; absent: without end. */
  readonly timeoutMs?: number;
}

/** The same calls from the other side. Every failure is a StasisError. */
export type AgentClient = {
  readonly [Name in keyof AgentHandlers]: (request: Parameters<AgentHandlers[Name]>[0], options: CallOptions) => ReturnType<AgentHandlers[Name]>;
} & {
  close(): void;
};
