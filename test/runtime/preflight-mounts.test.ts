/** Preflight and files that may be hostile or gone: servers of files that never answer, links onto the node, sources of mounts. */
import assert from 'node:assert/strict';
import { constants, mkdirSync, renameSync, rmSync } from 'node:fs';
import { before, describe, it } from 'node:test';
import { statLink, statOpen, withinRoot } from '../../src/host/still-files.ts';
import { examine, type CheckpointFlags, type Toolchain, type Verdict } from '../../src/runtime/index.ts';
import { startContainer, toolchain, waitForOutput, type ContainerOptions, type TestContainer } from '../support/containers.ts';

const flags: CheckpointFlags = { leaveRunning: true, tcpEstablished: true, fileLocks: true, extUnixSk: false, shellJob: false };
const source = '/srv/preflight-source';

/** A FUSE server that never answers, whose root is the file /dev/hang; a process holds that file as it would a device. */
const silentServer = `
import ctypes, os, time
fuse = os.open("/dev/fuse", os.O_RDWR)
open("/dev/hang", "w").close()
options = b"fd=%d,rootmode=100644,user_id=0,group_id=0" % fuse
assert ctypes.CDLL(None).mount(b"hang", b"/dev/hang", b"fuse", 0, options) == 0
held = os.open("/dev/hang", os.O_PATH)
print("ready", flush=True)
while True: time.sleep(1)`;

describe('preflight and files', () => {
  let tools: Toolchain;
  before(async () => {
    tools = await toolchain();
  });

  async function judged(options: Omit<ContainerOptions, 'runtime' | 'id'>, use: (judge: () => Promise<Verdict>, container: TestContainer) => Promise<void>): Promise<void> {
    const container = await startContainer({ runtime: 'runc', id: 'preflight-files', ...options });
    try {
      await waitForOutput(container.outputFile, (text) => text.includes('ready'));
      await use(async () => examine(await container.inspect(), tools, flags, { signal: undefined }), container);
    } finally {
      await container.stop();
    }
  }

  it('does not wait for a FUSE server that never answers', { timeout: 60_000 }, async () => {
    const edit: ContainerOptions['edit'] = (spec) => {
      delete spec['linux'].seccomp;
      spec['linux'].devices = [{ path: '/dev/fuse', type: 'c', major: 10, minor: 229, fileMode: 0o666, uid: 0, gid: 0 }];
      spec['linux'].resources = { devices: [{ allow: true, access: 'rwm' }] };
    };
    await judged({ args: ['/usr/bin/python3', '-c', silentServer], capabilities: ['CAP_SYS_ADMIN'], edit }, async (judge, container) => {
      const verdict = await judge();
      assert.match(verdict.findings[0]?.message ?? '', /the device \/dev\/fuse \(10:229\) open/);
      // The test is worth something only when the file was really held.
      assert.ok(statLink(container.pid, 'fd/3') !== undefined);
    });
  });

  it('follows no link of the container onto the node', async () => {
    await judged({ args: ['/bin/sh', '-c', 'ln -s /etc /link; mkdir /real; echo ready; exec sleep 1000'] }, (_judge, { pid }) => {
      assert.equal(withinRoot(pid, '/link/hostname', () => true), undefined);
      // The link itself, not where it leads.
      assert.equal(withinRoot(pid, '/link', (fd) => (statOpen(fd)?.mode ?? 0) & constants.S_IFMT), constants.S_IFLNK);
      assert.equal(withinRoot(pid, '/none', () => true), undefined);
      assert.equal(withinRoot(pid, '/proc', () => true), true);
      assert.equal(withinRoot(pid, '/../../proc', () => true), true);
      return Promise.resolve();
    });
  });

  it('sees that the source of a bind mount was replaced or removed', async () => {
    mkdirSync(source, { recursive: true });
    const edit: ContainerOptions['edit'] = (spec) => { spec['mounts'].push({ destination: '/data', type: 'bind', source, options: ['bind', 'ro'] }); };
    try {
      await judged({ args: ['/bin/sh', '-c', 'echo ready; while :; do sleep 1; done'], edit }, async (judge) => {
        assert.deepEqual((await judge()).findings, []);
        renameSync(source, `${source}.old`);
        const gone = (await judge()).findings;
        assert.match(gone[0]?.message ?? '', /\/srv\/preflight-source, the source of the mount \/data, is not there any more/);
        assert.equal(gone[0]?.severity, 'fatal');
        mkdirSync(source);
        const replaced = (await judge()).findings;
        assert.match(replaced[0]?.message ?? '', /is another file or directory by now/);
        assert.equal(replaced[0]?.severity, 'warning');
      });
    } finally {
      rmSync(source, { recursive: true, force: true });
      rmSync(`${source}.old`, { recursive: true, force: true });
    }
  });

});

describe('preflight of ordinary containers', () => {
  const programs: Readonly<Record<string, readonly string[]>> = {
    'a shell': ['/bin/sh', '-c', 'echo ready; while :; do sleep 1; done'],
    'a Python server with threads and asyncio': ['/usr/bin/python3', '-c', `
import asyncio, http.server, multiprocessing, socketserver, subprocess, threading
def work(queue):
    while True: queue.get()
queue = multiprocessing.get_context("fork").SimpleQueue()
multiprocessing.get_context("fork").Process(target=work, args=(queue,), daemon=True).start()
threading.Thread(target=socketserver.ThreadingTCPServer(("127.0.0.1", 8000), http.server.SimpleHTTPRequestHandler).serve_forever, daemon=True).start()
child = subprocess.Popen(["/bin/sleep", "1000"])
async def main():
    await asyncio.start_server(lambda r, w: None, "127.0.0.1", 8001)
    print("ready", flush=True)
    await asyncio.sleep(10000)
asyncio.run(main())`],
    'a redis server': ['/bin/sh', '-c', 'redis-server --port 6379 --bind 127.0.0.1 --save "" --dir /tmp --logfile /dev/null & until redis-cli ping >/dev/null 2>&1; do sleep 0.1; done; echo ready; wait'],
    'a Perl program with a socket pair and a pipe': ['/usr/bin/perl', '-e', '$| = 1; use Socket; socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, 0); pipe(my $r, my $w); if (!fork) { <$r>; exit } print "ready\\n"; sleep 1 while 1'],
  };

  for (const [name, args] of Object.entries(programs)) {
    it(`finds nothing in ${name}`, async () => {
      const container = await startContainer({ runtime: 'runc', id: 'preflight-ordinary', args });
      try {
        await waitForOutput(container.outputFile, (text) => text.includes('ready'));
        const { findings } = await examine(await container.inspect(), await toolchain(), flags, { signal: undefined });
        assert.deepEqual(findings, []);
      } finally {
        await container.stop();
      }
    });
  }
});
