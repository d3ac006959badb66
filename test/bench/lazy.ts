/**
 * Lazy restore beside the eager one: how soon the program goes on, how fast the rest arrives meanwhile, and how many pages it
 * has to wait for the first and the second time. The program works on a part of its heap and now and then on the rest.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { formatBytes, formatDuration } from '../../src/core/units.ts';
import { removeBundle } from '../../src/runtime/index.ts';
import { checkpoint, endAgents, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startContainer } from '../support/containers.ts';
import { startBucket } from '../support/s3-bucket.ts';
import { assertNothingWrong, checkedHeapArgs, waitForLooks } from '../support/workloads/checked-heap.ts';
import { align } from '../demo/table.ts';
import { median, residentMiB, settle, warmMemory } from './measure.ts';
import type { Part } from './part.ts';
import type { Target } from './targets.ts';

const exec = promisify(execFile);

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
  /** Of an agent that did nothing but these restores. */
  readonly peakMiB: number;
}

interface StoreResult {
  readonly store: string;
  readonly runs: LazyRun[];
}

/** 32 MiB that are in use, and a look at one of the other blocks for every 2048 looks at those. */
const HOT_BLOCKS = 512;
const STRIDE = 2048;
const WATCH_MS = 20;
const MEMORY_LIMIT_MIB = 300;

export function lazyRestore(mib: number): Part {
  return {
    name: 'lazy',
    measure: async (runs, say) => {
      // Its dbstore alone answers ranges wrongly.
      await using bucket = await startBucket('lazy-bench', { backend: 'posix' });
      const results = [await measureLazy('S3', bucket.agentEnvironment('lazy'), mib, runs, say), await measureLazy('directory', {}, mib, runs, say)];
      return { results, targets: lazyTargets(results), table: lazyTable(mib, results) };
    },
  };
}

async function measureLazy(store: string, environment: Readonly<Record<string, string>>, mib: number, count: number, say: (line: string) => void): Promise<StoreResult> {
  const home = makeHome();
  const runs: LazyRun[] = [];
  try {
    for (let run = 1; run <= count; run++) {
      const one = await once(home, { STASIS_STAGING_SIZE: '4G', ...environment }, `lazy-bench-${run}`, mib);
      say(`lazy, ${store}, run ${run} of ${count}: progress after ${Math.round(one.eager.progressMs)} ms eagerly, ${Math.round(one.first.progressMs)} and ${Math.round(one.second.progressMs)} ms lazily; faults ${one.first.faults}, then ${one.second.faults}`);
      runs.push(one);
    }
  } finally {
    await endAgents();
    await removeHome(home);
  }
  return { store, runs };
}

async function once(home: AgentHome, environment: Record<string, string>, id: string, mib: number): Promise<LazyRun> {
  const container = await startContainer({ runtime: 'runc', id, args: checkedHeapArgs(mib, HOT_BLOCKS, STRIDE) });
  const output = join(home.state, 'output', `${id}.stdout.log`);
  try {
    await waitForLooks(container.outputFile, 4, 300_000);
    const saver = await startAgent(home, environment);
    const saved = await checkpoint(saver, id, { newLineage: true });
    await saver.stop();
    const agent = await startAgent(home, environment);
    let peakMiB = 0;
    const watch = setInterval(() => { peakMiB = Math.max(peakMiB, residentMiB(agent.pid)); }, WATCH_MS);
    const restored: Restored[] = [];
    try {
      for (const lazy of ['never', 'always', 'always'] as const) {
        settle();
        warmMemory((mib * 2) / 1024);
        restored.push(await bringBack(agent, saved.checkpoint, output, lazy));
        assertNothingWrong(output);
      }
    } finally {
      clearInterval(watch);
    }
    await agent.client.deleteCheckpoint({ checkpoint: saved.checkpoint, reason: 'bench' }, { signal: undefined });
    await agent.stop();
    const [eager, first, second] = restored;
    assert.ok(eager !== undefined && first !== undefined && second !== undefined);
    return { eager, first, second, peakMiB };
  } finally {
    await container.stop();
  }
}

/** Restores and measures; the container is removed again. */
async function bringBack(agent: TestAgent, id: string, output: string, lazy: 'never' | 'always'): Promise<Restored> {
  const size = (): number => statSync(output, { throwIfNoEntry: false })?.size ?? 0;
  const [from, before] = [performance.now(), size()];
  const answering = restore(agent, id, { lazy }).then((result) => ({ result, answerMs: performance.now() - from }));
  while (size() === before && performance.now() - from < 120_000) await delay(1);
  const progressMs = performance.now() - from;
  const { result, answerMs } = await answering;
  try {
    if (result.fillOperationId === undefined) return { answerMs, progressMs, completeMs: answerMs, fillMs: answerMs, bytes: result.bytes, faults: 0 };
    for await (const event of agent.client.watchOperations({ operationId: result.fillOperationId }, { signal: undefined })) {
      const [operation] = event.type === 'snapshot' ? event.snapshot.operations : [event.changed];
      assert.equal(operation?.error, undefined, JSON.stringify(operation));
    }
    const completeMs = performance.now() - from;
    const finished = agent.log.findLast(({ event }) => event === 'fill.finished');
    return { answerMs, progressMs, completeMs, fillMs: Number(finished?.['duration_ms']), bytes: Number(finished?.['bytes']), faults: Number(finished?.['faults']) };
  } finally {
    await exec('runc', ['delete', '--force', result.container]);
    await removeBundle(result.bundle);
  }
}

function lazyTable(mib: number, results: readonly StoreResult[]): string {
  const rows = results.flatMap(({ store, runs }) => (['eager', 'first', 'second'] as const).map((which) => {
    const of = (figure: keyof Restored): number => median(runs.map((run) => run[which][figure]));
    return [
      `${store}, ${{ eager: 'eager', first: 'lazy', second: 'lazy again' }[which]}`, formatDuration(of('answerMs')), formatDuration(of('progressMs')), formatDuration(of('completeMs')),
      `${formatBytes((of('bytes') * 1000) / of('fillMs'))}/s`, String(of('faults')), `${Math.round(median(runs.map(({ peakMiB }) => peakMiB)))} MiB`,
    ];
  }));
  return `lazy: ${mib / 1024} GiB, of which the program uses ${HOT_BLOCKS / 16} MiB\n${align([['', 'restored', 'program goes on', 'all there', 'rate', 'faults', 'agent peak'], ...rows])}`;
}

function lazyTargets(results: readonly StoreResult[]): Target[] {
  const rate = ({ bytes, fillMs }: Restored): number => bytes / fillMs;
  return results.flatMap(({ store, runs }) => {
    const target = (name: string, figure: (run: LazyRun) => number, limit: number): Target => {
      const value = median(runs.map(figure));
      return { name: `lazy, ${store}: ${name}`, value, limit, met: value <= limit };
    };
    return [
      target('first progress, times the eager restore', ({ eager, first }) => first.progressMs / eager.answerMs, 1 / 5),
      target('faults left on the second restore, share of the first', ({ first, second }) => second.faults / Math.max(1, first.faults), 0.05),
      target('eager rate, times the background rate', ({ eager, second }) => rate(eager) / rate(second), 1 / 0.6),
      target('agent, eager and lazy restore, MiB', ({ peakMiB }) => peakMiB, MEMORY_LIMIT_MIB),
    ];
  });
}
