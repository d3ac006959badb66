/** What is brought into the repository: directories that CRIU wrote, in memory, and a tree of files on a disk. */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { unpackTreeInto } from '../../support/workloads/files.ts';
import { startRunc } from '../systems/plain.ts';
import { workloads } from '../workloads.ts';

const exec = promisify(execFile);

export interface DataSet extends AsyncDisposable {
  readonly source: string;
  readonly kind: 'images' | 'tree';
}

/** The workload as plain runc checkpoints it, while it runs. */
export async function imagesOf(name: 'heap' | 'redis'): Promise<DataSet> {
  const workload = workloads.find((one) => one.name === name);
  if (workload === undefined) throw new Error(`there is no workload ${name}`);
  const base = mkdtempSync('/tmp/bench-images-');
  const [source, work] = [join(base, 'images'), join(base, 'work')];
  for (const directory of [source, work]) mkdirSync(directory);
  const container = await startRunc({ id: `bench-images-${name}`, args: workload.args });
  try {
    await workload.prepare(container.pid());
    await exec('runc', ['checkpoint', '--manage-cgroups-mode', 'ignore', '--image-path', source, '--work-path', work, `bench-images-${name}`]);
  } finally {
    await container.remove();
  }
  return { source, kind: 'images', [Symbol.asyncDispose]: async () => { rmSync(base, { recursive: true, force: true }); } };
}

export async function sourceTree(): Promise<DataSet> {
  const base = mkdtempSync('/srv/bench-tree-');
  const source = join(base, 'tree');
  mkdirSync(source);
  unpackTreeInto(source);
  return { source, kind: 'tree', [Symbol.asyncDispose]: async () => { rmSync(base, { recursive: true, force: true }); } };
}
