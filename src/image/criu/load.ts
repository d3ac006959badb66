/** Rebuilds a directory of CRIU images from the blobs of a checkpoint, byte for byte. Every byte has been verified before it is written. */
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import type { ExtractJob } from '../../repository/types.ts';
import type { LoadImages } from '../types.ts';
import { MAX_IMAGE_FILES, checkImageName } from './directory.ts';

/** Files open at the same time. */
const BATCH = 256;

interface Target {
  readonly name: string;
  readonly blob: string;
  readonly length: number;
}

/** Throws OBJECT_MISSING when there is nothing under the prefix, PATH_ESCAPES for a hostile name. */
export const loadImages: LoadImages = async (reader, prefix, imageDir, options) => {
  const targets = findTargets(reader.blobs, prefix);
  await freshDirectory(imageDir);
  for (let start = 0; start < targets.length; start += BATCH) {
    using files = new DisposableStack();
    const jobs = targets.slice(start, start + BATCH).map((target) => create(imageDir, target, files));
    await reader.extract(jobs, options);
  }
};

/**
 * Zero runs are not delivered: the file is made as one hole of its full length first. At once, not through the thread
 * pool: a tmpfs answers in microseconds, and a dump of a thousand processes has ten thousand files.
 */
function create(imageDir: string, { name, blob, length }: Target, files: DisposableStack): ExtractJob {
  const fd = openSync(join(imageDir, name), 'wx', 0o600);
  files.defer(() => closeSync(fd));
  ftruncateSync(fd, length);
  return { blob, sink: ({ offset }) => ({ kind: 'fd', fd, offset }) };
}

function findTargets(blobs: ReadonlyMap<string, number>, prefix: string): Target[] {
  const targets: Target[] = [];
  for (const [blob, length] of blobs) {
    if (blob.startsWith(prefix)) targets.push({ name: checkImageName(blob.slice(prefix.length)), blob, length });
  }
  if (targets.length === 0) throw new StasisError('OBJECT_MISSING', `the checkpoint has no images under ${JSON.stringify(prefix)}`);
  if (targets.length > MAX_IMAGE_FILES) throw new StasisError('LIMIT_EXCEEDED', `the checkpoint has ${targets.length} image files; at most ${MAX_IMAGE_FILES} are restored`);
  return targets;
}

async function freshDirectory(imageDir: string): Promise<void> {
  await mkdir(imageDir, { recursive: true, mode: 0o700 });
  const [present] = await readdir(imageDir);
  if (present !== undefined) throw new StasisError('INTERNAL', `the image directory ${imageDir} is not empty: it has ${present}`);
}
