/** The parts that put Stasis beside plain runc and podman: one for each workload. */
import { formatBytes, formatDuration } from '../../src/core/units.ts';
import { align } from '../demo/table.ts';
import type { Part } from './part.ts';
import { measure, type Result } from './run.ts';
import { plainRunc } from './systems/plain.ts';
import { podman } from './systems/podman.ts';
import { stasis } from './systems/stasis.ts';
import type { System } from './systems/system.ts';
import { targets } from './targets.ts';
import { workloads, type Workload } from './workloads.ts';

export function besideRivals(options: { readonly podman: boolean }): Part[] {
  return workloads.map((workload) => ({
    name: workload.name,
    measure: async (runs, say) => {
      const systems = await systemsFor(workload, options.podman);
      try {
        const results = await measure(workload, systems, runs, say);
        return { results, targets: targets(results), table: table(workload, results) };
      } finally {
        for (const system of systems) await system.close();
      }
    },
  }));
}

async function systemsFor(workload: Workload, withPodman: boolean): Promise<System[]> {
  const systems: System[] = [await stasis('stasis', {})];
  if (!workload.files) systems.push(plainRunc('runc, tmpfs', '/tmp'), plainRunc('runc, ext4', '/srv'));
  if (withPodman) systems.push(podman());
  if (workload.name === 'heap') systems.push(await stasis('stasis, null cipher', { STASIS_REPOSITORY_PLAINTEXT_FOR: '-/*' }));
  return systems;
}

function table(workload: Workload, results: readonly Result[]): string {
  const time = (ms: number): string => (Number.isNaN(ms) ? '-' : formatDuration(ms));
  const rows = results.map(({ system, median, peakMiB, failures }) => [
    system, time(median.snapshotMs), time(median.frozenMs), time(median.pauseMs), time(median.stopMs), time(median.restoreMs), formatBytes(median.bytes), peakMiB === undefined ? '-' : `${peakMiB} MiB`, String(failures.length),
  ]);
  return `${workload.title}\n${align([['', 'left running', 'frozen', 'seen pause', 'stopped', 'restored', 'stored', 'agent peak', 'failed'], ...rows])}`;
}
