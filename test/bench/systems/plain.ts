/** `runc checkpoint` and `runc restore` as they are. Saves no files, compresses and seals nothing, syncs nothing. */
import { execFile, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { readDumpStats } from '../../../src/image/criu/stats.ts';
import { timed } from '../measure.ts';
import type { Command, Running, Saved, System } from './system.ts';

const exec = promisify(execFile);

/** The images go into a directory below `base`: on tmpfs or on ext4. */
export function plainRunc(name: string, base: string): System {
  const imageBase = mkdtempSync(join(base, 'bench-images-'));
  return { name, start: (command) => start(command, imageBase), close: async () => { rmSync(imageBase, { recursive: true, force: true }); } };
}

/** The root of the box below an overlay, as a container of runc. Its output goes through a pipe, as under an engine. */
export async function startRunc(command: Command): Promise<{ readonly bundle: string; pid(): number; remove(): Promise<void> }> {
  const bundle = join('/srv/bench', command.id);
  const at = (name: string): string => join(bundle, name);
  for (const name of ['upper', 'work', 'rootfs']) mkdirSync(at(name), { recursive: true });
  await exec('mount', ['-t', 'overlay', 'overlay', '-o', `lowerdir=/,upperdir=${at('upper')},workdir=${at('work')}`, at('rootfs')]);
  await exec('runc', ['spec', '--bundle', bundle]);
  const spec = JSON.parse(readFileSync(at('config.json'), 'utf8')) as { process: object; root: object; linux: object };
  Object.assign(spec.process, { terminal: false, args: command.args });
  Object.assign(spec.root, { readonly: false });
  Object.assign(spec.linux, { cgroupsPath: `/${command.id}` });
  writeFileSync(at('config.json'), JSON.stringify(spec));
  await piped(['run', '--detach', '--bundle', bundle, '--pid-file', at('pid'), command.id]);
  return {
    bundle,
    pid: () => Number(readFileSync(at('pid'), 'utf8')),
    remove: async () => {
      await exec('runc', ['delete', '--force', command.id]).catch(() => {});
      await exec('umount', ['-l', at('rootfs')]).catch(() => {});
      rmSync(bundle, { recursive: true, force: true });
    },
  };
}

async function start(command: Command, imageBase: string): Promise<Running> {
  const container = await startRunc(command);
  const images = join(imageBase, command.id);
  const save = async (more: readonly string[]): Promise<Saved> => {
    rmSync(images, { recursive: true, force: true });
    for (const part of ['image', 'work']) mkdirSync(join(images, part), { recursive: true });
    const { ms } = await timed(() => exec('runc', ['checkpoint', ...more, '--manage-cgroups-mode', 'ignore', '--image-path', join(images, 'image'), '--work-path', join(images, 'work'), command.id]));
    const { stdout } = await exec('du', ['--bytes', '--summarize', join(images, 'image')]);
    const stats = await readDumpStats(join(images, 'work'));
    return { ms, frozenMs: stats === undefined ? undefined : stats.frozenUs / 1000, bytes: Number.parseInt(stdout, 10) };
  };
  return {
    get pid() { return container.pid(); },
    snapshot: async () => {
      const saved = await save(['--leave-running']);
      rmSync(images, { recursive: true, force: true });
      return saved;
    },
    stop: () => save([]),
    restore: async () => {
      const work = join(images, 'work');
      const { ms } = await timed(() => piped(['restore', '--detach', '--manage-cgroups-mode', 'ignore', '--image-path', join(images, 'image'), '--work-path', work, '--bundle', container.bundle, '--pid-file', join(container.bundle, 'pid'), command.id]));
      return ms;
    },
    remove: async () => {
      await container.remove();
      rmSync(images, { recursive: true, force: true });
    },
  };
}

/** Runs runc with a real pipe as output (what Node.js calls one is a socket pair, of which CRIU cannot dump half). */
async function piped(args: readonly string[]): Promise<void> {
  const script = '{ runc "$@" 3>&- </dev/null 2>&1; echo $? >&3; } | cat > /dev/null 3>&-';
  const child = spawn('sh', ['-c', script, 'sh', ...args], { stdio: ['ignore', 'ignore', 'inherit', 'pipe'], detached: true });
  const status = await new Promise<string>((resolve, reject) => {
    child.once('error', reject);
    child.stdio[3]!.once('data', (data: Buffer) => { resolve(data.toString().trim()); });
  });
  child.unref();
  if (status !== '0') throw new Error(`runc ${args[0] ?? ''} ended with status ${status}`);
}
