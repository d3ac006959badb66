/** Files that a container writes through shared mappings: such writes need not show in a file's times, so they are not trusted. */
import { readFile } from 'node:fs/promises';
import { errnoCode } from '../../core/errors.ts';

/** Paths below the container's root, as bytes, of files that any of these processes has mapped shared and writable. */
export async function sharedWritableFiles(pids: readonly number[]): Promise<Buffer[]> {
  const paths = new Set<string>();
  for (const maps of await Promise.all(pids.map(readMaps))) {
    for (const line of maps.split('\n')) {
      // start-end perms offset dev inode path; the kernel writes a line feed in a name as \012.
      const path = /^\S+ .w.s \S+ \S+ \d+\s+\/(.+)$/.exec(line)?.[1];
      if (path !== undefined) paths.add(path.replaceAll('\\012', '\n'));
    }
  }
  return [...paths].map((path) => Buffer.from(path, 'latin1'));
}

/** Empty when the process has ended. */
async function readMaps(pid: number): Promise<string> {
  try {
    return await readFile(`/proc/${pid}/maps`, 'latin1');
  } catch (error) {
    const code = errnoCode(error);
    if (code === 'ENOENT' || code === 'ESRCH') return '';
    throw error;
  }
}
