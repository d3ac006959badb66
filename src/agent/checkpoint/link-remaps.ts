/**
 * Names that criu gives to open files that have lost theirs (link-remap): "link_remap.7" beside where they were. They belong
 * to a checkpoint, which has saved them. criu takes them away when the container goes on, but not when it ends, nor when criu
 * itself is killed.
 */
import { existsSync } from 'node:fs';
import { lstat, readdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoCode } from '../../core/errors.ts';

const NAME = /^link_remap\.\d+$/;
/** The times of files may be a tick of the kernel behind its clock. */
const TICK_MS = 100;

/** Whether criu has given such names, or has begun to: deleted open files stand in the same image. */
export function mayHaveLinkRemaps(imageDir: string): boolean {
  return existsSync(join(imageDir, 'remap-fpath.img'));
}

/**
 * Removes them below these directories of the node: files of such a name whose links have changed since the container was
 * frozen (milliseconds since 1970), because the same name may be the container's own.
 */
export async function removeLinkRemaps(roots: readonly string[], sinceMs: number): Promise<void> {
  for (const root of roots) {
    for (const path of await candidates(root)) {
      try {
        const { ctimeMs } = await lstat(path);
        if (ctimeMs >= sinceMs - TICK_MS) await unlink(path);
      } catch (error) {
        if (errnoCode(error) !== 'ENOENT') throw error;
      }
    }
  }
}

async function candidates(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  const below = await Promise.all(entries.filter((entry) => entry.isDirectory()).map(({ name }) => candidates(join(directory, name))));
  return [...entries.filter((entry) => entry.isFile() && NAME.test(entry.name)).map(({ name }) => join(directory, name)), ...below.flat()];
}
