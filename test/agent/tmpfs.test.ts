/** File systems in memory come back with their limits, their owner, mode and times, and what stands beside their files. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, statSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { readMountinfo } from '../../src/host/mountinfo.ts';
import { assertClean, checkpoint, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startContainer, waitForOutput, type TestContainer } from '../support/containers.ts';

interface Case {
  readonly name: string;
  readonly type: 'tmpfs' | 'ramfs';
  readonly options: string;
  /** Given to it while the container runs. */
  readonly remount?: string;
  /** A shell command in its directory. */
  readonly fill?: string;
  /** The container gets this directory of it. */
  readonly part?: string;
}

/** Each is bound into one container, from the node, as engines do it with /dev/shm. */
const CASES: readonly Case[] = [
  { name: 'limited', type: 'tmpfs', options: 'size=1m,nr_inodes=64,mode=750,uid=1000,gid=1001' },
  { name: 'remounted', type: 'tmpfs', options: 'nosuid,nodev,noexec,size=4m,mode=1777', remount: 'size=2m,nr_inodes=99' },
  { name: 'full', type: 'tmpfs', options: 'size=256k,nr_inodes=8', fill: 'touch a b; ln a c; mkdir d; mkfifo e; head -c 1m /dev/zero > b; touch f g; exit 0' },
  { name: 'unlimited', type: 'tmpfs', options: 'size=0,nr_inodes=0' },
  { name: 'usual', type: 'tmpfs', options: 'rw' },
  { name: 'part', type: 'tmpfs', options: 'size=3m,mode=700', part: 'of/it' },
  { name: 'ramfs', type: 'ramfs', options: 'mode=700' },
  { name: 'huge', type: 'tmpfs', options: 'size=16m,huge=within_size' },
];

/** Of the container's own, which criu packs with tar: ACLs as setxattr(2) takes them, so that no program is needed. */
const ATTRIBUTES = `
import os, struct
acl = lambda *entries: struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in entries)
own = (1, 6, 0xffffffff), (2, 4, 7), (4, 4, 0xffffffff), (16, 4, 0xffffffff), (32, 0, 0xffffffff)
open('file', 'w').close(); os.mkdir('directory'); os.symlink('file', 'link')
os.setxattr('file', 'user.note', bytes(range(256))); os.setxattr('directory', 'user.note', b''); os.setxattr('.', 'user.note', b'root')
os.setxattr('file', 'trusted.note', b'x'); os.setxattr('link', 'trusted.note', b'x', follow_symlinks=False)
os.setxattr('file', 'security.capability', struct.pack('<IIIII', 0x02000001, 1 << 10, 0, 0, 0))
os.setxattr('file', 'system.posix_acl_access', acl(*own)); os.setxattr('directory', 'system.posix_acl_default', acl(*own))
os.utime('file', ns=(123456789, 987654321)); os.utime('.', ns=(1, 1000000000000000001))
`;

/** What a process in there can see of it. */
function seen(pid: number, mountPoint: string): Record<string, unknown> {
  const mount = readMountinfo(pid).findLast((entry) => entry.mountPoint === mountPoint);
  const path = `/proc/${pid}/root${mountPoint}`;
  const { mode, uid, gid, mtimeMs } = statSync(path);
  const { blocks, bfree, files } = statfsSync(path);
  const inside = execFileSync('sh', ['-c', 'ls -lAi --time-style=full-iso | sed "s/^[0-9 ]* //"; find . -print0 | sort -z | xargs -0 getfattr --absolute-names --no-dereference --encoding=hex --dump -m "^user\\|^trusted\\|^security.capability\\|^system.posix"'], { cwd: path, encoding: 'utf8' });
  return { type: mount?.fsType, options: [...mount?.options ?? []].sort(), file: [...mount?.superOptions ?? []].sort(), mode, uid, gid, mtimeMs, blocks, used: blocks - bfree, files, inside };
}

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`memory of a container of ${runtime}`, () => {
    let home: AgentHome;
    let agent: TestAgent;
    let container: TestContainer | undefined;
    const root = `/srv/memory-of-${runtime}`;

    before(async () => {
      home = makeHome();
      agent = await startAgent(home);
      for (const { name, type, options, part, fill } of CASES) {
        mkdirSync(join(root, name), { recursive: true });
        execFileSync('mount', ['-t', type, '-o', options, 'none', join(root, name)]);
        mkdirSync(join(root, name, part ?? ''), { recursive: true });
        if (fill !== undefined) execFileSync('sh', ['-c', fill], { cwd: join(root, name), stdio: 'ignore' });
      }
    });

    after(async () => {
      await container?.stop();
      await agent?.stop();
      await removeHome(home);
      for (const { mountPoint } of readMountinfo('self').filter((mount) => mount.mountPoint.startsWith(`${root}/`)).reverse()) execFileSync('umount', ['-l', mountPoint]);
      execFileSync('rm', ['-r', root]);
    });

    void it('that engines bind into it has its limits again, also those that were changed while it ran', async () => {
      container = await startContainer({
        runtime, id: `volumes-${runtime}`, args: ['/bin/sh', '-c', 'echo ready; while :; do sleep 0.2; done'],
        edit: (spec) => {
          spec['mounts'].push({ destination: '/media', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'size=1m'] });
          spec['mounts'] = spec['mounts'].filter(({ destination }: { destination: string }) => destination !== '/dev/shm');
          for (const { name, part = '' } of CASES) {
            spec['mounts'].push({ destination: name === 'limited' ? '/dev/shm' : `/mnt/${name}`, type: 'bind', source: join(root, name, part), options: ['rbind', 'rw', ...(name === 'usual' ? ['noatime'] : [])] });
          }
        },
      });
      await waitForOutput(container.outputFile, (text) => text.includes('ready'));
      for (const { name, remount } of CASES) if (remount !== undefined) execFileSync('mount', ['-o', `remount,${remount}`, join(root, name)]);
      execFileSync('python3', ['-c', ATTRIBUTES], { cwd: `/proc/${container.pid}/root/media` });
      const places = ['/media', ...CASES.map(({ name }) => (name === 'limited' ? '/dev/shm' : `/mnt/${name}`))];
      execFileSync('setfattr', ['-n', 'user.note', '-v', 'beside', join(root, 'huge')]);
      const look = (pid: number): unknown => Object.fromEntries(places.map((place) => [place, seen(pid, place)]));
      const was = look(container.pid);
      for (let round = 0; round < 2; round++) {
        const { checkpoint: id, findings: told } = await checkpoint(agent, container.id);
        assert.deepEqual(told.filter(({ kind }) => kind === 'lost'), []);
        const { pid, findings } = await restore(agent, id);
        assert.deepEqual(look(pid), was);
        assert.deepEqual(findings, []);
      }
      await assertClean(agent);
    });
  });
}
