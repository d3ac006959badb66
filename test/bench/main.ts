/** What scripts/bench runs in a box: Stasis beside its rivals, the same data in the same minutes. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { parseArgs } from 'node:util';
import { GiB } from '../../src/core/units.ts';
import { align } from '../demo/table.ts';
import { besideRivals } from './beside.ts';
import { incremental } from './incremental.ts';
import { lazyRestore } from './lazy.ts';
import { warmMemory } from './measure.ts';
import type { Measured, Part } from './part.ts';
import { rehearsals } from './rehearsal.ts';
import { repositoryThroughput } from './repository/part.ts';

const { values: options } = parseArgs({
  options: { runs: { type: 'string', default: '5' }, only: { type: 'string', multiple: true }, json: { type: 'string' }, 'no-podman': { type: 'boolean' }, 'lazy-mib': { type: 'string', default: '2048' } },
});
const runs = Number(options.runs);
const say = (line: string): void => { process.stderr.write(`${line}\n`); };

/** What a run touches at once: heap, images, staging, page cache. */
const WARM_GIB = 8;

const parts: readonly Part[] = [...besideRivals({ podman: options['no-podman'] !== true }), incremental, rehearsals, lazyRestore(Number(options['lazy-mib'])), ...repositoryThroughput];

function machine(): Record<string, string | number> {
  const version = (...command: readonly string[]): string => (execFileSync(command[0] ?? '', command.slice(1), { encoding: 'utf8' }).split('\n')[0] ?? '').replace(/^.*ersion:? /, '');
  return {
    processor: `${cpus().length} x ${cpus()[0]?.model ?? 'unknown'}`, memoryGiB: Math.round(totalmem() / GiB), kernel: release(), node: process.version,
    criu: version('criu', '--version'), runc: version('runc', '--version'), podman: version('podman', '--version'),
  };
}

if (!Number.isInteger(runs) || runs < 1) throw new Error(`--runs is a number of runs, not ${options.runs}`);
const wanted = options.only?.flatMap((list) => list.split(','));
/** By its name, or by the first word of it. */
const isPart = (name: string, part: Part): boolean => part.name === name || part.name.startsWith(`${name}-`);
const unknown = wanted?.filter((name) => !parts.some((part) => isPart(name, part))) ?? [];
if (unknown.length > 0) throw new Error(`--only knows ${parts.map(({ name }) => name).join(', ')}; not ${unknown.join(', ')}`);
say(`Warming ${WARM_GIB} GiB of memory …`);
warmMemory(WARM_GIB);
const measured: (Measured & { readonly name: string })[] = [];
for (const part of parts.filter((part) => wanted?.some((name) => isPart(name, part)) ?? true)) {
  const one = { name: part.name, ...(await part.measure(runs, say)) };
  measured.push(one);
  console.log(`${one.table}\n`);
}
const promised = measured.flatMap(({ targets }) => targets);
console.log(align([['promise', 'measured', 'at most', ''], ...promised.map(({ name, value, limit, met }) => [name, value.toFixed(2), limit.toFixed(2), met ? 'met' : 'MISSED'])]));
if (options.json !== undefined) {
  const results = Object.fromEntries(measured.map(({ name, results: all }) => [name, all]));
  writeFileSync(options.json, `${JSON.stringify({ machine: machine(), runs, results, targets: promised }, undefined, 2)}\n`);
}
