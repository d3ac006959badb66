/**
 * The part of CRIU's images that must be there before the program runs: all metadata, and of the memory what cannot come
 * later or was needed first the last time. The pages files have their full length, with holes for what comes later; the
 * pagemaps are the same but for the marks of what came now.
 */
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import { MiB } from '../../core/units.ts';
import type { CheckpointReader, ExtractJob } from '../../repository/types.ts';
import { pagemapRuns } from '../criu/directory.ts';
import { createImages, findImages, freshDirectory } from '../criu/load.ts';
import { PE_LAZY, PE_PRESENT, PagemapReader, PagemapWriter, pagesName, parsePagemapName } from '../criu/pagemap.ts';
import type { PageRun } from '../criu/pagemap.ts';
import { LazyTask, PAGE } from './tasks.ts';
import type { WorkingSet } from './working-set.ts';

const PAGES_FILE = /^pages-\d+\.img$/;

interface Range {
  readonly offset: number;
  length: number;
}

export interface LazyImages {
  /** Tasks with pages that are still to come. */
  readonly tasks: readonly LazyTask[];
  /** Bytes of pages that were brought back now. */
  readonly eagerBytes: number;
}

export async function loadLazyImages(reader: CheckpointReader, prefix: string, imageDir: string, workingSet: WorkingSet, options: { signal: AbortSignal | undefined; onBytes?: (count: number) => void }): Promise<LazyImages> {
  const images = findImages(reader.blobs, prefix);
  await freshDirectory(imageDir);
  await createImages(reader, imageDir, images.filter(({ name }) => !PAGES_FILE.test(name)), options);
  const eager = new Map<string, Range[]>();
  const tasks: LazyTask[] = [];
  for (const name of readdirSync(imageDir)) {
    const parsed = parsePagemapName(name);
    if (parsed === undefined) continue;
    const task = await readTask(imageDir, name, parsed, prefix, workingSet, eager);
    if (task.lazyBytes > 0) tasks.push(task);
  }
  let eagerBytes = 0;
  for (const image of images.filter(({ name }) => PAGES_FILE.test(name))) {
    // What no pagemap speaks of is brought back as it is.
    const ranges = eager.get(image.blob) ?? [{ offset: 0, length: image.length }];
    await createImages(reader, imageDir, [image], { ...options, jobs: (job) => ranges.map((range): ExtractJob => ({ ...job, ...range })) });
    eagerBytes += ranges.reduce((sum, { length }) => sum + length, 0);
  }
  return { tasks, eagerBytes };
}

async function readTask(imageDir: string, name: string, { kind, id }: { kind: 'task' | 'shmem'; id: number }, prefix: string, workingSet: WorkingSet, eager: Map<string, Range[]>): Promise<LazyTask> {
  const pagemap = new PagemapReader(name);
  const runs: PageRun[] = [];
  let changed = false;
  for await (const run of pagemapRuns(join(imageDir, name), pagemap)) {
    if ((run.flags & PE_PRESENT) === 0) throw new StasisError('OBJECT_CORRUPT', `${name} leaves pages to a parent image`, { hint: 'restore without --lazy' });
    const parts = kind === 'task' ? [...workingSet.cut(id, run)] : [run];
    for (const part of parts) changed = addRun(runs, part) || changed;
    changed ||= parts.length > 1 || parts[0]?.flags !== run.flags;
  }
  const pagesId = pagemap.pagesId ?? 0;
  if (changed) rewrite(join(imageDir, name), pagesId, runs);
  const task = new LazyTask(id, prefix + pagesName(pagesId));
  const ranges: Range[] = [];
  let offset = 0;
  for (const run of runs) {
    task.add(run);
    const length = run.pages * PAGE;
    if ((run.flags & PE_LAZY) === 0 || kind === 'shmem') addRange(ranges, offset, length);
    offset += length;
  }
  eager.set(task.blob, ranges);
  return kind === 'shmem' ? new LazyTask(id, task.blob) : task;
}

/** criu asks for no more at once than one run has. It allocates as much as the longest has. */
const MAX_RUN_PAGES = (16 * MiB) / PAGE;

/** Joins neighbours; true when it did. */
function addRun(runs: PageRun[], run: PageRun): boolean {
  const last = runs.at(-1);
  const joins = last !== undefined && last.flags === run.flags && last.address + last.pages * PAGE === run.address && last.pages + run.pages <= MAX_RUN_PAGES;
  if (joins) runs[runs.length - 1] = { ...last, pages: last.pages + run.pages };
  else runs.push(run);
  return joins;
}

function addRange(ranges: Range[], offset: number, length: number): void {
  const last = ranges.at(-1);
  if (last !== undefined && last.offset + last.length === offset) last.length += length;
  else ranges.push({ offset, length });
}

function rewrite(path: string, pagesId: number, runs: readonly PageRun[]): void {
  const writer = new PagemapWriter();
  writeFileSync(path, Buffer.concat([writer.head(pagesId), ...runs.map((run) => writer.run(run))]), { mode: 0o600 });
}
