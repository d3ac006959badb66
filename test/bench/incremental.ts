/** The second checkpoint of a workload beside its first: what it stores and how long it takes, by what changed in between. */
import { formatBytes, formatDuration } from '../../src/core/units.ts';
import { align } from '../demo/table.ts';
import { checkpoint, makeHome, removeHome, startAgent } from '../support/agent.ts';
import type { TestAgent } from '../support/agent.ts';
import { changePages, heapArgs, heapReady } from '../support/workloads/heap.ts';
import { unpackTree } from '../support/workloads/files.ts';
import { median, settle, timed } from './measure.ts';
import type { Measured, Part } from './part.ts';
import { startRunc } from './systems/plain.ts';
import type { Target } from './targets.ts';

const HEAP_MIB = 2048;
const PAGE_BYTES = 4096;
const CHANGED_PAGES = Math.round((HEAP_MIB * 256) / 20);

interface Case {
  readonly name: string;
  readonly args: readonly string[];
  prepare(pid: number): Promise<void>;
  /** Between the two checkpoints; returns how many bytes changed. */
  change(pid: number): Promise<number>;
}

interface IncrementalRun {
  readonly firstMs: number;
  readonly firstBytes: number;
  readonly secondMs: number;
  readonly secondBytes: number;
  readonly changedBytes: number;
  /** The reading of files before the freeze. */
  readonly filesMs: number;
}

const heap = (name: string, change: Case['change']): Case => ({ name, args: heapArgs(HEAP_MIB), prepare: (pid) => heapReady(pid), change });

const cases: readonly Case[] = [
  heap('heap, idle', async () => 0),
  heap('heap, 5 % in one place', async (pid) => (await changePages(pid, 'region', CHANGED_PAGES)) * PAGE_BYTES),
  heap('heap, 5 % all over', async (pid) => (await changePages(pid, 'scatter', CHANGED_PAGES)) * PAGE_BYTES),
  {
    name: '92,000 files, idle', args: ['/bin/sleep', '1000000'],
    prepare: async (pid) => void unpackTree(pid),
    change: async () => 0,
  },
];

export const incremental: Part = { name: 'incremental', measure: measureIncremental };

async function measureIncremental(runs: number, say: (line: string) => void): Promise<Measured> {
  const results: { name: string; runs: IncrementalRun[] }[] = cases.map(({ name }) => ({ name, runs: [] }));
  const home = makeHome();
  const agent = await startAgent(home, { STASIS_STAGING_SIZE: '4G' });
  try {
    for (let run = 1; run <= runs; run += 1) {
      for (const [index, one] of cases.entries()) {
        const measured = await once(agent, one, `incremental-${run}-${index}`);
        results[index]?.runs.push(measured);
        say(`${one.name}, run ${run} of ${runs}: ${Math.round(measured.firstMs)} ms and ${formatBytes(measured.firstBytes)}, then ${Math.round(measured.secondMs)} ms and ${formatBytes(measured.secondBytes)}`);
      }
    }
  } finally {
    await agent.stop();
    await removeHome(home);
  }
  return { results, targets: results.flatMap(({ name, runs: all }) => promises(name, all)), table: table(results) };
}

async function once(agent: TestAgent, { args, prepare, change }: Case, id: string): Promise<IncrementalRun> {
  const container = await startRunc({ id, args });
  const saved: string[] = [];
  const save = async (): Promise<{ ms: number; bytes: number; filesMs: number }> => {
    settle();
    const { ms, value } = await timed(() => checkpoint(agent, id, { leaveRunning: true }));
    saved.push(value.checkpoint);
    return { ms, bytes: value.bytes.stored, filesMs: value.phases.find(({ name }) => name === 'read-ahead')?.ms ?? 0 };
  };
  try {
    await prepare(container.pid());
    // What was written just before a walk is read twice.
    await new Promise((resolve) => { setTimeout(resolve, 200); });
    const first = await save();
    const changedBytes = await change(container.pid());
    const second = await save();
    return { firstMs: first.ms, firstBytes: first.bytes, secondMs: second.ms, secondBytes: second.bytes, changedBytes, filesMs: second.filesMs };
  } finally {
    await container.remove();
    for (const one of saved) await agent.client.deleteCheckpoint({ checkpoint: one, reason: 'bench' }, { signal: undefined });
  }
}

function promises(name: string, runs: readonly IncrementalRun[]): Target[] {
  const at = (value: (run: IncrementalRun) => number): number => median(runs.map(value));
  const target = (what: string, value: number, limit: number): Target => ({ name: `${name}: ${what}`, value, limit, met: value <= limit });
  const files = name.includes('files') ? [target('files of the second, seconds', at((run) => run.filesMs / 1000), 1)] : [target('second, times the first', at((run) => run.secondMs / run.firstMs), 1 / 3)];
  const stored = at((run) => run.changedBytes) > 0
    ? target('stored, times the changed bytes', at((run) => run.secondBytes / run.changedBytes), 1.1)
    : target('stored, % of the first', at((run) => (run.secondBytes / run.firstBytes) * 100), 0.5);
  return [stored, ...files];
}

function table(results: readonly { readonly name: string; readonly runs: readonly IncrementalRun[] }[]): string {
  const rows = results.map(({ name, runs }) => {
    const at = (value: (run: IncrementalRun) => number): number => median(runs.map(value));
    return [name, formatDuration(at((run) => run.firstMs)), formatBytes(at((run) => run.firstBytes)), formatBytes(at((run) => run.changedBytes)), formatDuration(at((run) => run.secondMs)), formatBytes(at((run) => run.secondBytes)), formatDuration(at((run) => run.filesMs))];
  });
  return align([['', 'first', 'stored', 'changed', 'second', 'stored', 'of it files'], ...rows]);
}
