/** The part of the API that is about the repository as a whole; see api.ts. */
import type { ByteCounts, Problem, Progress } from './api.ts';

export interface PinCheckpointRequest {
  readonly checkpoint: string;
  readonly pinned: boolean;
  readonly reason: string;
}

export interface PinCheckpointResponse {
  readonly checkpoint: string;
  readonly pinned: boolean;
}

export type RepositoryStatsRequest = Readonly<Record<never, never>>;

export interface RepositoryStatsResponse {
  readonly checkpoints: number;
  readonly lineages: number;
  readonly pins: number;
  readonly packs: number;
  readonly bytes: number;
  readonly packBytes: number;
  readonly loosePacks: number;
  readonly looseBytes: number;
  readonly saved: ByteCounts;
  readonly unreadable: number;
  readonly quotaBytes: number;
}

export interface CheckRepositoryRequest {
  readonly readData: boolean;
  readonly operationId?: string;
  readonly deadlineMs?: number;
}

export type CheckRepositoryEvent =
  | { readonly type: 'progress'; readonly progress: Progress }
  | { readonly type: 'report'; readonly report: CheckRepositoryReport };

export interface CheckRepositoryReport {
  readonly checkpoints: number;
  readonly sealed: number;
  readonly objects: number;
  readonly bytes: number;
  readonly problems: readonly Problem[];
  readonly loosePacks: number;
  readonly looseBytes: number;
  readonly totalMs: number;
}

export interface PruneRepositoryRequest {
  readonly dryRun: boolean;
  readonly operationId?: string;
  readonly deadlineMs?: number;
  readonly reason: string;
}

export type PruneRepositoryEvent =
  | { readonly type: 'progress'; readonly progress: Progress }
  | { readonly type: 'report'; readonly report: PruneRepositoryReport };

export interface PruneRepositoryReport {
  readonly dryRun: boolean;
  readonly expired: readonly ExpiredCheckpoint[];
  readonly packs: number;
  readonly bytes: number;
  readonly keys: number;
  readonly fenced: number;
  readonly marks: number;
  readonly manifests: number;
  readonly kept: readonly KeptGarbage[];
  readonly problems: readonly Problem[];
  readonly totalMs: number;
}

export interface ExpiredCheckpoint {
  readonly checkpoint: string;
  readonly reason: string;
  readonly storedBytes: number;
}

export interface KeptGarbage {
  readonly lineage: string;
  readonly packs: number;
  readonly bytes: number;
  readonly reason: string;
}
