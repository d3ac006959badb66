/** The ground for a probe of a directory: a directory in it. */
import { randomBytes } from 'node:crypto';
import { rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { formatBytes } from '../../core/units.ts';
import { openDirectoryStore } from './directory.ts';
import type { ProbeGround } from './probe.ts';

export async function openDirectoryProbe(directory: string): Promise<ProbeGround> {
  const place = join(directory, `.probe-${randomBytes(6).toString('hex')}`);
  const store = await openDirectoryStore(place);
  return {
    description: `directory:${directory}`, store,
    more: [{
      name: 'free space', required: false,
      run: async () => {
        const { bavail, bsize, blocks } = await statfs(directory);
        return `${formatBytes(bavail * bsize)} of ${formatBytes(blocks * bsize)} are free`;
      },
    }],
    [Symbol.asyncDispose]: async () => {
      await store.close();
      await rm(place, { recursive: true, force: true });
    },
  };
}
