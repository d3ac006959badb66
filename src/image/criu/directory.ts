/** A directory of CRIU images on disk: what is in it, and reading it within limits. */
import { lstatSync, readFileSync } from 'node:fs';
import { open, readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import { KiB, MiB } from '../../core/units.ts';
import { PE_LAZY, PE_PRESENT, PagemapReader, parsePagemapName } from './pagemap.ts';
import type { PageRun } from './pagemap.ts';

export interface ImageFile {
  readonly name: string;
  readonly size: number;
}

/** CRIU's and runc's file names; nothing with a separator, and nothing hidden. */
const NAME = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$/;
/** Five files for each process and thread: far beyond what a container holds, and a bound on open and listed files. */
export const MAX_IMAGE_FILES = 500_000;
const READ_BYTES = 256 * KiB;
const MAX_METADATA_BYTES = 64 * MiB;

/** Throws PATH_ESCAPES for a name that no image file has. */
export function checkImageName(name: string): string {
  if (NAME.test(name)) return name;
  throw new StasisError('PATH_ESCAPES', `${JSON.stringify(name.slice(0, 100))} is not the name of an image file`);
}

/** The link to the images of the round before. */
const PARENT = 'parent';

/** The files of a directory by name. Refuses anything that is not a regular file: a link to parent images above all, unless this is a `round`. */
export async function listImages(imageDir: string, { round = false } = {}): Promise<ImageFile[]> {
  const names = (await readdir(imageDir)).filter((name) => !round || name !== PARENT).sort();
  if (names.length > MAX_IMAGE_FILES) throw new StasisError('LIMIT_EXCEEDED', `${imageDir} has ${names.length} files; at most ${MAX_IMAGE_FILES} are saved`);
  const files: ImageFile[] = [];
  for (const name of names) {
    const stat = lstatSync(join(imageDir, name));
    if (!stat.isFile()) {
      throw new StasisError('DUMP_FAILED', `${name} in the image directory is not a regular file`, { hint: 'incremental images (a "parent" link) cannot be saved: dump without a parent' });
    }
    files.push({ name: checkImageName(name), size: stat.size });
  }
  return files;
}

/**
 * Images lie in a tmpfs and most are tiny: reading one at once takes 20 µs, going through the thread pool ten times that,
 * and a dump of a thousand processes has ten thousand of them.
 */
const SYNC_BYTES = 64 * KiB;

export async function readWhole(path: string, size: number): Promise<Uint8Array> {
  return size <= SYNC_BYTES ? readFileSync(path) : readFile(path);
}

/** A metadata file as a whole; undefined when the dump has none of that name, or one too large to be looked into. */
export async function readImage(imageDir: string, files: ReadonlyMap<string, number>, name: string): Promise<Uint8Array | undefined> {
  const size = files.get(name);
  if (size === undefined || size > MAX_METADATA_BYTES) return undefined;
  return readWhole(join(imageDir, name), size);
}

/** The runs of a pagemap, in order. */
export async function* pagemapRuns(path: string, reader: PagemapReader): AsyncGenerator<PageRun> {
  if (lstatSync(path).size <= SYNC_BYTES) {
    yield* reader.push(readFileSync(path));
    reader.end();
    return;
  }
  await using file = await open(path, 'r');
  const block = Buffer.alloc(READ_BYTES);
  for (;;) {
    const { bytesRead } = await file.read(block, 0, block.length);
    if (bytesRead === 0) break;
    yield* reader.push(block.subarray(0, bytesRead));
  }
  reader.end();
}

/** The memory that one pagemap describes. */
export interface MemoryImage {
  readonly pagemap: string;
  readonly kind: 'task' | 'shmem';
  /** Pid inside the container's pid namespace, or CRIU's number of the shared segment. */
  readonly id: number;
  readonly pagesId: number;
  /** Pages whose bytes are in the pages file, and those of them that a lazy restore may fetch later. */
  readonly pages: number;
  readonly lazyPages: number;
}

/** Reads a pagemap for its numbers. */
export async function readMemoryImage(imageDir: string, name: string): Promise<MemoryImage> {
  const parsed = parsePagemapName(name);
  if (parsed === undefined) throw new StasisError('OBJECT_CORRUPT', `${name} is not the name of a pagemap`);
  const reader = new PagemapReader(name);
  let [pages, lazyPages] = [0, 0];
  for await (const run of pagemapRuns(join(imageDir, name), reader)) {
    if ((run.flags & PE_PRESENT) === 0) continue;
    pages += run.pages;
    if ((run.flags & PE_LAZY) !== 0) lazyPages += run.pages;
  }
  return { pagemap: name, ...parsed, pagesId: reader.pagesId ?? 0, pages, lazyPages };
}

export async function readMemoryImages(imageDir: string, files: readonly ImageFile[]): Promise<MemoryImage[]> {
  const images: MemoryImage[] = [];
  for (const { name } of files) if (parsePagemapName(name) !== undefined) images.push(await readMemoryImage(imageDir, name));
  return images;
}
