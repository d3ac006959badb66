/** Preflight against real containers of every kind that can be made here. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { examine, type CheckpointFlags, type Toolchain, type Verdict } from '../../src/runtime/index.ts';
import { startContainer, toolchain, waitForOutput, type ContainerOptions, type TestContainer } from '../support/containers.ts';
import { scenarios } from './scenarios.ts';

const noFlags: CheckpointFlags = { leaveRunning: true, tcpEstablished: false, fileLocks: false, extUnixSk: false, shellJob: false };
const SMALL_GHOST_LIMIT = 1 << 20;

async function ready(options: Omit<ContainerOptions, 'runtime' | 'id'>): Promise<TestContainer> {
  const container = await startContainer({ runtime: 'runc', id: 'preflight', ...options });
  try {
    await waitForOutput(container.outputFile, (text) => text.includes('ready'));
    return container;
  } catch (error) {
    await container.stop();
    throw error;
  }
}

describe('preflight', () => {
  let tools: Toolchain;
  before(async () => {
    tools = await toolchain();
  });

  async function judge(container: TestContainer, flags: Partial<CheckpointFlags> = {}): Promise<Verdict> {
    return examine(await container.inspect(), tools, { ...noFlags, ...flags }, { signal: undefined, ghostLimitBytes: SMALL_GHOST_LIMIT });
  }

  for (const { name, options, kind, severity, message, cure } of scenarios) {
    it(`finds ${name}`, async () => {
      const container = await ready(options);
      try {
        const verdict = await judge(container);
        const finding = verdict.findings.find((candidate) => candidate.kind === kind);
        assert.ok(finding, `no finding of kind ${kind} in ${JSON.stringify(verdict.findings)}`);
        assert.equal(finding.severity, severity);
        assert.match(finding.message, message);
        assert.ok(finding.hint.length > 10);
        if (severity === 'fatal') assert.equal(verdict.checkpointable, false);
        if (cure !== undefined) assert.ok(!(await judge(container, { [cure]: true })).findings.some((candidate) => candidate.kind === kind), `${cure} should let it pass`);
      } finally {
        await container.stop();
      }
    });
  }

  it('passes an ordinary container without a word, and quickly', async () => {
    const container = await ready({ args: ['/bin/sh', '-c', 'echo ready; while :; do sleep 1; done'] });
    try {
      await judge(container);
      const found = await container.inspect();
      const started = performance.now();
      const verdict = await examine(found, tools, noFlags, { signal: undefined });
      const took = performance.now() - started;
      assert.deepEqual(verdict.findings, []);
      assert.equal(verdict.checkpointable, true);
      assert.equal(verdict.memory.processes, 2);
      assert.ok(verdict.memory.bytes > 50_000 && verdict.memory.bytes < 50_000_000, `${verdict.memory.bytes} bytes`);
      // The aim is 50 ms; the rest is for a busy machine.
      assert.ok(took < 500, `took ${took} ms`);
    } finally {
      await container.stop();
    }
  });

  it('tells connections to the outside from those inside, and both ends of UNIX sockets', async () => {
    const directory = '/srv/preflight-socket';
    mkdirSync(directory, { recursive: true });
    const server: Server = createServer(() => undefined).listen(`${directory}/s`);
    await once(server, 'listening');
    const edit: ContainerOptions['edit'] = (spec) => spec['mounts'].push({ destination: '/outside', type: 'bind', source: directory, options: ['bind'] });
    const program = (path: string): readonly string[] => ['/usr/bin/python3', '-c', `
import socket, time
l = socket.socket(socket.AF_UNIX); l.bind("/tmp/inside"); l.listen()
p = socket.socketpair()
c = socket.socket(socket.AF_UNIX); c.connect("${path}")
a = l.accept() if "${path}" == "/tmp/inside" else None
print("ready", flush=True)
while True: time.sleep(1)`];
    try {
      const outside = await ready({ args: program('/outside/s'), edit });
      try {
        const { findings, checkpointable } = await judge(outside, { extUnixSk: true });
        assert.equal(checkpointable, false);
        assert.match(findings[0]?.message ?? '', /connected by a UNIX stream socket \(\/srv\/preflight-socket\/s\), descriptor \d+, with a process outside/);
      } finally {
        await outside.stop();
      }
      const inside = await ready({ args: program('/tmp/inside'), edit });
      try {
        assert.deepEqual((await judge(inside)).findings.filter(({ severity }) => severity === 'fatal'), []);
      } finally {
        await inside.stop();
      }
    } finally {
      server.close();
      rmSync(directory, { recursive: true });
    }
  });

  it('names memory volumes to be saved and bind mounts that are not', async () => {
    mkdirSync('/srv/preflight-data', { recursive: true });
    mkdirSync('/run/preflight-shm', { recursive: true });
    const edit: ContainerOptions['edit'] = (spec) => {
      spec['mounts'] = spec['mounts'].filter(({ destination }: { destination: string }) => destination !== '/dev/shm');
      spec['mounts'].push(
        { destination: '/dev/shm', type: 'bind', source: '/run/preflight-shm', options: ['bind', 'rw'] },
        { destination: '/data', type: 'bind', source: '/srv/preflight-data', options: ['rbind', 'rw'] },
        { destination: '/fixed', type: 'bind', source: '/srv/preflight-data', options: ['rbind', 'ro'] },
      );
    };
    const container = await ready({ args: ['/bin/sh', '-c', 'echo ready; while :; do sleep 1; done'], edit });
    try {
      const verdict = await judge(container);
      assert.deepEqual(verdict.volumes, [{ destination: '/dev/shm', source: '/run/preflight-shm', fstype: 'tmpfs' }]);
      assert.deepEqual(verdict.findings.map(({ kind, severity }) => ({ kind, severity })), [{ kind: 'external-mount', severity: 'warning' }]);
      assert.match(verdict.findings[0]?.message ?? '', /the contents of \/data .* bound from \/srv\/preflight-data\) are not in the checkpoint/);
    } finally {
      await container.stop();
      rmSync('/srv/preflight-data', { recursive: true });
      rmSync('/run/preflight-shm', { recursive: true });
    }
  });

  it('tells of exec sessions, and counts what lies in memory files', async () => {
    const container = await ready({ args: ['/usr/bin/python3', '-c', 'import os, time\nf = os.memfd_create("x"); os.write(f, b"x" * 20_000_000)\nprint("ready", flush=True)\nwhile True: time.sleep(1)'] });
    try {
      const { memory } = await judge(container);
      assert.ok(memory.bytes > 20_000_000, `${memory.bytes} bytes`);
      execFileSync('runc', ['exec', '--detach', container.id, 'sleep', '1000'], { stdio: 'ignore' });
      const { findings, checkpointable } = await judge(container);
      assert.ok(checkpointable);
      assert.match(findings.find(({ kind }) => kind === 'exec-session')?.message ?? '', /pid \d+ \(sleep\) was started from outside/);
    } finally {
      await container.stop();
    }
  });

  it('says that a container has ended', async () => {
    const container = await ready({ args: ['/bin/sh', '-c', 'echo ready; exec sleep 1000'] });
    let found;
    try {
      found = await container.inspect();
    } finally {
      await container.stop();
    }
    const verdict = await examine(found, tools, noFlags, { signal: undefined });
    assert.equal(verdict.checkpointable, false);
    assert.match(verdict.findings[0]?.message ?? '', /has ended/);
  });

  it('knows which criu works on which kernel', async () => {
    const container = await ready({ args: ['/usr/bin/python3', '-c', 'import socket, time\ns = socket.create_server(("127.0.0.1", 4000))\nprint("ready", flush=True)\nwhile True: time.sleep(1)'] });
    const withCriu = async (version: readonly [number, number, number], kernel: string): Promise<string> => {
      const text = version.join('.');
      const verdict = await examine(await container.inspect(), { ...tools, kernel, criu: { version, text } }, noFlags, { signal: undefined });
      return verdict.findings[0]?.message ?? '';
    };
    try {
      assert.equal(await withCriu([4, 2, 1], '6.18.5'), '');
      assert.match(await withCriu([3, 17, 1], '6.13.0'), /criu 3\.17\.1 does not work on kernel 6\.13\.0/);
      assert.match(await withCriu([4, 0, 0], '6.1.0-32-amd64'), /cannot dump a container that is already frozen/);
      assert.match(await withCriu([4, 1, 1], '6.16.1'), /cannot dump the internet socket of pid \d+ \(python3/);
      assert.equal(await withCriu([4, 1, 1], '6.15.9'), '');
    } finally {
      await container.stop();
    }
  });

  after(() => {
    assert.throws(() => execFileSync('runc', ['state', 'preflight'], { stdio: 'ignore' }));
  });
});
