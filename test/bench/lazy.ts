/**
 * Lazy restore beside the eager one: how soon the program goes on, how fast the rest arrives meanwhile, and how many pages it
 * has to wait for the first and the second time. The program works on a part of its heap and now and then on the rest.
 */
import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { formatBytes, formatDuration } from '../../src/core/units.ts';
import { checkpoint, endAgents, makeHome, removeHome, restore, startAgent, type TestAgent } from '../support/agent.ts';
import { startContainer } from '../support/containers.ts';
import { assertNothingWrong, checkedHeapArgs, heapLines, waitForLooks } from '../support/workloads/checked-heap.ts';
import { align } from '../demo/table.ts';
import { median, settle } from './measure.ts';
import type { Part } from './part.ts';
import type { Target } from './targets.ts';

interface Restored {
  /** From the request until the answer, and until the program says something. */
  readonly answerMs: number;
  readonly progressMs: number;
  /** From the request until all memory was there. */
  readonly completeMs: number;
  /** Of the fill alone, and the bytes that it brought. */
  readonly fillMs: number;
  readonly bytes: number;
  readonly faults: number;
}

interface LazyRun {
  readonly eager: Restored;
  readonly first: Restored;
  readonly second: Restored;
}

/** 32 MiB that are in use, and a look at one of the other blocks for every 2048 looks at those. */
const HOT_BLOCKS = 512;
const STRIDE = 2048;

export function lazyRestore(mib: number): Part {
  return {
    name: 'lazy',
    measure: async (runs, say) => {
      const results = await measureLazy(mib, runs, say);
      return { results, targets: lazyTargets(results), table: lazyTable(mib, results) };
    },
  };
}

async function measureLazy(mib: number, runs: number, say: (line: string) => void): Promise<LazyRun[]> {
  const home = makeHome();
  const agent = await startAgent(home, { STASIS_STAGING_SIZE: '4G' });
  const results: LazyRun[] = [];
  try {
    for (let run = 1; run <= runs; run++) {
      const one = await once(agent, `lazy-bench-${run}`, mib);
      say(`lazy, run ${run} of ${runs}: progress after ${Math.round(one.eager.progressMs)} ms eagerly, ${Math.round(one.first.progressMs)} and ${Math.round(one.second.progressMs)} ms lazily; faults ${one.first.faults}, then ${one.second.faults}`);
      results.push(one);
    }
    await agent.stop();
  } finally {
    await endAgents();
    await removeHome(home);
  }
  return results;
}

async function once(agent: TestAgent, id: string, mib: number): Promise<LazyRun> {
  const container = await startContainer({ runtime: 'runc', id, args: checkedHeapArgs(mib, HOT_BLOCKS, STRIDE) });
  const output = join(agent.home.state, 'output', `${id}.stdout.log`);
  try {
    await waitForLooks(container.outputFile, 4, 300_000);
    const saved = await checkpoint(agent, id, { newLineage: true });
    const restored: Restored[] = [];
    for (const lazy of ['never', 'always', 'always'] as const) {
      settle();
      restored.push(await bringBack(agent, saved.checkpoint, output, lazy));
      assertNothingWrong(output);
      const { checkpoint: thrownAway } = await checkpoint(agent, id, { newLineage: true });
      await agent.client.deleteCheckpoint({ checkpoint: thrownAway, reason: 'bench' }, { signal: undefined });
    }
    await agent.client.deleteCheckpoint({ checkpoint: saved.checkpoint, reason: 'bench' }, { signal: undefined });
    const [eager, first, second] = restored;
    assert.ok(eager !== undefined && first !== undefined && second !== undefined);
    return { eager, first, second };
  } finally {
    await container.stop();
  }
}

async function bringBack(agent: TestAgent, id: string, output: string, lazy: 'never' | 'always'): Promise<Restored> {
  const size = (): number => statSync(output, { throwIfNoEntry: false })?.size ?? 0;
  const [from, before] = [performance.now(), size()];
  const answering = restore(agent, id, { lazy }).then((result) => ({ result, answerMs: performance.now() - from }));
  while (size() === before && performance.now() - from < 120_000) await delay(1);
  const progressMs = performance.now() - from;
  const { result, answerMs } = await answering;
  if (result.fillOperationId === undefined) return { answerMs, progressMs, completeMs: answerMs, fillMs: answerMs, bytes: result.bytes, faults: 0 };
  for await (const event of agent.client.watchOperations({ operationId: result.fillOperationId }, { signal: undefined })) {
    const [operation] = event.type === 'snapshot' ? event.snapshot.operations : [event.changed];
    assert.equal(operation?.error, undefined, JSON.stringify(operation));
  }
  const completeMs = performance.now() - from;
  const finished = agent.log.findLast(({ event }) => event === 'fill.finished');
  assert.ok(heapLines(output).length > 0);
  return { answerMs, progressMs, completeMs, fillMs: Number(finished?.['duration_ms']), bytes: Number(finished?.['bytes']), faults: Number(finished?.['faults']) };
}

function lazyTable(mib: number, runs: readonly LazyRun[]): string {
  const of = (which: keyof LazyRun, figure: keyof Restored): number => median(runs.map((run) => run[which][figure]));
  const rows = (['eager', 'first', 'second'] as const).map((which) => [
    { eager: 'eager', first: 'lazy', second: 'lazy again' }[which], formatDuration(of(which, 'answerMs')), formatDuration(of(which, 'progressMs')), formatDuration(of(which, 'completeMs')),
    `${formatBytes((of(which, 'bytes') * 1000) / of(which, 'fillMs'))}/s`, String(of(which, 'faults')),
  ]);
  return `lazy: ${mib / 1024} GiB, of which the program uses ${HOT_BLOCKS / 16} MiB\n${align([['', 'restored', 'program goes on', 'all there', 'rate', 'faults'], ...rows])}`;
}

function lazyTargets(runs: readonly LazyRun[]): Target[] {
  const of = (figure: (run: LazyRun) => number): number => median(runs.map(figure));
  const target = (name: string, value: number, limit: number): Target => ({ name, value, limit, met: value <= limit });
  const rate = ({ bytes, fillMs }: Restored): number => bytes / fillMs;
  return [
    target('lazy: first progress, times the eager restore', of(({ eager, first }) => first.progressMs / eager.answerMs), 1 / 5),
    target('lazy: faults left on the second restore, share of the first', of(({ first, second }) => second.faults / Math.max(1, first.faults)), 0.05),
    target('lazy: eager rate, times the background rate', of(({ eager, first }) => rate(eager) / rate(first)), 1 / 0.6),
  ];
}
