/** A restore through runc or crun, with the standard descriptors that the container had. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { StasisError, isStasisError } from '../../core/errors.ts';
import { readStat } from '../../host/proc.ts';
import { unmountBelow } from '../../host/unmount.ts';
import type { RestoreRequest, Toolchain } from '../types.ts';
import type { Version } from '../toolchain.ts';
import { restoreArgs, runtimeLog } from './args.ts';
import { sweepCgroups } from './cgroups.ts';
import { explainFailure } from './failure.ts';
import { placeInCgroups, type Placement } from './in-cgroups.ts';
import { remove } from './lifecycle.ts';
import { openToMappedRoot } from './mapped-root.ts';
import { runOperation, versionOf, type DriverOptions } from './operation.ts';
import { tarEnvironment } from './tar.ts';

export interface RestoreOptions extends DriverOptions {
  /** Path of deploy/libexec/stasis-restore; looked for above this module unless told. */
  readonly launcher?: string | undefined;
  /** A program and arguments that run the launcher, and where the number of its session is written. */
  readonly within?: { readonly command: readonly [string, ...string[]]; readonly sessionDirectory: string };
}

export interface RestoredProcess {
  readonly pid: number;
  readonly pidStart: number;
  readonly logPath: string;
}

/** How the launcher is told to make a descriptor: "null", "pipe" (stdin), "same" (stderr as stdout) or the file it is pumped to. */
export interface Stdio {
  readonly stdin: 'null' | 'pipe';
  readonly stdout: string;
  readonly stderr: string;
}

/** runc and crun write the targets of descriptors 0 to 2 beside the images and expect pipes where pipes were. */
export function stdioFor(descriptors: readonly string[], files: { readonly stdout: string; readonly stderr: string }): Stdio {
  const [stdin = '', stdout = '', stderr = ''] = descriptors;
  const isPipe = (target: string): boolean => target.startsWith('pipe:');
  return {
    stdin: isPipe(stdin) ? 'pipe' : 'null',
    stdout: isPipe(stdout) ? files.stdout : 'null',
    stderr: !isPipe(stderr) ? 'null' : stderr === stdout ? 'same' : files.stderr,
  };
}

/** Throws RESTORE_INCOMPATIBLE. */
export function readDescriptors(imageDir: string): string[] {
  const path = join(imageDir, 'descriptors.json');
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'));
    if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value;
  } catch (error) {
    throw new StasisError('RESTORE_INCOMPATIBLE', `the images tell nothing of the container's standard descriptors: ${(error as Error).message}`, { cause: error, hint: 'was the checkpoint made by runc or crun?' });
  }
  throw new StasisError('RESTORE_INCOMPATIBLE', 'descriptors.json of the images is not a list of names', { hint: 'was the checkpoint made by runc or crun?' });
}

/** deploy/libexec/stasis-restore of the tree that this module is part of. */
export function findLauncher(): string {
  for (let directory = dirname(fileURLToPath(import.meta.url)); ; directory = dirname(directory)) {
    const path = join(directory, 'deploy/libexec/stasis-restore');
    if (existsSync(path)) return path;
    if (directory === dirname(directory)) throw new StasisError('HOST_UNSUPPORTED', 'deploy/libexec/stasis-restore is missing', { hint: 'install Stasis again: its files are not complete' });
  }
}

function readPid(path: string): number {
  try {
    return Number.parseInt(readFileSync(path, 'utf8'), 10);
  } catch {
    return Number.NaN;
  }
}

/**
 * Resolves when the processes run. Throws RESTORE_FAILED with the first real cause, RESTORE_INCOMPATIBLE,
 * CONTAINER_EXISTS, HOST_UNSUPPORTED, DEADLINE_EXCEEDED, or the signal's reason; nothing of the container is left then.
 */
export async function restore(request: RestoreRequest, toolchain: Toolchain, options: RestoreOptions): Promise<RestoredProcess> {
  const { at, id } = request;
  const version = versionOf(at, toolchain);
  if (existsSync(join(at.root, id))) {
    throw new StasisError('CONTAINER_EXISTS', `a container ${id} exists below ${at.root}`, { hint: 'delete it, or restore under another id' });
  }
  if (request.lazyPages === true && at.runtime !== 'runc') {
    throw new StasisError('USAGE', 'crun cannot restore lazily', { hint: 'restore with --runtime runc, or without --lazy' });
  }
  const stdio = stdioFor(readDescriptors(request.imageDir), request);
  try {
    return await launch(request, stdio, version, { ...options, tar: tarEnvironment(toolchain, request) });
  } catch (error) {
    // Somebody was faster with this id: that container is not ours to remove.
    if (isStasisError(error, 'CONTAINER_EXISTS')) throw error;
    await remove(at, id, { force: true, bundle: request.bundle, signal: undefined });
    // An older criu that was killed leaves its view of the cgroups mounted there.
    unmountBelow(request.workDir);
    throw error;
  }
}

/** `tar`: for the environment. */
interface LaunchOptions extends RestoreOptions {
  readonly tar: Readonly<Record<string, string>>;
}

async function launch(
  request: RestoreRequest, stdio: Stdio, version: Version, options: LaunchOptions,
): Promise<RestoredProcess> {
  const launcher = options.launcher ?? findLauncher();
  using _reachable = await openToMappedRoot(request);
  const placement = await placeInCgroups(request, dirname(launcher), version);
  try {
    return await launchIn(placement, request, stdio, { ...options, launcher, version });
  } catch (error) {
    placement.remove();
    throw error;
  } finally {
    placement.done?.();
  }
}

/**
 * Under crun criu brings addresses, routes and rules back itself, after the hook has, and fails where the link of a route is
 * down: there it runs a program that does nothing in place of ip.
 */
function networkEnv({ networkDirectory }: RestoreRequest): Record<string, string> {
  return networkDirectory === undefined ? { STASIS_NETWORK_DIR: '' } : { STASIS_NETWORK_DIR: networkDirectory, CR_IP_TOOL: 'true' };
}

async function launchIn(
  placement: Placement, request: RestoreRequest, { stdin, stdout, stderr }: Stdio,
  options: LaunchOptions & { launcher: string; version: Version },
): Promise<RestoredProcess> {
  const { at, id, workDir, pidFile } = request;
  const args = [pidFile, stdin, stdout, stderr, ...placement.before, at.binary, ...restoreArgs(request, options.version)];
  const owner = { runtime: at.runtime, id, bundle: request.bundle };
  const [program, ...before] = [...(options.within?.command ?? []), options.launcher] as [string, ...string[]];
  const result = await runOperation(program, [...before, ...args], {
    ...request, env: { ...placement.env, ...networkEnv(request), ...options.tar },
    sessionDirectory: options.within?.sessionDirectory, sweep: () => sweepCgroups(owner),
  }, options);
  const criuLog = join(workDir, 'restore.log');
  const failure = (): StasisError => placement.failure() ?? explainFailure({
    what: `container ${id} could not be restored`, phase: 'restore', criuLog, runtimeLog: runtimeLog(workDir), stderr: result.stderr, status: result.status,
  });
  if (result.status !== 0) throw failure();
  const pid = readPid(pidFile);
  const stat = Number.isNaN(pid) ? undefined : readStat(pid);
  if (stat === undefined) throw new StasisError('RESTORE_FAILED', `container ${id} was restored and ended at once`, { hint: 'look at its output and at the log of criu', details: { log: criuLog }, cause: failure() });
  return { pid, pidStart: stat.startTime, logPath: criuLog };
}
