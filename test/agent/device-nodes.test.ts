/** Device nodes among the files of a container: saved, made again where config.json grants the device, and told before the freeze where it does not. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { constants, existsSync, lstatSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { agentOfFile, assertClean, checkpoint, restore } from '../support/agent.ts';
import { startContainer, waitForOutput, type ContainerOptions } from '../support/containers.ts';

const file = agentOfFile();

/** c 1:3 is one of every container, c 10:229 and b 7:201 are granted, b 7:200 and c 240:1 are not. */
const PROGRAM = `
import os, stat, time
def node(path, kind, major, minor, mode=0o620):
    os.mknod(path, kind | 0o600, os.makedev(major, minor)); os.chmod(path, mode); os.chown(path, 7, 8)
node('/null-too', stat.S_IFCHR, 1, 3, 0o4666); os.setxattr('/null-too', 'trusted.kept', b'x'); os.utime('/null-too', ns=(1, 1234567890123456789))
os.makedirs('/deep/er'); os.link('/null-too', '/deep/er/linked')
node('/draft', stat.S_IFBLK, 7, 201); os.rename('/draft', '/deep/renamed')
node('/deep/fuse', stat.S_IFCHR, 10, 229)
node('/deep/disk', stat.S_IFBLK, 7, 200); os.link('/deep/disk', '/disk-again')
node('/tape', stat.S_IFCHR, 240, 1)
node('/vol/zero', stat.S_IFCHR, 1, 5); node('/vol/disk', stat.S_IFBLK, 7, 200)
os.unlink('/etc/debian_version')
print('ready', flush=True)
while True: time.sleep(1)
`;
const MADE = ['null-too', 'deep/er/linked', 'deep/renamed', 'deep/fuse'];

const options = (id: string): Omit<ContainerOptions, 'runtime'> => ({
  id, args: ['/usr/bin/python3', '-c', PROGRAM], capabilities: ['CAP_MKNOD', 'CAP_SYS_ADMIN', 'CAP_CHOWN', 'CAP_FOWNER'],
  prepare: (directory) => {
    mkdirSync(join(directory, 'memory'));
    execFileSync('mount', ['-t', 'tmpfs', 'memory', join(directory, 'memory')]);
  },
  edit: (spec) => {
    spec['mounts'].push({ destination: '/vol', type: 'bind', source: join('/srv', id, 'memory'), options: ['bind', 'rw'] });
    spec['linux'].resources = { devices: [
      { allow: false, access: 'rwm' }, { allow: true, type: 'b', major: 7, minor: 201, access: 'rwm' }, { allow: true, type: 'c', major: 240, access: 'rw' },
    ] };
    spec['linux'].devices = [{ path: '/dev/fuse', type: 'c', major: 10, minor: 229 }];
  },
});

/** Everything that a node is. */
function nodeOf(path: string): readonly unknown[] {
  const { mode, rdev, uid, gid, nlink, mtimeNs } = lstatSync(path, { bigint: true });
  const attributes = execFileSync('getfattr', ['--no-dereference', '--match=.', '--dump', '--absolute-names', path], { encoding: 'utf8' }).split('\n').slice(1).join();
  return [mode, rdev, uid, gid, nlink, mtimeNs, attributes];
}

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`device nodes, ${runtime}`, () => {
    void it('come back where the container may have them, twice; of the others preflight and restore tell', async () => {
      const container = await startContainer({ runtime, ...options(`nodes-${runtime}-${process.pid}`) });
      try {
        await waitForOutput(container.outputFile, (text) => text.includes('ready'));
        const root = (pid: number): string => `/proc/${pid}/root`;
        const was = MADE.map((path) => nodeOf(join(root(container.pid), path)));
        let { pid } = container;
        for (const round of [1, 2]) {
          const saved = await checkpoint(file.agent, container.id);
          const told = saved.findings.filter(({ kind }) => kind === 'device-node');
          if (round === 1) {
            assert.equal(told.length, 1);
            assert.match(told[0]!.message, /^the device nodes (?=.*\/deep\/disk \(b 7:200\))(?=.*\/disk-again \(b 7:200\))(?=.*\/tape \(c 240:1\))(?=.*\/vol\/disk \(b 7:200\)).* will not come back/);
            assert.match(told[0]!.hint, /linux\.resources\.devices/);
            assert.doesNotMatch(told[0]!.message, /null|renamed|fuse|zero|debian_version/);
          } else assert.deepEqual(told, [], 'they are gone');
          const back = await restore(file.agent, saved.checkpoint);
          ({ pid } = back);
          assert.deepEqual(MADE.map((path) => nodeOf(join(root(pid), path))), was);
          assert.equal(lstatSync(join(root(pid), 'vol/zero')).mode & constants.S_IFMT, constants.S_IFCHR);
          for (const path of ['deep/disk', 'disk-again', 'tape', 'vol/disk', 'etc/debian_version']) assert.ok(!existsSync(join(root(pid), path)), path);
          const left = back.findings.filter(({ kind }) => kind === 'left-out').map(({ message }) => message).join('\n');
          if (round === 1) for (const words of [/"(deep\/disk|disk-again)", the block device 7:200, was left out/, /another name of a device/, /"tape", the character device 240:1/, /below \/vol: "disk"/]) assert.match(left, words);
          else assert.equal(left, '');
        }
        await assertClean(file.agent);
      } finally {
        await container.stop();
      }
    });
  });
}
