/** What Stasis promises, next to what was measured (docs/BENCHMARKS.md). */
import type { Result } from './run.ts';

export interface Target {
  readonly name: string;
  readonly value: number;
  readonly limit: number;
  readonly met: boolean;
}

/** Megabytes of anonymous and file pages that the agent may use beside its staging. */
const PEAK_LIMIT_MIB = 300;

export function targets(results: readonly Result[]): Target[] {
  const found: Target[] = [];
  const add = (name: string, value: number | undefined, limit: number): void => {
    if (value !== undefined && !Number.isNaN(value)) found.push({ name, value, limit, met: value <= limit });
  };
  const at = (workload: string, system: string): Result | undefined => results.find((result) => result.workload === workload && result.system === system);
  const ratio = (workload: string, of: 'stopMs' | 'restoreMs' | 'frozenMs' | 'snapshotMs', rival: string): number | undefined => {
    const ours = at(workload, 'stasis')?.median[of];
    const theirs = at(workload, rival)?.median[of];
    return ours === undefined || theirs === undefined ? undefined : ours / theirs;
  };
  add('counter: checkpoint, times plain runc', ratio('counter', 'stopMs', 'runc, tmpfs'), 1.3);
  add('counter: restore, times plain runc', ratio('counter', 'restoreMs', 'runc, tmpfs'), 1.5);
  add('heap: frozen, times plain runc into tmpfs', ratio('heap', 'frozenMs', 'runc, tmpfs'), 0.9);
  add('heap: checkpoint, times podman', ratio('heap', 'stopMs', 'podman'), 1 / 3);
  add('heap: restore, times podman', ratio('heap', 'restoreMs', 'podman'), 1 / 3);
  add('heap: with cipher, times without', cipherCost(at('heap', 'stasis'), at('heap', 'stasis, null cipher')), 1.1);
  add('files: checkpoint, times podman', ratio('files', 'stopMs', 'podman'), 1 / 3);
  add('files: restore, times podman', ratio('files', 'restoreMs', 'podman'), 1 / 3);
  add('files: frozen, seconds', seconds(at('files', 'stasis')?.median.frozenMs), 1.5);
  add('processes: left running, times plain runc', ratio('processes', 'snapshotMs', 'runc, tmpfs'), 1.2);
  for (const { workload, peakMiB } of results.filter(({ system }) => system === 'stasis')) add(`${workload}: peak memory of the agent, MiB`, peakMiB, PEAK_LIMIT_MIB);
  return found;
}

function cipherCost(sealed: Result | undefined, open: Result | undefined): number | undefined {
  return sealed === undefined || open === undefined ? undefined : sealed.median.stopMs / open.median.stopMs;
}

function seconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : ms / 1000;
}
