/** The figures of the repository alone. */
import type { PutTimes, StageTimes } from './stage-times.ts';

/** One system, or the ceiling, with one kind of store. */
export interface SaveResult {
  readonly store: 'directory' | 's3';
  readonly system: string;
  readonly runs: readonly SaveRun[];
}

export interface SaveRun {
  readonly ms: number;
  readonly stored: number;
  readonly peakMiB?: number;
  readonly processorMs?: number;
  readonly stages?: StageTimes;
  readonly puts?: PutTimes;
}

/** The names that promises are about. */
export const names = { stasis: 'stasis', plaintext: 'stasis, null cipher', restic: 'restic', resticOff: 'restic, no compression', tar: 'tar | zstd -1 | age', ceiling: 'ceiling' } as const;
