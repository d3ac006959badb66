/** One workload on all systems: run after run, in each run one system after the other, so that all see the same machine. */
import { median, settle } from './measure.ts';
import type { System } from './systems/system.ts';
import type { Workload } from './workloads.ts';

export interface Figures {
  /** Left running: until the answer, how long it stood still by the system's account, and by the program's own. */
  readonly snapshotMs: number;
  readonly frozenMs: number;
  readonly pauseMs: number;
  /** Stopped: until the answer. */
  readonly stopMs: number;
  readonly restoreMs: number;
  readonly bytes: number;
}

export interface Result {
  readonly workload: string;
  readonly system: string;
  /** NaN where there is nothing to tell. */
  readonly median: Figures;
  readonly runs: readonly Figures[];
  readonly peakMiB: number | undefined;
  /** Attempts that failed and were made again. */
  readonly failures: readonly string[];
}

/** CRIU fails now and then, on a process that is just being forked for example; the run is then made again. */
const ATTEMPTS = 3;

export async function measure(workload: Workload, systems: readonly System[], runs: number, say: (line: string) => void): Promise<Result[]> {
  const record = systems.map((system) => ({ system, figures: [] as Figures[], failures: [] as string[] }));
  for (let run = 1; run <= runs; run++) {
    for (const [index, { system, figures, failures }] of record.entries()) {
      const one = await again(failures, (attempt) => once(workload, system, `${workload.name}-${run}-${index}-${attempt}`, run === 1));
      figures.push(one);
      say(`${workload.name}, run ${run} of ${runs}, ${system.name}: checkpoint ${round(one.stopMs)} ms, frozen ${round(one.frozenMs)} ms, restore ${round(one.restoreMs)} ms`);
    }
  }
  return record.map(({ system, figures, failures }) => ({ ...summary(workload, system, figures), failures }));
}

async function again(failures: string[], attempt: (number: number) => Promise<Figures>): Promise<Figures> {
  for (let number = 1; ; number++) {
    try {
      return await attempt(number);
    } catch (error) {
      failures.push(error instanceof Error ? error.message : String(error));
      if (number === ATTEMPTS) throw error;
    }
  }
}

async function once(workload: Workload, system: System, id: string, thorough: boolean): Promise<Figures> {
  const container = await system.start({ id, args: workload.args });
  try {
    await workload.prepare(container.pid);
    settle();
    await workload.pauseMs?.(container.pid);
    const snapshot = await container.snapshot();
    const pauseMs = (await workload.pauseMs?.(container.pid)) ?? Number.NaN;
    settle();
    const stop = await container.stop();
    const restoreMs = await container.restore();
    await workload.verify(container.pid, { thorough });
    return { snapshotMs: snapshot.ms, frozenMs: snapshot.frozenMs ?? Number.NaN, pauseMs, stopMs: stop.ms, restoreMs, bytes: stop.bytes };
  } finally {
    await container.remove();
  }
}

function summary(workload: Workload, system: System, runs: readonly Figures[]): Omit<Result, 'failures'> {
  const of = (name: keyof Figures): number => median(runs.map((run) => run[name]));
  return {
    workload: workload.name, system: system.name, runs, peakMiB: system.peakMiB?.(),
    median: { snapshotMs: of('snapshotMs'), frozenMs: of('frozenMs'), pauseMs: of('pauseMs'), stopMs: of('stopMs'), restoreMs: of('restoreMs'), bytes: of('bytes') },
  };
}

function round(value: number): string {
  return value.toFixed(value < 100 ? 1 : 0);
}
