/** What the repository promises about its throughput, next to what was measured. Times of one run are compared with each other. */
import { median } from '../measure.ts';
import type { Target } from '../targets.ts';
import { names } from './save-results.ts';
import type { SaveResult, SaveRun } from './save-results.ts';

const PEAK_LIMIT_MIB = 300;

export function saveTargets(what: string, results: readonly SaveResult[]): Target[] {
  return (['directory', 's3'] as const).flatMap((store) => {
    const runsOf = (system: string): readonly SaveRun[] => results.find((result) => result.store === store && result.system === system)?.runs ?? [];
    const [ours, plaintext, restic, ceiling] = [names.stasis, names.plaintext, names.restic, names.ceiling].map(runsOf) as [readonly SaveRun[], readonly SaveRun[], readonly SaveRun[], readonly SaveRun[]];
    const ratio = (others: readonly SaveRun[]): number => median(ours.map(({ ms }, run) => ms / (others[run]?.ms ?? Number.NaN)));
    const target = (name: string, value: number, limit: number): Target => ({ name: `${what}, ${store}: ${name}`, value, limit, met: value <= limit });
    return [
      target('time, times restic', ratio(restic), 1 / 4),
      target('time, times the ceiling', ratio(ceiling), 1 / 0.7),
      target('time with encryption, times without', ratio(plaintext), 1.05),
      target('peak memory, MiB', Math.max(...ours.map(({ peakMiB }) => peakMiB ?? 0)), PEAK_LIMIT_MIB),
    ];
  });
}
