/** podman as tests use it: an image out of the box's own files, containers, bundles for what comes back, archives over the API. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, cpSync, createReadStream, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MNT_DETACH, mount, umount } from '../../src/host/libc.ts';
import type { ExportResult, ImportMessage, ImportResult } from '../../src/rpc/archives.ts';
import type { TestAgent } from './agent.ts';
import { removeCgroups } from './cgroups.ts';

export const IMAGE = 'localhost/interchange:1';
/** The files of the image, for bundles. */
export const IMAGE_DIRECTORY = '/srv/image';

export function run(command: string, ...args: readonly string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
}

export function makeImage(): void {
  const programs = ['sh', 'dash', 'sleep', 'rm', 'mkdir', 'ln', 'mkfifo', 'setfattr', 'truncate'].map((name) => `usr/bin/${name}`).join(' ');
  execFileSync('sh', ['-c', `rm -rf ${IMAGE_DIRECTORY} && mkdir -p ${IMAGE_DIRECTORY}/etc/old ${IMAGE_DIRECTORY}/dev ${IMAGE_DIRECTORY}/proc ${IMAGE_DIRECTORY}/sys && cd ${IMAGE_DIRECTORY} && touch etc/gone etc/old/one etc/old/two && (cd / && tar --create bin lib lib64 usr/lib64 usr/lib/*-linux-gnu/lib*.so* usr/lib/*-linux-gnu/ld-linux* ${programs}) | tar --extract && tar --create . | podman import --quiet - ${IMAGE}`], { stdio: ['ignore', 'ignore', 'inherit'] });
}

/** With its files, and what podman leaves of cgroups when its last container is gone: it makes a parent for all of them, and one for conmon. */
export async function removeImage(): Promise<void> {
  run('podman', 'rmi', '--force', IMAGE);
  rmSync(IMAGE_DIRECTORY, { recursive: true, force: true });
  await removeCgroups('libpod_parent');
}

/** Returns its id. */
export function start(name: string, program: string, ...more: readonly string[]): string {
  return run('podman', 'run', '--detach', '--runtime', 'runc', '--pids-limit', '0', '--network', 'none', '--log-driver', 'none', '--name', name, ...more, IMAGE, '/bin/sh', '-c', program);
}

/** podman's own checkpoint. A task that forks while its cgroup freezes makes criu wait and give up: then once more. */
export function archiveOf(name: string, file: string, compression: 'none' | 'gzip' | 'zstd'): void {
  for (let tries = 1; ; tries += 1) {
    try {
      run('podman', 'container', 'checkpoint', '--runtime', 'runc', '--compress', compression, '--export', file, name);
      run('podman', 'rm', '--force', name);
      return;
    } catch (error) {
      if (tries === 3 || pidOf(name) === 0) throw error;
    }
  }
}

export const pidOf = (name: string): number => Number(run('podman', 'inspect', '--format', '{{.State.Pid}}', name));

export async function exported(agent: TestAgent, id: string, file: string, image?: string): Promise<ExportResult> {
  const parts: Uint8Array[] = [];
  for await (const event of agent.client.exportCheckpoint({ checkpoint: id, reason: 'test', acceptPlaintext: true, ...(image === undefined ? {} : { image }) }, { signal: undefined })) {
    if (event.type === 'data') parts.push(event.data.bytes);
    if (event.type !== 'result') continue;
    writeFileSync(file, Buffer.concat(parts), { mode: 0o600 });
    assert.equal(event.result.bytes, statSync(file).size);
    return event.result;
  }
  throw new Error('the stream ended without a result');
}

export async function imported(agent: TestAgent, file: string): Promise<ImportResult> {
  async function* messages(): AsyncGenerator<ImportMessage> {
    yield { type: 'start', start: { source: file, reason: 'test' } };
    for await (const bytes of createReadStream(file, { highWaterMark: 128 * 1024 })) yield { type: 'data', data: { bytes: bytes as Buffer } };
  }
  for await (const event of agent.client.importCheckpoint(messages(), { signal: undefined })) if (event.type === 'result') return event.result;
  throw new Error('the stream ended without a result');
}

// oxlint-disable-next-line typescript/no-explicit-any
export type Json = Record<string, any>;

/** The image below an overlay, and podman's config.json with sources that outlive podman's container. Give it an absolute directory. */
export function makeBundle(id: string, directory: string): { directory: string; remove: () => void } {
  for (const name of ['rootfs', 'upper', 'work', 'binds']) mkdirSync(join(directory, name), { recursive: true });
  // podman's root directories have this mode, and CRIU compares.
  chmodSync(join(directory, 'upper'), 0o555);
  mount('overlay', join(directory, 'rootfs'), 'overlay', 0, `lowerdir=${IMAGE_DIRECTORY},upperdir=${directory}/upper,workdir=${directory}/work`);
  const spec = JSON.parse(readFileSync(`/var/lib/containers/storage/overlay-containers/${id}/userdata/config.json`, 'utf8')) as Json;
  delete spec['hooks'];
  spec['root'].path = 'rootfs';
  spec['linux'].cgroupsPath = `/interchange-${id.slice(0, 12)}`;
  for (const [index, entry] of (spec['mounts'] as { destination: string; type: string; source: string }[]).entries()) {
    if (entry.type !== 'bind') continue;
    const source = join(directory, 'binds', String(index));
    if (entry.destination === '/dev/shm') mkdirSync(source, { mode: 0o1777 });
    else cpSync(entry.source, source, { recursive: true });
    entry.source = source;
  }
  writeFileSync(join(directory, 'config.json'), JSON.stringify(spec));
  return { directory, remove: () => umount(join(directory, 'rootfs'), MNT_DETACH) };
}

/** With another config.json for a while. */
export async function withSpec(bundle: string, change: (spec: Json) => void, use: () => Promise<void>): Promise<void> {
  const path = join(bundle, 'config.json');
  const original = readFileSync(path, 'utf8');
  const spec = JSON.parse(original) as Json;
  change(spec);
  writeFileSync(path, JSON.stringify(spec));
  try {
    await use();
  } finally {
    writeFileSync(path, original);
  }
}
