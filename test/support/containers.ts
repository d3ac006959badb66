/** Real containers for tests, inside a node in a box: an overlay over the box's own root, output through anonymous pipes. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseContainerId } from '../../src/core/ids.ts';
import { MNT_DETACH, umount } from '../../src/host/libc.ts';
import { readMountinfo } from '../../src/host/mountinfo.ts';
import { run } from '../../src/host/process.ts';
import { findContainer, findLauncher, probeToolchain, remove } from '../../src/runtime/index.ts';
import type { Container, OciSpec, RuntimeName, RuntimeRoot, Toolchain } from '../../src/runtime/index.ts';

export interface ContainerOptions {
  readonly runtime: RuntimeName;
  readonly id: string;
  readonly args: readonly string[];
  /** For bundle, layers and output; below /srv by its id unless told. */
  readonly directory?: string;
  /** NAME=VALUE, beside PATH. */
  readonly env?: readonly string[];
  /** Layers below its own, uppermost first, as overlayfs takes them; the box's root unless told. */
  readonly lower?: string;
  /** Beside runc's default three: "CAP_SYS_ADMIN", … */
  readonly capabilities?: readonly string[];
  /** Last word on config.json. */
  readonly edit?: (spec: Spec) => void;
  /** Does something to its directories before they are mounted. */
  readonly prepare?: (directory: string) => void;
  readonly stdin?: 'null' | 'pipe';
  readonly stdout?: 'pipe' | 'null';
  /** "same": stderr is the same pipe as stdout. */
  readonly stderr?: 'pipe' | 'same' | 'null';
}

/** config.json while it is put together. */
// oxlint-disable-next-line typescript/no-explicit-any
export type Spec = Record<string, any>;

export interface TestContainer {
  readonly id: string;
  readonly at: RuntimeRoot;
  readonly bundle: string;
  readonly pid: number;
  readonly outputFile: string;
  readonly errorFile: string;
  /** Kills and removes it, its bundle and its mounts. May be called twice. */
  stop(): Promise<void>;
  inspect(): Promise<Container>;
}

export const roots: readonly RuntimeRoot[] = [
  { runtime: 'runc', binary: 'runc', root: '/run/runc' },
  { runtime: 'crun', binary: 'crun', root: '/run/crun' },
];

export function rootOf(runtime: RuntimeName): RuntimeRoot {
  return roots.find((root) => root.runtime === runtime)!;
}

export function toolchain(): Promise<Toolchain> {
  return probeToolchain({ criu: 'criu', runtimes: roots.map(({ runtime, binary }) => ({ name: runtime, binary })) }, { signal: undefined });
}

function writeSpec(bundle: string, options: ContainerOptions): void {
  execFileSync('runc', ['spec', '--bundle', bundle]);
  const path = join(bundle, 'config.json');
  const spec = JSON.parse(readFileSync(path, 'utf8')) as Spec;
  spec['process'].terminal = false;
  spec['process'].args = options.args;
  spec['process'].env = ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', ...(options.env ?? [])];
  for (const set of ['bounding', 'effective', 'permitted']) {
    spec['process'].capabilities[set] = [...spec['process'].capabilities[set], ...(options.capabilities ?? [])];
  }
  spec['root'] = { path: 'rootfs', readonly: false };
  spec['hostname'] = options.id;
  spec['linux'].cgroupsPath = `/${options.id}`;
  options.edit?.(spec);
  writeFileSync(path, JSON.stringify(spec satisfies OciSpec));
}

/** Starts a container as its own session with the box's root below an overlay. Fails the test when it does not start. */
export async function startContainer(options: ContainerOptions): Promise<TestContainer> {
  const at = rootOf(options.runtime);
  const directory = options.directory ?? join('/srv', options.id);
  const [bundle, outputFile, errorFile, pidFile] = ['bundle', 'stdout.log', 'stderr.log', 'pid'].map((name) => join(directory, name)) as [string, string, string, string];
  for (const name of ['bundle/rootfs', 'upper', 'work']) mkdirSync(join(directory, name), { recursive: true });
  options.prepare?.(directory);
  execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', `lowerdir=${options.lower ?? '/'},upperdir=${directory}/upper,workdir=${directory}/work`, join(bundle, 'rootfs')]);
  let stopped = false;
  const stop = async (): Promise<void> => {
    if (stopped) return;
    stopped = true;
    await remove(at, parseContainerId(options.id), { force: true, signal: undefined });
    for (const { mountPoint } of readMountinfo('self').filter((mount) => mount.mountPoint.startsWith(`${directory}/`)).reverse()) umount(mountPoint, MNT_DETACH);
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    writeSpec(bundle, options);
    const stderr = { pipe: errorFile, same: 'same', null: 'null' }[options.stderr ?? 'pipe'];
    const result = await run(findLauncher(), [
      pidFile, options.stdin ?? 'null', options.stdout === 'null' ? 'null' : outputFile, stderr,
      at.binary, '--root', at.root, '--log', join(directory, 'runtime.log'), 'run', '--detach', '--bundle', bundle, '--pid-file', pidFile, options.id,
    ], { signal: undefined, timeoutMs: 20_000, detached: true });
    if (result.status !== 0) throw new Error(`${options.runtime} could not start ${options.id}: ${readIfThere(join(directory, 'runtime.log'))} ${readIfThere(errorFile)}`);
    const pid = Number(readFileSync(pidFile, 'utf8'));
    return { id: options.id, at, bundle, pid, outputFile, errorFile, stop, inspect: () => findContainer(roots, options.id, { signal: undefined }) };
  } catch (error) {
    await stop();
    throw error;
  }
}

function readIfThere(path: string): string {
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}

/** Waits until the file holds what is asked for, and returns its text. Fails after ten seconds. */
export async function waitForOutput(file: string, wanted: (text: string) => boolean): Promise<string> {
  for (let waited = 0; waited < 10_000; waited += 20) {
    const text = readIfThere(file);
    if (wanted(text)) return text;
    await delay(20);
  }
  throw new Error(`${file} never held what was waited for; it ends with ${JSON.stringify(readIfThere(file).slice(-300))}`);
}

/** A shell loop that writes 1, 2, 3, … to its output, one number each 20 ms. */
export const counterArgs: readonly string[] = ['/bin/sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done'];

/** The numbers that a counter wrote, in order. */
export function numbers(text: string): number[] {
  return text.split('\n').filter((line) => /^\d+$/.test(line)).map(Number);
}
