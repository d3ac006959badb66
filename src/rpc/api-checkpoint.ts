/** What a checkpoint has to tell, in the API's words. */
import type { ByteCounts, Finding, MemoryPath, Phase } from './api.ts';

/** Whether memory is read in rounds before the freeze; auto: where the kernel can and it pays. */
export type PreDump = 'auto' | 'never';

/** Whether a checkpoint is rebuilt in a scratch place before its container is stopped for it. */
export type RehearsalMode = 'auto' | 'always' | 'never';

export interface Rehearsal {
  readonly done: boolean;
  /** How long it took, beside the sealing; 0 when there was none. */
  readonly ms: number;
  /** Why there was none; absent when it was done. */
  readonly reason?: string;
}

export interface PreDumpRound {
  readonly pages: number;
  readonly ms: number;
  /** For so long the round itself stopped the container. */
  readonly frozenMs: number;
}

export interface CheckpointResult {
  readonly operationId: string;
  readonly checkpoint: string;
  readonly lineage: string;
  readonly parent?: string;
  readonly container: string;
  readonly phases: readonly Phase[];
  readonly frozenMs: number;
  readonly totalMs: number;
  readonly bytes: ByteCounts;
  readonly ratio: number;
  readonly bytesPerSecond: number;
  readonly memoryPath: MemoryPath;
  readonly findings: readonly Finding[];
  readonly notIncluded: readonly string[];
  readonly leftRunning: boolean;
  /** "null": the checkpoint is not encrypted. */
  readonly cipher: string;
  /** What was read before the freeze, in rounds. */
  readonly preDumpRounds: readonly PreDumpRound[];
  /** Why the dump did not build on rounds; absent when it did. */
  readonly plainBecause?: string;
  readonly rehearsal?: Rehearsal;
}
