/**
 * `podman container checkpoint --export` and `podman container restore --import` with their defaults (zstd), overlay
 * storage on ext4 and runc, because with crun podman's restores fail in cgroup version 1. Saves memory and files.
 */
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { timed } from '../measure.ts';
import type { Command, Running, Saved, System } from './system.ts';

const exec = promisify(execFile);
const IMAGE = 'localhost/bench:1';
const EXPORTS = '/srv/bench-exports';

export function podman(): System {
  mkdirSync(EXPORTS, { recursive: true });
  // Shells, coreutils, python3 and redis with their libraries: what the workloads need.
  const programs = ['sh', 'dash', 'sleep', 'cat', 'python3', 'python3.*', 'redis-server', 'redis-check-rdb'].map((name) => `usr/bin/${name}`).join(' ');
  const libraries = 'usr/lib64 usr/lib/*-linux-gnu usr/lib/python3*';
  execFileSync('sh', ['-c', `cd / && tar --create --exclude '*criu*' bin sbin lib lib64 ${libraries} $(ls -d ${programs}) | podman import --quiet - ${IMAGE}`], { stdio: ['ignore', 'ignore', 'inherit'] });
  return { name: 'podman', start, close: async () => {} };
}

async function start(command: Command): Promise<Running> {
  await exec('podman', ['run', '--detach', '--runtime', 'runc', '--pids-limit', '0', '--network', 'none', '--log-driver', 'none', '--name', command.id, IMAGE, ...command.args]);
  const archive = join(EXPORTS, `${command.id}.tar`);
  const save = async (more: readonly string[]): Promise<Saved> => {
    rmSync(archive, { force: true });
    const { ms, value } = await timed(() => exec('podman', ['container', 'checkpoint', '--runtime', 'runc', '--print-stats', ...more, '--export', archive, command.id]));
    const stats = JSON.parse(value.stdout) as { container_statistics: { criu_statistics: { frozen_time: number } }[] };
    return { ms, frozenMs: (stats.container_statistics[0]?.criu_statistics.frozen_time ?? 0) / 1000, bytes: statSync(archive).size };
  };
  let pid = await pidOf(command.id);
  return {
    get pid() { return pid; },
    snapshot: () => save(['--leave-running']),
    stop: async () => {
      const saved = await save([]);
      await exec('podman', ['rm', '--force', command.id]);
      return saved;
    },
    restore: async () => {
      const { ms } = await timed(() => exec('podman', ['container', 'restore', '--runtime', 'runc', '--import', archive]));
      pid = await pidOf(command.id);
      return ms;
    },
    remove: async () => {
      await exec('podman', ['rm', '--force', '--time', '0', command.id]).catch(() => {});
      rmSync(archive, { force: true });
    },
  };
}

async function pidOf(id: string): Promise<number> {
  const { stdout } = await exec('podman', ['inspect', '--format', '{{.State.Pid}}', id]);
  return Number(stdout);
}
