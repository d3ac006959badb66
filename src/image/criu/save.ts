/** Saves a directory of CRIU images as blobs of a checkpoint (docs/FORMAT-IMAGE.md): metadata whole, memory cut at windows of its address space. */
import { readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import { Semaphore } from '../../core/limits.ts';
import { MiB } from '../../core/units.ts';
import type { Piece } from '../../repository/stage/port.ts';
import type { CheckpointWriter } from '../../repository/types.ts';
import type { CriuImageSummary, MemoryLayer, ReceivedMemory, SaveImages } from '../types.ts';
import { listImages, pagemapRuns, readMemoryImages, readWhole } from './directory.ts';
import type { ImageFile, MemoryImage } from './directory.ts';
import { singleEntry } from './framing.ts';
import type { MemoryLayers, Ranges } from './layers.ts';
import { PE_PRESENT, PagemapReader, pagesName, parsePagemapName } from './pagemap.ts';
import type { PageRun } from './pagemap.ts';
import { lockedRanges } from './records.ts';
import { describeImages } from './report.ts';
import { WINDOW_BYTES, WindowCutter } from './windows.ts';

/** The most that CheckpointWriter.putSmall takes. */
const MAX_SMALL_BYTES = MiB;
/** Files whose pieces are offered at the same time; the writer bounds what is really in flight. */
const PARALLEL_FILES = 8;
const PAGE_SIZES = [4096, 16_384, 65_536];

interface Saving {
  readonly writer: CheckpointWriter;
  readonly prefix: string;
  readonly imageDir: string;
  readonly signal: AbortSignal | undefined;
  readonly onBytes: (count: number) => void;
}

/** Throws DUMP_FAILED or OBJECT_CORRUPT when the directory is no complete set of images. */
export const saveImages: SaveImages = async (writer, prefix, imageDir, { signal, onBytes = () => {}, received, layers }) => {
  const saving: Saving = { writer, prefix, imageDir, signal, onBytes };
  if (layers !== undefined && layers.depth > 0) return saveLast(saving, layers, received);
  layers?.drop(writer);
  const files = await listImages(imageDir);
  const memory = await readMemoryImages(imageDir, files);
  requireComplete(imageDir, files);
  checkOverlap(files, received);
  const byPages = new Map(memory.map((image) => [pagesName(image.pagesId), image]));
  await saveAll(saving, files, byPages);
  return describe(saving, files, memory, received);
};

function requireComplete(imageDir: string, files: readonly ImageFile[]): void {
  if (files.some(({ name }) => name === 'inventory.img')) return;
  throw new StasisError('DUMP_FAILED', `${imageDir} has no inventory.img: the dump did not finish`, { hint: 'the log of CRIU in the work directory tells the cause' });
}

/** The dump that ends several rounds. Its own pagemaps are not saved, but what they and those of the rounds before say together. */
async function saveLast(saving: Saving, layers: MemoryLayers, received: ReceivedMemory | undefined): Promise<CriuImageSummary> {
  const { writer, prefix, imageDir, signal } = saving;
  requireComplete(imageDir, await listImages(imageDir, { round: true }));
  const { files, images } = await saveMemory({ ...saving, prefix: layers.begin() });
  layers.add([...images, ...(received?.layers ?? [])]);
  const rest = files.filter(({ name }) => parsePagemapName(name) === undefined && !/^pages-\d+\.img$/.test(name));
  await saveAll(saving, rest, new Map());
  const locked = (pid: number): Ranges => {
    const name = `mm-${pid}.img`;
    return rest.some((file) => file.name === name) ? lockedRanges(singleEntry(readFileSync(join(imageDir, name)), 'mm', name), name) : [];
  };
  const flat = await layers.finish(writer, prefix, { signal, locked });
  layers.drop(writer);
  return describeImages(imageDir, rest, flat, received?.pageSize ?? 4096);
}

/** The memory of a round that is not the last one: pages under `prefix`, and what the pagemaps say. */
export async function saveRound(writer: CheckpointWriter, prefix: string, imageDir: string, { signal, onBytes = () => {} }: { signal: AbortSignal | undefined; onBytes?: (count: number) => void }): Promise<readonly MemoryLayer[]> {
  return (await saveMemory({ writer, prefix, imageDir, signal, onBytes })).images;
}

async function saveMemory(saving: Saving): Promise<{ files: readonly ImageFile[]; images: readonly MemoryLayer[] }> {
  const files = await listImages(saving.imageDir, { round: true });
  const memory = await readMemoryImages(saving.imageDir, files);
  const byPages = new Map(memory.map((image) => [pagesName(image.pagesId), image]));
  await saveAll(saving, files.filter(({ name }) => byPages.has(name)), byPages);
  const images: MemoryLayer[] = [];
  for (const { pagemap, kind, id, pagesId } of memory) {
    const runs: PageRun[] = [];
    for await (const run of pagemapRuns(join(saving.imageDir, pagemap), new PagemapReader(pagemap))) runs.push(run);
    images.push({ pagemap, kind, id, pagesId, blob: saving.prefix + pagesName(pagesId), runs });
  }
  return { files, images };
}

/** The large files first, side by side; what fails first stops the others from starting. */
async function saveAll(saving: Saving, files: readonly ImageFile[], byPages: ReadonlyMap<string, MemoryImage>): Promise<void> {
  const slots = new Semaphore(PARALLEL_FILES);
  const running: Promise<void>[] = [];
  let failed = false;
  const large = files.filter((file) => byPages.has(file.name) || file.size > MAX_SMALL_BYTES);
  for (const file of large) {
    const slot = await slots.acquire(1, { signal: saving.signal });
    if (failed) break;
    running.push(
      saveLarge(saving, file, byPages.get(file.name))
        .catch((error: unknown) => {
          failed = true;
          throw error;
        })
        .finally(() => slot[Symbol.dispose]()),
    );
    running.at(-1)?.catch(() => {});
  }
  const small = new Set(files);
  for (const file of large) small.delete(file);
  running.push(saveSmall(saving, [...small]));
  const results = await Promise.allSettled(running);
  const problem = results.find((result) => result.status === 'rejected');
  if (problem !== undefined) throw problem.reason;
}

async function saveSmall(saving: Saving, files: readonly ImageFile[]): Promise<void> {
  for (const { name, size } of files) {
    saving.signal?.throwIfAborted();
    const bytes = await readWhole(join(saving.imageDir, name), size);
    await saving.writer.putSmall(saving.prefix + name, bytes, { signal: saving.signal });
    saving.onBytes(bytes.length);
  }
}

async function saveLarge(saving: Saving, { name, size }: ImageFile, memory: MemoryImage | undefined): Promise<void> {
  await using file = await open(join(saving.imageDir, name), 'r');
  const lengths = memory === undefined ? plainCuts(0, size) : memoryCuts(saving.imageDir, memory, size);
  await saving.writer.append(saving.prefix + name, pieces(file.fd, lengths), {
    signal: saving.signal,
    onPiece: (result) => saving.onBytes(result.length),
  });
}

async function* pieces(fd: number, lengths: AsyncIterable<number> | Iterable<number>): AsyncGenerator<Piece> {
  let offset = 0;
  for await (const length of lengths) {
    yield { source: { kind: 'fd', fd, offset, length }, zeroPages: true };
    offset += length;
  }
}

function* plainCuts(from: number, size: number): Generator<number> {
  for (let at = from; at < size; at += WINDOW_BYTES) yield Math.min(WINDOW_BYTES, size - at);
}

/** Lengths of the pieces of a pages file. What no pagemap speaks of comes last, cut plainly. */
async function* memoryCuts(imageDir: string, memory: MemoryImage, size: number): AsyncGenerator<number> {
  const pageSize = pageSizeOf(memory, size);
  const cutter = new WindowCutter();
  let [covered, reached] = [0, 0];
  for await (const run of pagemapRuns(join(imageDir, memory.pagemap), new PagemapReader(memory.pagemap))) {
    if ((run.flags & PE_PRESENT) === 0) continue;
    if (run.address < reached) throw new StasisError('OBJECT_CORRUPT', `${memory.pagemap} is not in the order of addresses`);
    reached = run.address + run.pages * pageSize;
    covered += run.pages * pageSize;
    yield* cutter.push(run.address, run.pages * pageSize);
  }
  yield* cutter.end();
  yield* plainCuts(covered, size);
}

/** CRIU does not record the page size of the machine; the length of the file tells it. */
function pageSizeOf(memory: MemoryImage, size: number): number {
  const exact = PAGE_SIZES.find((pageSize) => memory.pages * pageSize === size);
  if (exact === undefined && memory.pages * 4096 > size) {
    throw new StasisError('DUMP_FAILED', `${pagesName(memory.pagesId)} has ${size} bytes, ${memory.pagemap} speaks of ${memory.pages} pages: the dump is not complete`);
  }
  return exact ?? 4096;
}

function checkOverlap(files: readonly ImageFile[], received: ReceivedMemory | undefined): void {
  const names = new Set(files.map(({ name }) => name));
  const twice = received?.images.find((image) => names.has(image.pagemap) || names.has(pagesName(image.pagesId)));
  if (twice !== undefined) throw new StasisError('DUMP_FAILED', `${twice.pagemap} came over the page server and lies in the image directory too`);
}

async function describe({ imageDir }: Saving, files: readonly ImageFile[], memory: readonly MemoryImage[], received: ReceivedMemory | undefined): Promise<CriuImageSummary> {
  const sizes = new Map(files.map(({ name, size }) => [name, size]));
  const largest = memory.toSorted((a, b) => b.pages - a.pages)[0];
  const local = largest === undefined ? 4096 : pageSizeOf(largest, sizes.get(pagesName(largest.pagesId)) ?? 0);
  return describeImages(imageDir, files, [...memory, ...(received?.images ?? [])], received?.pageSize ?? local);
}
