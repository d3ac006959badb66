/**
 * The repository alone: how fast data that nobody knows yet is hashed, compressed, sealed and put into a store, beside others
 * that bring the same directory there, and beside what the machine could do at best. One part for each set of data.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../../src/core/clock.ts';
import { formatBytes, formatDuration } from '../../../src/core/units.ts';
import { openDirectoryStore, openS3Store } from '../../../src/repository/index.ts';
import { align } from '../../demo/table.ts';
import { accessKey, secretKey } from '../../support/radosgw.ts';
import { median, settle } from '../measure.ts';
import type { Measured, Part } from '../part.ts';
import { imagesOf, sourceTree } from './data.ts';
import type { DataSet } from './data.ts';
import { restic, tarZstdAge } from './rivals.ts';
import { openBucket } from './secure-bucket.ts';
import type { SecureBucket } from './secure-bucket.ts';
import { names } from './save-results.ts';
import type { SaveResult, SaveRun } from './save-results.ts';
import { saveTargets } from './save-targets.ts';
import type { SaveRequest, Saved, StorePlace } from './save-request.ts';
import { ceilingMs, timePuts, timeStages } from './stage-times.ts';

const exec = promisify(execFile);
const program = fileURLToPath(new URL('../save-once.js', import.meta.url));

const sets: readonly { readonly name: string; readonly title: string; readonly open: () => Promise<DataSet> }[] = [
  { name: 'heap', title: 'what CRIU wrote of the heap', open: () => imagesOf('heap') },
  { name: 'redis', title: 'what CRIU wrote of redis under load', open: () => imagesOf('redis') },
  { name: 'files', title: 'the source tree of 92,000 files', open: sourceTree },
];

export const repositoryThroughput: readonly Part[] = sets.map(({ name, title, open }) => ({
  name: `repository-${name}`,
  measure: async (runs, say) => {
    await using data = await open();
    const results = await measureSet(data, runs, (line) => say(`repository, ${name}, ${line}`));
    return { results, targets: saveTargets(`repository, ${name}`, results), table: table(`repository: ${title}`, results) } satisfies Measured;
  },
}));

async function measureSet(data: DataSet, runs: number, say: (line: string) => void): Promise<SaveResult[]> {
  const results: { store: SaveResult['store']; system: string; runs: SaveRun[] }[] = [];
  for (let run = 1; run <= runs; run += 1) {
    for (const store of ['directory', 's3'] as const) {
      for (const [system, turn] of turns(data)) {
        // A server of its own for each turn: nobody finds it fuller than the one before.
        await using bucket = store === 's3' ? await openBucket() : undefined;
        settle();
        const one = await turn(bucket);
        const known = results.find((result) => result.store === store && result.system === system);
        if (known === undefined) results.push({ store, system, runs: [one] });
        else known.runs.push(one);
        say(`${store}, run ${run} of ${runs}, ${system}: ${Math.round(one.ms)} ms, ${formatBytes(one.stored)}`);
      }
    }
  }
  return results;
}

type Turn = (bucket: SecureBucket | undefined) => Promise<SaveRun>;

function turns(data: DataSet): readonly (readonly [string, Turn])[] {
  return [
    [names.stasis, (bucket) => save(data, bucket, false)],
    [names.restic, (bucket) => restic(data.source, 'auto', bucket)],
    [names.plaintext, (bucket) => save(data, bucket, true)],
    [names.resticOff, (bucket) => restic(data.source, 'off', bucket)],
    [names.tar, (bucket) => tarZstdAge(data.source, bucket)],
    [names.ceiling, (bucket) => ceiling(data, bucket)],
  ];
}

/** The library in a process of its own. */
async function save(data: DataSet, bucket: SecureBucket | undefined, plaintext: boolean): Promise<SaveRun> {
  const base = mkdtempSync('/srv/bench-repository-');
  try {
    const store: StorePlace = bucket === undefined ? { kind: 'directory', path: join(base, 'store') } : { kind: 's3', ...bucket };
    const request: SaveRequest = { source: data.source, kind: data.kind, store, keyFile: join(base, 'key'), plaintext };
    const { stdout } = await exec(process.execPath, [program, JSON.stringify(request)], { env: { ...process.env, AWS_ACCESS_KEY_ID: accessKey, AWS_SECRET_ACCESS_KEY: secretKey } });
    return JSON.parse(stdout) as Saved;
  } finally {
    rmSync(base, { recursive: true, force: true });
  }
}

async function ceiling(data: DataSet, bucket: SecureBucket | undefined): Promise<SaveRun> {
  const base = mkdtempSync('/srv/bench-ceiling-');
  // Of this process; the default chain reads nothing else here.
  [process.env['AWS_ACCESS_KEY_ID'], process.env['AWS_SECRET_ACCESS_KEY']] = [accessKey, secretKey];
  const store = bucket === undefined ? await openDirectoryStore(base) : await openS3Store({
    ...bucket, prefix: 'ceiling', region: undefined, pathStyle: true, storageClass: undefined,
    encryption: { kind: 'bucket' }, parallel: 8, bandwidth: 0, patienceMs: 30_000, clock: systemClock,
  });
  try {
    const stages = await timeStages(data.source, data.kind);
    const puts = await timePuts(store, stages.stored);
    return { ms: ceilingMs(stages, puts), stored: stages.stored, stages, puts };
  } finally {
    await store.close();
    rmSync(base, { recursive: true, force: true });
  }
}

function table(title: string, results: readonly SaveResult[]): string {
  const rows = results.map(({ store, system, runs }) => {
    const at = (value: (run: SaveRun) => number | undefined): number | undefined => {
      const values = runs.map(value).filter((one) => one !== undefined);
      return values.length === 0 ? undefined : median(values);
    };
    const time = (value: number | undefined): string => (value === undefined ? '' : formatDuration(value));
    const peak = at((run) => run.peakMiB);
    return [
      `${store}: ${system}`, time(at((run) => run.ms)), formatBytes(at((run) => run.stored) ?? 0), time(at((run) => run.processorMs)), peak === undefined ? '' : `${peak} MiB`,
      ...(['read', 'hash', 'compress', 'seal'] as const).map((stage) => time(at((run) => run.stages?.[stage]))), time(at((run) => run.puts?.processorMs)), time(at((run) => run.puts?.ms)),
    ];
  });
  return `${title}\n${align([['', 'durable', 'stored', 'processor', 'peak', 'read', 'hash', 'compress', 'seal', 'put', 'put alone'], ...rows])}`;
}
