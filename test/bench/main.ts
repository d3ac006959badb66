/** What scripts/bench runs in a box: Stasis beside plain runc and podman, the same workloads in the same minutes. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { parseArgs } from 'node:util';
import { formatBytes, formatDuration, GiB } from '../../src/core/units.ts';
import { align } from '../demo/table.ts';
import { measureIncremental } from './incremental.ts';
import { warmMemory } from './measure.ts';
import { measure, type Result } from './run.ts';
import { plainRunc } from './systems/plain.ts';
import { podman } from './systems/podman.ts';
import { stasis } from './systems/stasis.ts';
import type { System } from './systems/system.ts';
import { targets } from './targets.ts';
import { workloads, type Workload } from './workloads.ts';

const { values: options } = parseArgs({
  options: { runs: { type: 'string', default: '5' }, only: { type: 'string', multiple: true }, json: { type: 'string' }, 'no-podman': { type: 'boolean' } },
});
const runs = Number(options.runs);
const say = (line: string): void => { process.stderr.write(`${line}\n`); };

/** What a run touches at once: heap, images, staging, page cache. */
const WARM_GIB = 8;

async function systemsFor(workload: Workload): Promise<System[]> {
  const systems: System[] = [await stasis('stasis', {})];
  if (!workload.files) systems.push(plainRunc('runc, tmpfs', '/tmp'), plainRunc('runc, ext4', '/srv'));
  if (options['no-podman'] !== true) systems.push(podman());
  if (workload.name === 'heap') systems.push(await stasis('stasis, null cipher', { STASIS_REPOSITORY_CIPHER: 'null' }));
  return systems;
}

function table(workload: Workload, results: readonly Result[]): string {
  const time = (ms: number): string => (Number.isNaN(ms) ? '-' : formatDuration(ms));
  const rows = results.map(({ system, median, peakMiB, failures }) => [
    system, time(median.snapshotMs), time(median.frozenMs), time(median.pauseMs), time(median.stopMs), time(median.restoreMs), formatBytes(median.bytes), peakMiB === undefined ? '-' : `${peakMiB} MiB`, String(failures.length),
  ]);
  return `${workload.title}\n${align([['', 'left running', 'frozen', 'seen pause', 'stopped', 'restored', 'stored', 'agent peak', 'failed'], ...rows])}\n`;
}

function machine(): Record<string, string | number> {
  const version = (...command: readonly string[]): string => (execFileSync(command[0] ?? '', command.slice(1), { encoding: 'utf8' }).split('\n')[0] ?? '').replace(/^.*ersion:? /, '');
  return {
    processor: `${cpus().length} x ${cpus()[0]?.model ?? 'unknown'}`, memoryGiB: Math.round(totalmem() / GiB), kernel: release(), node: process.version,
    criu: version('criu', '--version'), runc: version('runc', '--version'), podman: version('podman', '--version'),
  };
}

if (!Number.isInteger(runs) || runs < 1) throw new Error(`--runs is a number of runs, not ${options.runs}`);
const incremental = options.only === undefined || options.only.some((list) => list.split(',').includes('incremental'));
const chosen = workloads.filter(({ name }) => options.only === undefined || options.only.some((list) => list.split(',').includes(name)));
if (chosen.length === 0 && !incremental) throw new Error(`--only knows ${workloads.map(({ name }) => name).join(', ')}, incremental`);
say(`Warming ${WARM_GIB} GiB of memory …`);
warmMemory(WARM_GIB);
const results: Result[] = [];
for (const workload of chosen) {
  const systems = await systemsFor(workload);
  try {
    const measured = await measure(workload, systems, runs, say);
    results.push(...measured);
    console.log(table(workload, measured));
  } finally {
    for (const system of systems) await system.close();
  }
}
const second = incremental ? await measureIncremental(runs, say) : undefined;
if (second !== undefined) console.log(second.table);
const promised = [...targets(results), ...(second?.targets ?? [])];
console.log(align([['promise', 'measured', 'at most', ''], ...promised.map(({ name, value, limit, met }) => [name, value.toFixed(2), limit.toFixed(2), met ? 'met' : 'MISSED'])]));
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify({ machine: machine(), runs, results, ...(second === undefined ? {} : { incremental: second.results }), targets: promised }, undefined, 2)}\n`);
