/**
 * How long a tree of many small files takes: read-ahead, freeze without and with changes, finish, load. In a box:
 * node test/bench/tree.js [files] [directory]. Prints one JSON object. 92,000 files of 15 KiB on average unless told.
 */
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../../src/core/clock.ts';
import { newCheckpointId } from '../../src/core/ids.ts';
import { TreeSaver, loadTree } from '../../src/image/tree/index.ts';
import { fileKeyProvider, openDirectoryStore, openRepository } from '../../src/repository/index.ts';

const signal = undefined;
const files = Number(process.argv[2] ?? 92_000);
const base = mkdtempSync(join(process.argv[3] ?? '/srv', 'bench-'));
const times: Record<string, readonly [wallMs: number, cpuMs: number, peakMiB: number]> = {};

/** Milliseconds of wall and of processor time (all threads), and the peak of resident memory in MiB. */
async function timed<T>(name: string, work: () => Promise<T> | T): Promise<T> {
  // 5 resets the peak (proc(5), clear_refs).
  writeFileSync('/proc/self/clear_refs', '5');
  const from = performance.now();
  const cpu = process.cpuUsage();
  const result = await work();
  const { user, system } = process.cpuUsage(cpu);
  const peak = Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0);
  times[name] = [Math.round(performance.now() - from), Math.round((user + system) / 1000), Math.round(peak / 1024)];
  return result;
}

/** Text as programs are: slices of the JavaScript files of our own dependencies. */
function corpus(): Buffer {
  const directory = new URL('../../../../../node_modules/', import.meta.url);
  const found = readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter((path) => /\.(js|d\.ts|md)$/.test(path)).toSorted();
  const parts: Buffer[] = [];
  for (let size = 0, i = 0; size < 40_000_000 && i < found.length; i++) {
    const part = readFileSync(new URL(found[i] as string, directory));
    size += part.length;
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/** Sizes as in a source tree: most are small, a few are large; the average is 15 KiB. */
function makeTree(root: string, text: Buffer): void {
  let seed = 1;
  const random = (): number => (seed = (seed * 48271) % 2147483647) / 2147483647;
  for (let i = 0; i < files; i++) {
    const path = join(root, `top${i % 50}`, `sub${(i >> 3) % 100}`);
    if (i < 50 * 100 * 8) mkdirSync(path, { recursive: true });
    const size = Math.floor(-Math.log(1 - random()) * 15 * 1024);
    const at = Math.floor(random() * (text.length - size));
    writeFileSync(join(path, `file-${i}.c`), text.subarray(at, at + size));
  }
}

const store = await openDirectoryStore(join(base, 'repository'));
const keys = await fileKeyProvider(join(base, 'key'), { create: true });
const repository = await openRepository({ store, keys, clock: systemClock, workers: cpus().length });
try {
  const root = join(base, 'tree');
  await timed('make', () => makeTree(root, corpus()));
  await sleep(200);

  const writer = await repository.begin({ id: newCheckpointId(Date.now()), lineage: undefined }, { signal });
  await using saver = new TreeSaver({ writer, prefix: 'tree/', root, kind: 'overlay-upper' });
  await timed('readAhead', async () => saver.readAhead({ signal }));
  await timed('deltaUnchanged', async () => saver.delta({ signal }));
  for (let i = 0; i < 100; i++) appendFileSync(join(root, `top${i % 50}`, `sub${(i >> 3) % 100}`, `file-${i}.c`), 'changed');
  await timed('delta100', async () => saver.delta({ signal }));
  const saved = await timed('finish', async () => saver.finish({ signal }));
  const summary = await timed('commit', async () => writer.commit({}, { signal }));

  const reader = await repository.open(summary.id, { signal });
  const target = join(base, 'target');
  mkdirSync(target);
  const loaded = await timed('loadTree', async () => loadTree(reader, 'tree/', target, { signal }));
  process.stdout.write(`${JSON.stringify({ files, times, saved, loaded, bytes: summary.bytes })}\n`);
} finally {
  await repository.close();
  await store.close();
  rmSync(base, { recursive: true });
}
