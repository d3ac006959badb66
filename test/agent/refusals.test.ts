/** What is refused before anything is touched: hostile names, what cannot be saved, what does not fit, a second copy. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { assertClean, checkpoint, checkpointIds, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startContainer, waitForOutput, type ContainerOptions } from '../support/containers.ts';
import { startCounter, type Counter } from '../support/counter.ts';

let home: AgentHome;
let agent: TestAgent;
let counter: Counter;
let saved: string;

before(async () => {
  home = makeHome();
  agent = await startAgent(home);
  counter = await startCounter('runc');
  saved = (await checkpoint(agent, counter.id, { leaveRunning: true })).checkpoint;
});

after(async () => {
  await counter?.stop();
  await removeHome(home);
});

async function failure(attempt: Promise<unknown>): Promise<{ code: string; message: string; hint: string }> {
  return attempt.then(() => ({ code: 'none', message: '', hint: '' }), (error: unknown) => error as { code: string; message: string; hint: string });
}

const hostile = [
  '../x', '..', '.', '', '/', 'a/b', '/etc/passwd', 'a\nb', 'a\0b', '\u001b[31mred', '-rf', '--root=/', 'x'.repeat(300), 'x'.repeat(100_000),
  'café', '\u202Eabc', '🦊', ' ', '*', '$(touch /tmp/pwned)', '`id`', "'; touch /tmp/pwned; '", '%s%n', '__proto__', 'constructor',
];

void describe('hostile names', () => {
  for (const name of hostile) {
    void it(JSON.stringify(name.slice(0, 30)), async () => {
      const before = new Set(readdirSync('/run/runc'));
      for (const [what, attempt] of [
        ['container', () => checkpoint(agent, name, { leaveRunning: true })],
        ['checkpoint', () => restore(agent, name)],
        ['inspect', () => agent.client.inspectCheckpoint({ checkpoint: name }, { signal: undefined })],
        ['delete', () => agent.client.deleteCheckpoint({ checkpoint: name, reason: name.slice(0, 100) }, { signal: undefined })],
        ['cancel', () => agent.client.cancelOperation({ operationId: name }, { signal: undefined })],
        ['bundle', () => restore(agent, saved, { clone: true, container: 'new-id', bundle: name === '' ? ' ' : name })],
      ] as const) {
        const { code, message } = await failure(attempt());
        assert.match(code, /^(USAGE|CONTAINER_NOT_FOUND|CHECKPOINT_NOT_FOUND|OPERATION_NOT_FOUND|RESTORE_INCOMPATIBLE|LIMIT_EXCEEDED|PATH_ESCAPES)$/, `${what}: ${message.slice(0, 200)}`);
        assert.ok(message.length <= 2000, 'the message repeats all of it');
        // Control characters of a stranger must not reach a terminal.
        assert.doesNotMatch(message, /[\p{Cc}\u202e]/u, what);
      }
      if (!/^(-rf|--root=\/|x{100}.*|__proto__|constructor)$/.test(name)) {
        for (const more of [{ container: name || ' ' }, { operationId: name || ' ' }]) {
          const { code, message } = await failure(restore(agent, saved, { clone: true, ...more }));
          assert.equal(code, 'USAGE', message.slice(0, 200));
        }
      }
      assert.deepEqual(readdirSync('/run/runc').filter((id) => !before.has(id)), [], 'something was made');
      assert.equal(existsSync('/tmp/pwned'), false);
      await assertClean(agent);
    });
  }
});

const python = (program: string): readonly string[] => ['/usr/bin/python3', '-c', `import socket, time\n${program}\nprint("ready", flush=True)\nwhile True: time.sleep(0.01)`];

const impossible: readonly { readonly name: string; readonly options: Omit<ContainerOptions, 'runtime' | 'id'>; readonly says: RegExp }[] = [
  {
    name: 'io_uring', says: /uses io_uring/,
    options: { args: ['/usr/bin/perl', '-e', '$| = 1; my $p = "\\0" x 120; syscall(425, 8, $p) >= 0 or die "$!"; print "ready\\n"; sleep 1 while 1;'], edit: (spec) => { delete spec['linux'].seccomp; } },
  },
  {
    name: 'a device', says: /the device \/dev\/fuse .*open/,
    options: {
      args: ['/bin/sh', '-c', 'exec 5<>/dev/fuse; echo ready; while :; do sleep 1; done'],
      edit: (spec) => {
        spec['linux'].devices = [{ path: '/dev/fuse', type: 'c', major: 10, minor: 229, fileMode: 0o666, uid: 0, gid: 0 }];
        spec['linux'].resources = { devices: [{ allow: true, access: 'rwm' }] };
      },
    },
  },
  { name: 'a TCP connection without the flag for it', says: /TCP connection/, options: { args: python('s = socket.create_server(("127.0.0.1", 4000)); c = socket.create_connection(("127.0.0.1", 4000)); a = s.accept()[0]') } },
];

void describe('a container that cannot be checkpointed', () => {
  for (const runtime of ['runc', 'crun'] as const) {
    for (const { name, options, says } of impossible) {
      void it(`${name} (${runtime}): says why, and freezes nothing`, async () => {
        const container = await startContainer({ ...options, runtime, id: `refused-${runtime}-${process.pid}` });
        try {
          await waitForOutput(container.outputFile, (text) => text.includes('ready'));
          const steps = new Set<string>();
          const { code, message, hint } = await failure(checkpoint(agent, container.id, {}, (progress) => steps.add(progress.step)));
          assert.equal(code, 'NOT_CHECKPOINTABLE');
          assert.match(message, says);
          assert.ok(hint.length > 10);
          assert.ok([...steps].every((step) => step === 'examine' || step === ''), `it went on to ${[...steps].join()}`);
          const { containers } = await agent.client.listContainers({ container: container.id, all: false }, { signal: undefined });
          if (name !== impossible[2]?.name) assert.equal(containers[0]?.checkpointable, false);
          await assertClean(agent);
        } finally {
          await container.stop();
        }
      });
    }
  }
});

void describe('a restore that does not fit', () => {
  void it('under an id that exists, of either runtime', async () => {
    assert.equal((await failure(restore(agent, saved))).code, 'CONTAINER_EXISTS');
    const other = await startCounter('crun');
    try {
      assert.equal((await failure(restore(agent, saved, { container: other.id, clone: true }))).code, 'CONTAINER_EXISTS');
      await other.assertCounting();
      await counter.assertCounting();
    } finally {
      await other.stop();
    }
  });

  void it('while a copy runs, unless a clone is asked for: then both count on, each for itself', async () => {
    const { code, message } = await failure(restore(agent, saved, { container: 'second' }));
    assert.equal(code, 'CHECKPOINT_IN_USE', message);
    const clone = await restore(agent, saved, { container: 'second', clone: true });
    try {
      await counter.assertCounting();
      const lines = (): number[] => readFileSync(`/proc/${clone.pid}/root/counter`, 'utf8').split('\n').slice(0, -1).map(Number);
      const before = lines().length;
      while (lines().length <= before) await delay(20);
      lines().forEach((line, index) => assert.equal(line, index + 1));
    } finally {
      await checkpoint(agent, 'second');
    }
    assert.equal(existsSync('/run/runc/second'), false);
    await assertClean(agent);
  });

  void it('when an image layer is missing: named, nothing is made, and it works once the layer is back', async () => {
    const layer = '/srv/layer-of-a-test';
    mkdirSync(layer);
    writeFileSync(join(layer, 'from-the-layer'), 'here');
    const container = await startContainer({ runtime: 'runc', id: `layered-${process.pid}`, lower: `${layer}:/`, args: ['/bin/sh', '-c', 'while :; do sleep 0.1; done'] });
    try {
      const { checkpoint: id } = await checkpoint(agent, container.id);
      renameSync(layer, `${layer}.away`);
      const { code, message } = await failure(restore(agent, id));
      assert.equal(code, 'RESTORE_INCOMPATIBLE');
      assert.match(message, /image layers? .*missing.*layer-of-a-test/);
      assert.equal(existsSync(`/run/runc/${container.id}`), false);
      assert.equal(existsSync(join(home.state, 'containers', container.id)), false);
      await assertClean(agent);
      renameSync(`${layer}.away`, layer);
      const { pid } = await restore(agent, id);
      assert.ok(existsSync(`/proc/${pid}/root/from-the-layer`));
    } finally {
      await container.stop();
      for (const path of [layer, `${layer}.away`]) rmSync(path, { recursive: true, force: true });
    }
  });

  void it('in a bundle that is not one, or not of this container', async () => {
    const bundle = join(home.run, 'bundle');
    mkdirSync(join(bundle, 'rootfs'), { recursive: true });
    for (const config of [undefined, '{', '{}', '{"ociVersion":"1.0.0","root":{"path":"rootfs"},"annotations":{"org.criu.config":"/tmp/x"}}', '{"ociVersion":"1.0.0","root":{"path":"rootfs"},"mounts":[]}']) {
      if (config !== undefined) writeFileSync(join(bundle, 'config.json'), config);
      const { code, message } = await failure(restore(agent, saved, { bundle, clone: true, container: 'bundled' }));
      assert.equal(code, 'RESTORE_INCOMPATIBLE', message);
      assert.equal(existsSync('/run/runc/bundled'), false);
    }
    rmSync(bundle, { recursive: true });
    await assertClean(agent);
  });

  void it('and all is as before', async () => {
    await counter.assertCounting();
    assert.ok((await checkpointIds(agent)).includes(saved));
    assert.equal(await agent.stop(), 0);
  });
});
