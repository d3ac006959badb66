/** The messages of ExportCheckpoint and ImportCheckpoint, as api.ts has the others. */
import type { ByteCounts, Progress } from './api.ts';

export interface ExportCheckpointRequest {
  readonly checkpoint: string;
  readonly operationId?: string;
  readonly reason: string;
  readonly acceptPlaintext: boolean;
  readonly image?: string;
  readonly deadlineMs?: number;
}

export interface ArchiveData {
  readonly bytes: Uint8Array;
}

export type ExportEvent =
  | { readonly type: 'progress'; readonly progress: Progress }
  | { readonly type: 'data'; readonly data: ArchiveData }
  | { readonly type: 'result'; readonly result: ExportResult };

export interface ExportResult {
  readonly operationId: string;
  readonly checkpoint: string;
  readonly bytes: number;
  readonly totalMs: number;
  readonly notIncluded: readonly string[];
}

export type ImportMessage =
  | { readonly type: 'start'; readonly start: ImportCheckpointRequest }
  | { readonly type: 'data'; readonly data: ArchiveData };

export interface ImportCheckpointRequest {
  readonly source: string;
  readonly operationId?: string;
  readonly reason: string;
  readonly deadlineMs?: number;
}

export type ImportEvent =
  | { readonly type: 'progress'; readonly progress: Progress }
  | { readonly type: 'result'; readonly result: ImportResult };

export interface ImportResult {
  readonly operationId: string;
  readonly checkpoint: string;
  readonly lineage: string;
  readonly container: string;
  readonly engine: string;
  readonly archiveBytes: number;
  readonly bytes: ByteCounts;
  readonly totalMs: number;
  readonly notIncluded: readonly string[];
}
