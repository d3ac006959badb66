/** Containers that podman and containerd made are found and saved like plain ones, their memory-backed volumes included. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { MNT_DETACH, mount, umount } from '../../src/host/libc.ts';
import { agentOfFile, checkpoint, restore } from '../support/agent.ts';

const counter = 'i=0; while :; do i=$((i+1)); echo $i > "$0"; sleep 0.02; done';

const file = agentOfFile();

function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
}

async function find(name: string): Promise<{ manager: string; checkpointable: boolean; findings: unknown } | undefined> {
  const { containers } = await file.agent.client.listContainers({ all: true }, { signal: undefined });
  return containers.find((container) => container.name === name);
}

/** The shell empties the file before it writes: read again then. */
function numberOf(path: string): number {
  for (let tries = 0; tries < 1000; tries++) {
    const number = Number(readFileSync(path, 'utf8'));
    if (number > 0) return number;
  }
  throw new Error(`${path} stays empty`);
}

const numberIn = (pid: number, path: string): number => numberOf(`/proc/${pid}/root${path}`);

async function assertCounting(pid: number, path: string, from: number): Promise<void> {
  for (let waited = 0; waited < 3000 && numberIn(pid, path) <= from; waited += 20) await delay(20);
  assert.ok(numberIn(pid, path) > from, `${path} stands at ${numberIn(pid, path)}, it was at ${from}`);
}

void describe('podman', () => {
  before(() => {
    const programs = ['sh', 'dash', 'sleep'].map((name) => `usr/bin/${name}`).join(' ');
    execFileSync('sh', ['-c', `cd / && tar --create bin lib lib64 usr/lib64 usr/lib/*-linux-gnu/libc.so.6 usr/lib/*-linux-gnu/ld-linux* ${programs} | podman import --quiet - localhost/managers:1`], { stdio: 'ignore' });
  });
  after(() => run('podman', 'rmi', '--force', 'localhost/managers:1'));

  for (const runtime of ['runc', 'crun']) {
    void it(`with ${runtime}: a copy of its container goes on, with what was in /dev/shm, beside the original`, async () => {
      const name = `managed-${runtime}`;
      run('podman', 'run', '--detach', '--runtime', runtime, '--pids-limit', '0', '--network', 'none', '--log-driver', 'none', '--name', name, 'localhost/managers:1', '/bin/sh', '-c', counter, '/dev/shm/n');
      try {
        const seen = await find(name);
        assert.equal(seen?.manager, 'podman');
        assert.ok(seen?.checkpointable, JSON.stringify(seen?.findings));
        const saved = await checkpoint(file.agent, name, { leaveRunning: true });
        const original = Number(run('podman', 'inspect', '--format', '{{.State.Pid}}', name));
        const before = numberIn(original, '/dev/shm/n');
        await assertCounting(original, '/dev/shm/n', before);
        const copy = await restore(file.agent, saved.checkpoint, { clone: true, container: `${name}-copy` });
        try {
          await assertCounting(copy.pid, '/dev/shm/n', 1);
          assert.notEqual(copy.pid, original);
        } finally {
          run(runtime, 'delete', '--force', `${name}-copy`);
        }
      } finally {
        run('podman', 'rm', '--force', '--time', '0', name);
      }
    });
  }
});

void describe('containerd', () => {
  let daemon: ChildProcess;
  const root = '/srv/managers';

  before(async () => {
    for (const name of ['upper', 'work', 'rootfs', 'containerd']) mkdirSync(`${root}/${name}`, { recursive: true });
    mount('overlay', `${root}/rootfs`, 'overlay', 0, `lowerdir=/,upperdir=${root}/upper,workdir=${root}/work`);
    daemon = spawn('containerd', ['--root', `${root}/containerd`, '--state', '/run/containerd'], { stdio: 'ignore' });
    for (let tries = 0; ; tries++) {
      try {
        run('ctr', 'version');
        return;
      } catch (error) {
        if (tries === 100) throw error;
        await delay(100);
      }
    }
  });
  after(async () => {
    const ended = once(daemon, 'exit');
    daemon.kill('SIGTERM');
    await ended;
    umount(`${root}/rootfs`, MNT_DETACH);
    rmSync(root, { recursive: true, force: true });
  });

  void it('its container is stopped by a checkpoint, containerd hears of it, and it goes on as a plain one', async () => {
    run('ctr', 'run', '--detach', '--rootfs', '--runc-binary', 'runc', `${root}/rootfs`, 'managed', '/bin/sh', '-c', counter, '/n');
    try {
      await delay(300);
      assert.equal((await find('managed'))?.manager, 'containerd');
      const before = numberOf(`${root}/upper/n`);
      const saved = await checkpoint(file.agent, 'managed');
      for (let tries = 0; tries < 100 && !/managed\s+\d+\s+STOPPED/.test(run('ctr', 'task', 'ls')); tries++) await delay(50);
      assert.match(run('ctr', 'task', 'ls'), /managed\s+\d+\s+STOPPED/);
      const restored = await restore(file.agent, saved.checkpoint, { container: 'unmanaged' });
      try {
        await assertCounting(restored.pid, '/n', before);
      } finally {
        run('runc', 'delete', '--force', 'unmanaged');
      }
    } finally {
      run('ctr', 'task', 'rm', '--force', 'managed');
      run('ctr', 'container', 'rm', 'managed');
    }
  });
});
