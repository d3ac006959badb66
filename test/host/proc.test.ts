/** Readers of /proc, on this very system and on texts that a process can forge. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, connect } from 'node:net';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { mountOf, overlayLayers, parseMountinfo, readMountinfo, unescapeOctal } from '../../src/host/mountinfo.ts';
import { listDescriptors, listPids, parseCgroups, parseStat, processAlive, readNamespaces, readProcSlow, readStat, readStatus, threadStates } from '../../src/host/proc.ts';
import { socketProtocol, unixSockets } from '../../src/host/sockets.ts';

describe('proc', () => {
  it('reads this process', async () => {
    const stat = readStat(process.pid)!;
    assert.equal(stat.pid, process.pid);
    assert.equal(stat.ppid, process.ppid);
    assert.ok(stat.threads > 1 && stat.startTime > 0);
    assert.ok(processAlive(process.pid, stat.startTime));
    assert.ok(!processAlive(process.pid, stat.startTime + 1), 'a later process of that number is another');
    assert.equal(readStatus(process.pid)?.get('Pid'), String(process.pid));
    assert.ok(threadStates(process.pid, 100).length > 1);
    assert.ok(listPids().includes(process.pid));
    assert.ok(listDescriptors(process.pid, 1000).length > 2);
    assert.match(readNamespaces('self').net ?? '', /^net:\[\d+\]$/);
    assert.match((await readProcSlow(process.pid, 'maps', 1 << 20)) ?? '', /\[stack\]/);
  });

  it('takes a process that is gone for nothing', async () => {
    const child = spawn('true');
    await once(child, 'exit');
    const pid = child.pid!;
    assert.equal(readStat(pid), undefined);
    assert.equal(readStatus(pid), undefined);
    assert.deepEqual(listDescriptors(pid, 10), []);
    assert.deepEqual(readNamespaces(pid), {});
    assert.deepEqual(threadStates(pid, 10), []);
    assert.equal(await readProcSlow(pid, 'maps', 100), undefined);
    assert.ok(!processAlive(pid, 1));
    assert.ok(!processAlive(0, 0));
  });

  it('is not fooled by names of programs', () => {
    fc.assert(fc.property(fc.string({ maxLength: 15 }).filter((name) => !name.includes('\0')), (comm) => {
      const stat = parseStat(`12 (${comm}) T 7 12 11 34816 12 4194304 1 2 3 4 5 6 7 8 20 0 3 0 9876 1 2 3`);
      assert.deepEqual(stat, { pid: 12, comm, state: 'T', ppid: 7, group: 12, session: 11, tty: 34816, foreground: 12, threads: 3, ticks: 26, startTime: 9876 });
    }), { verbose: true });
    assert.equal(parseStat('nonsense'), undefined);
    assert.equal(parseStat('1 (x) S 1'), undefined);
  });

  it('parses cgroups of both versions', () => {
    assert.deepEqual(parseCgroups('12:cpu,cpuacct:/a b\n1:name=systemd:/x:y\n0::/z\n'), [
      { hierarchy: 12, controllers: ['cpu', 'cpuacct'], path: '/a b' },
      { hierarchy: 1, controllers: ['name=systemd'], path: '/x:y' },
      { hierarchy: 0, controllers: [''], path: '/z' },
    ]);
  });
});

describe('mountinfo', () => {
  const line = (mountPoint: string, type: string, options: string): string => `36 35 98:0 /mnt1 ${mountPoint} rw,noatime shared:7 master:1 - ${type} src ${options}`;

  it('parses fields, tags and escapes', () => {
    const [mount] = parseMountinfo(`${line('/a\\040b\\134c\\012d', 'ext3', 'rw,errors=continue')}\nbroken line\n`);
    assert.deepEqual(mount, { id: 36, parent: 35, device: '98:0', root: '/mnt1', mountPoint: '/a b\\c\nd', options: ['rw', 'noatime'], tags: ['shared:7', 'master:1'], fsType: 'ext3', source: 'src', superOptions: ['rw', 'errors=continue'] });
    assert.equal(parseMountinfo('').length, 0);
    assert.equal(unescapeOctal('\\054\\075\\011'), ',=\t');
  });

  it('reads the layers of an overlay in both spellings', () => {
    const layers = (options: string) => overlayLayers(parseMountinfo(line('/', 'overlay', options))[0]!);
    assert.deepEqual(layers('rw,lowerdir=/l/1:/l/a\\134:b:/l/c\\040d,upperdir=/u\\054x,workdir=/w,redirect_dir=on,metacopy=on'), {
      lower: ['/l/1', '/l/a:b', '/l/c d'], upper: '/u,x', work: '/w', options: ['redirect_dir=on', 'metacopy=on'],
    });
    assert.deepEqual(layers('ro,lowerdir+=/l/1,lowerdir+=/l/2,datadir+=/d').lower, ['/l/1', '/l/2', '/d']);
    assert.deepEqual(layers('rw,lowerdir=/l/1:/l/2::/data,upperdir=/u,workdir=/w').lower, ['/l/1', '/l/2', '/data']);
    assert.equal(layers('ro,lowerdir=/a').upper, undefined);
  });

  it('finds the mount of a path', () => {
    const mounts = parseMountinfo([line('/', 'ext4', 'rw'), line('/a', 'tmpfs', 'rw'), line('/a/b', 'proc', 'rw'), line('/a', 'xfs', 'rw')].join('\n'));
    assert.equal(mountOf(mounts, '/ab')?.fsType, 'ext4');
    assert.equal(mountOf(mounts, '/a/c')?.fsType, 'xfs');
    assert.equal(mountOf(mounts, '/a/b/c')?.fsType, 'proc');
    assert.ok(readMountinfo('self').some(({ mountPoint }) => mountPoint === '/proc'));
  });
});

describe('sockets', () => {
  it('tells the ends of UNIX sockets and the protocol of any', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'sockets-'));
    const path = join(directory, 's');
    const server = createServer().listen(path);
    await once(server, 'listening');
    const client = connect(path);
    await once(client, 'connect');
    try {
      const sockets = unixSockets(process.pid);
      const accepted = sockets.find(({ name, state }) => name === path && state === 'connected')!;
      assert.equal(accepted.type, 'stream');
      assert.equal(sockets.find(({ inode }) => inode === accepted.peer)?.peer, accepted.inode);
      assert.equal(sockets.find(({ name, state }) => name === path && state === 'listening')?.peer, undefined);
      const { fd } = listDescriptors(process.pid, 1000).find(({ target }) => target === `socket:[${accepted.inode}]`)!;
      assert.match(socketProtocol(process.pid, fd) ?? '', /^UNIX/);
      assert.equal(socketProtocol(process.pid, 1_000_000), undefined);
    } finally {
      client.destroy();
      server.close();
      rmSync(directory, { recursive: true });
    }
  });

  it('looks into another network namespace and comes back', async () => {
    const before = readFileSync('/proc/thread-self/net/dev', 'utf8').split('\n').length;
    const child = spawn('unshare', ['--net', 'python3', '-c', 'import socket, time; s = socket.socket(socket.AF_UNIX); s.bind("\\0stasis-there"); s.listen(); print("ready", flush=True); time.sleep(60)'], { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      await once(child.stdout, 'data');
      assert.ok(unixSockets(child.pid!).some(({ name }) => name === '@stasis-there'));
      assert.ok(!unixSockets(process.pid).some(({ name }) => name === '@stasis-there'));
      assert.equal(readFileSync('/proc/thread-self/net/dev', 'utf8').split('\n').length, before);
    } finally {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    assert.throws(() => unixSockets(child.pid!));
  });
});
