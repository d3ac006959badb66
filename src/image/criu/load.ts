/** Rebuilds a directory of CRIU images from the blobs of a checkpoint, byte for byte. Every byte has been verified before it is written. */
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import type { CheckpointReader, ExtractJob } from '../../repository/types.ts';
import type { LoadImages } from '../types.ts';
import { MAX_IMAGE_FILES, checkImageName } from './directory.ts';

/** Files open at the same time. */
const BATCH = 256;

/** A file of the images, and where it is saved. */
export interface SavedImage {
  readonly name: string;
  readonly blob: string;
  readonly length: number;
}

/** Throws OBJECT_MISSING when there is nothing under the prefix, PATH_ESCAPES for a hostile name. */
export const loadImages: LoadImages = async (reader, prefix, imageDir, options) => {
  const images = findImages(reader.blobs, prefix);
  await freshDirectory(imageDir);
  await createImages(reader, imageDir, images, options);
};

/** `jobs`: which parts of a file, the whole of it unless told; the rest stays a hole. */
export async function createImages(reader: CheckpointReader, imageDir: string, images: readonly SavedImage[], options: Parameters<LoadImages>[3] & { readonly jobs?: (whole: ExtractJob) => readonly ExtractJob[] }): Promise<void> {
  const { jobs = (whole) => [whole] } = options;
  for (let start = 0; start < images.length; start += BATCH) {
    using files = new DisposableStack();
    const wanted = images.slice(start, start + BATCH).flatMap((image) => jobs(create(imageDir, image, files)));
    await reader.extract(wanted, options);
  }
}

/**
 * Zero runs are not delivered: the file is made as one hole of its full length first. At once, not through the thread
 * pool: a tmpfs answers in microseconds, and a dump of a thousand processes has ten thousand files.
 */
function create(imageDir: string, { name, blob, length }: SavedImage, files: DisposableStack): ExtractJob {
  const fd = openSync(join(imageDir, name), 'wx', 0o600);
  files.defer(() => closeSync(fd));
  ftruncateSync(fd, length);
  return { blob, sink: ({ offset }) => ({ kind: 'fd', fd, offset }) };
}

export function findImages(blobs: ReadonlyMap<string, number>, prefix: string): SavedImage[] {
  const images: SavedImage[] = [];
  for (const [blob, length] of blobs) {
    if (blob.startsWith(prefix)) images.push({ name: checkImageName(blob.slice(prefix.length)), blob, length });
  }
  if (images.length === 0) throw new StasisError('OBJECT_MISSING', `the checkpoint has no images under ${JSON.stringify(prefix)}`);
  if (images.length > MAX_IMAGE_FILES) throw new StasisError('LIMIT_EXCEEDED', `the checkpoint has ${images.length} image files; at most ${MAX_IMAGE_FILES} are restored`);
  return images;
}

/** Made if need be; fails when there is something in it. */
export async function freshDirectory(imageDir: string): Promise<void> {
  await mkdir(imageDir, { recursive: true, mode: 0o700 });
  const [present] = await readdir(imageDir);
  if (present !== undefined) throw new StasisError('INTERNAL', `the image directory ${imageDir} is not empty: it has ${present}`);
}
