/**
 * Names that criu gives to open files that have lost theirs (link-remap): "link_remap.7" beside where they were. They belong
 * to a checkpoint, which has saved them. criu takes them away when the container goes on, but not when it ends, nor when criu
 * itself is killed; then the agent does, or the next one.
 */
import { closeSync, constants, existsSync, openSync } from 'node:fs';
import { lstat, readdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoCode } from '../../core/errors.ts';
import { O_PATH, openConfined } from '../../host/tree-calls.ts';
import type { NamelessPlace } from '../../runtime/types.ts';

const NAME = /^link_remap\.\d+$/;
/** The times of files may be a tick of the kernel behind its clock. */
const TICK_MS = 100;

/** Whether criu has given such names, or has begun to: deleted open files stand in the same image. */
export function mayHaveLinkRemaps(imageDir: string): boolean {
  return existsSync(join(imageDir, 'remap-fpath.img'));
}

export interface LinkRemaps {
  /** Directories of the node that the checkpoint holds with all that is below them. */
  readonly trees: readonly string[];
  /** Single directories of volumes that it does not hold. */
  readonly places: readonly NamelessPlace[];
  /** Milliseconds since 1970: before anything was frozen. */
  readonly sinceMs: number;
}

/**
 * Removes files of such a name whose links have changed since then, because the same name may be the container's own.
 * What the checkpoint does not hold its restore needs: it stays when that was `saved`.
 */
export async function removeLinkRemaps(
  { trees, places, sinceMs }: LinkRemaps, checkpoint: 'saved' | 'nothing',
): Promise<void> {
  for (const root of trees) await removeYoung(await candidates(root), sinceMs);
  if (checkpoint === 'nothing') await removeIn(places, sinceMs);
}

/** A volume may be its owner's game: no link is followed. */
async function removeIn(places: readonly NamelessPlace[], sinceMs: number): Promise<void> {
  for (const { root, directory } of places) {
    const open: number[] = [];
    try {
      open.push(openSync(root, O_PATH | constants.O_DIRECTORY));
      open.push(
        openConfined(open[0]!, Buffer.from(directory), O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW, 0)
      );
      const at = `/proc/self/fd/${open[1]}`;
      const entries = await readdir(at, { withFileTypes: true });
      await removeYoung(
        entries.filter((entry) => entry.isFile() && NAME.test(entry.name)).map(({ name }) => join(at, name)), sinceMs,
      );
    } catch (error) {
      // Gone by now, or another mount.
      if (errnoCode(error) === undefined) throw error;
    } finally {
      open.forEach((fd) => closeSync(fd));
    }
  }
}

async function removeYoung(paths: readonly string[], sinceMs: number): Promise<void> {
  for (const path of paths) {
    try {
      const { ctimeMs } = await lstat(path);
      if (ctimeMs >= sinceMs - TICK_MS) await unlink(path);
    } catch (error) {
      if (errnoCode(error) !== 'ENOENT') throw error;
    }
  }
}

async function candidates(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  const below = await Promise.all(entries.filter((entry) => entry.isDirectory()).map(({ name }) => candidates(join(directory, name))));
  return [...entries.filter((entry) => entry.isFile() && NAME.test(entry.name)).map(({ name }) => join(directory, name)), ...below.flat()];
}
