/** Cgroups that tests or engines make and nobody removes. */
import { existsSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { cgroupTree } from '../../src/host/cgroup-walk.ts';
import { readMountinfo } from '../../src/host/mountinfo.ts';

/** The cgroup and all below it, in every hierarchy. Their last processes may be about to end. */
export async function removeCgroups(name: string): Promise<void> {
  const hierarchies = readMountinfo('self').filter(({ fsType, mountPoint }) => fsType.startsWith('cgroup') && mountPoint.startsWith('/sys/fs/cgroup'));
  for (const { mountPoint } of hierarchies) for (const directory of cgroupTree(join(mountPoint, name)).toReversed()) await removeCgroup(directory.toString());
}

async function removeCgroup(directory: string): Promise<void> {
  for (let tries = 1; existsSync(directory); tries += 1) {
    try {
      rmdirSync(directory);
    } catch (error) {
      if (tries === 100) throw error;
      await delay(50);
    }
  }
}
