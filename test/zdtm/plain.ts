/** Checkpoint and restore by the runtime alone, with the options of CRIU that its command line has. */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../../src/host/process.ts';
import { findLauncher } from '../../src/runtime/index.ts';
import type { TestContainer } from '../support/containers.ts';
import type { Program } from './suite.ts';

const LIMIT_MS = 40_000;

function options({ at }: TestContainer, program: Program, directory: string): string[] {
  return [
    '--image-path', join(directory, 'images'), '--work-path', directory, '--tcp-established', '--file-locks',
    ...(at.runtime === 'runc' ? ['--manage-cgroups-mode', 'ignore'] : []), ...(program.options.includes('--ext-unix-sk') ? ['--ext-unix-sk'] : []),
  ];
}

function firstErrors(directory: string, name: string): string {
  const log = join(directory, name);
  const lines = existsSync(log) ? readFileSync(log, 'latin1').split('\n').filter((line) => line.includes('Error')) : [];
  return lines.slice(0, 2).join(' ').slice(0, 300);
}

/** Why it was refused; undefined: it is saved, and gone. */
export async function plainCheckpoint(container: TestContainer, program: Program, directory: string): Promise<string | undefined> {
  mkdirSync(join(directory, 'images'), { recursive: true });
  const { at, id } = container;
  const { status } = await run(at.binary, ['--root', at.root, 'checkpoint', ...options(container, program, directory), id], { signal: undefined, timeoutMs: LIMIT_MS });
  return status === 0 ? undefined : firstErrors(directory, 'dump.log') || `status ${status}`;
}

export async function plainRestore(container: TestContainer, program: Program, directory: string): Promise<{ pid: number | undefined; failure: string }> {
  const { at, id, bundle, outputFile, errorFile } = container;
  const pidFile = join(directory, 'pid');
  await run(at.binary, ['--root', at.root, 'delete', '--force', id], { signal: undefined, timeoutMs: LIMIT_MS });
  const { status, stderr } = await run(findLauncher(), [
    pidFile, 'null', outputFile, errorFile, at.binary, '--root', at.root, 'restore', '--detach', '--bundle', bundle, '--pid-file', pidFile,
    ...options(container, program, directory), id,
  ], { signal: undefined, timeoutMs: LIMIT_MS, detached: true });
  if (status !== 0) return { pid: undefined, failure: firstErrors(directory, 'restore.log') || stderr || `status ${status}` };
  return { pid: Number(readFileSync(pidFile, 'utf8')), failure: '' };
}
