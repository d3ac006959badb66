/** What a rehearsal costs: the same container is stopped with and without one, by turns, and brought back each time. */
import { formatDuration } from '../../src/core/units.ts';
import { align } from '../demo/table.ts';
import { checkpoint, makeHome, removeHome, restore, startAgent } from '../support/agent.ts';
import { startContainer } from '../support/containers.ts';
import { median, settle } from './measure.ts';
import type { Part } from './part.ts';
import type { Target } from './targets.ts';
import { workloads, type Workload } from './workloads.ts';

interface Stop {
  readonly frozenMs: number;
  /** Of the rehearsal itself, beside the sealing. */
  readonly rehearsalMs: number;
}

interface Result {
  readonly workload: string;
  readonly without: readonly Stop[];
  readonly rehearsed: readonly Stop[];
}

/** Added to the time that the container stands still, in seconds. */
const LIMITS: Readonly<Record<string, number>> = { counter: 0.15, heap: 0.3 };

async function measure(workload: Workload, runs: number, say: (line: string) => void): Promise<Result> {
  const home = makeHome();
  const agent = await startAgent(home, { STASIS_STAGING_SIZE: '4G' });
  const container = await startContainer({ runtime: 'runc', id: `rehearsed-${workload.name}`, args: workload.args });
  const stops = { never: [] as Stop[], always: [] as Stop[] };
  try {
    await workload.prepare(container.pid);
    for (let run = 1; run <= runs; run++) {
      for (const rehearsal of ['never', 'always'] as const) {
        settle();
        const { checkpoint: id, frozenMs, rehearsal: outcome } = await checkpoint(agent, container.id, { rehearsal, newLineage: true });
        if (rehearsal === 'always' && outcome?.done !== true) throw new Error(`not rehearsed: ${outcome?.reason ?? ''}`);
        stops[rehearsal].push({ frozenMs, rehearsalMs: outcome?.ms ?? 0 });
        await restore(agent, id);
        await agent.client.deleteCheckpoint({ checkpoint: id, reason: 'bench' }, { signal: undefined });
        say(`rehearsal of ${workload.name}, run ${run} of ${runs}, ${rehearsal}: frozen ${Math.round(frozenMs)} ms, rehearsal ${Math.round(outcome?.ms ?? 0)} ms`);
      }
    }
  } finally {
    await container.stop();
    await agent.stop();
    await removeHome(home);
  }
  return { workload: workload.name, without: stops.never, rehearsed: stops.always };
}

const frozen = (stops: readonly Stop[]): number => median(stops.map(({ frozenMs }) => frozenMs));

function targetsOf(results: readonly Result[]): Target[] {
  return results.map(({ workload, without, rehearsed }) => {
    const value = (frozen(rehearsed) - frozen(without)) / 1000;
    const limit = LIMITS[workload] ?? 0;
    return { name: `${workload}: frozen longer by a rehearsal, seconds`, value, limit, met: value <= limit };
  });
}

function table(results: readonly Result[]): string {
  const rows = results.map(({ workload, without, rehearsed }) => [
    workload, formatDuration(frozen(without)), formatDuration(frozen(rehearsed)), formatDuration(median(rehearsed.map(({ rehearsalMs }) => rehearsalMs))),
  ]);
  return `Rehearsals of stops\n${align([['', 'frozen', 'frozen, rehearsed', 'rehearsal'], ...rows])}`;
}

export const rehearsals: Part = {
  name: 'rehearsal',
  measure: async (runs, say) => {
    const results: Result[] = [];
    for (const workload of workloads.filter(({ name }) => Object.hasOwn(LIMITS, name))) results.push(await measure(workload, runs, say));
    return { results, targets: targetsOf(results), table: table(results) };
  },
};
