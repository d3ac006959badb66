/** Containers in a network namespace that outlives them: neighbours there are never cut off, saved connections are kept. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import {
  assertClean, checkpoint, checkpointIds, makeHome, oneAfterTheOther, removeHome, restore, type AgentHome, type TestAgent,
} from '../support/agent.ts';
import { startContainer, type Spec } from '../support/containers.ts';

const NETWORK = `locks-${process.pid}`;
const NODE = 'self';
let home: AgentHome;
let peer: ChildProcess | undefined;

const agents = oneAfterTheOther(() => home);

before(() => {
  home = makeHome();
  execFileSync('ip', ['netns', 'add', NETWORK]);
  execFileSync('ip', ['-n', NETWORK, 'link', 'set', 'lo', 'up']);
});
async function armed(failpoint: string): Promise<TestAgent> {
  const agent = await agents.now();
  agent.arm(failpoint);
  return agent;
}

afterEach(async () => {
  if (peer !== undefined && peer.exitCode === null && peer.signalCode === null) {
    peer.kill('SIGKILL');
    await once(peer, 'exit');
  }
  peer = undefined;
  // Of a failed test.
  for (const network of [NETWORK, NODE]) for (const line of tables(network)) inside(network, 'nft', 'delete', ...line.split(' '));
});
after(async () => {
  execFileSync('ip', ['netns', 'del', NETWORK]);
  await removeHome(home);
});

const path = (network: string): string => (network === NODE ? '/proc/self/ns/net' : `/run/netns/${network}`);
const inside = (network: string, ...command: string[]): string => execFileSync('nsenter', [`--net=${path(network)}`, ...command], { encoding: 'utf8' });
const tables = (network: string): string[] => inside(network, 'nft', 'list', 'tables').split('\n').filter((line) => /CRIU|STASIS/.test(line));
const records = (): string[] => (existsSync(join(home.state, 'network-locks')) ? readdirSync(join(home.state, 'network-locks')) : []);

/** Sends numbers over each connection for ever: a reset ends it. Prints its ports. */
const PEER = `
import os, socket, threading, time
def push(connection):
    n = 0
    try:
        while True: n += 1; connection.sendall(b'%d\\n' % n); time.sleep(0.01)
    except OSError as error: os._exit(3)
def serve(server):
    while True: threading.Thread(target=push, args=(server.accept()[0],)).start()
ports = []
for family, address in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):
    server = socket.socket(family); server.bind((address, 0)); server.listen(); ports.append(server.getsockname()[1])
    threading.Thread(target=serve, args=(server,)).start()
print(' '.join(map(str, ports)), flush=True)
`;
/** IPv4, IPv6, and IPv4 over a socket of IPv6: no number is lost, and /progress holds the last. */
const client = ([v4, v6]: readonly string[]): string => `
import os, socket
files = [socket.create_connection(('127.0.0.1', ${v4})).makefile('rb'), socket.create_connection(('::1', ${v6})).makefile('rb')]
mapped = socket.socket(socket.AF_INET6); mapped.connect(('::ffff:127.0.0.1', ${v4})); files.append(mapped.makefile('rb'))
n = 0
while True:
    n += 1
    for file in files: assert file.readline() == b'%d\\n' % n
    with open('/progress.new', 'w') as out: out.write('%d' % n)
    os.replace('/progress.new', '/progress')
`;
const ALONE = `
import os, time
n = 0
while True:
    n += 1
    with open('/progress.new', 'w') as out: out.write('%d' % n)
    os.replace('/progress.new', '/progress'); time.sleep(0.01)
`;
const NEIGHBOUR = `
import socket
for family, address in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):
    server = socket.socket(family); server.bind((address, 0)); server.listen()
    client = socket.socket(family); client.settimeout(5); client.connect(server.getsockname()); client.send(b'x'); print(server.accept()[0].recv(1))
`;

async function startPeer(network: string): Promise<string[]> {
  peer = spawn('nsenter', [`--net=${path(network)}`, 'python3', '-c', PEER], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [ports] = (await once(peer.stdout!, 'data')) as [Buffer];
  return String(ports).trim().split(' ');
}

/** A peer that was blocked for long tries again only as much later. */
async function goesOn(pid: number, errors = ''): Promise<void> {
  const progress = (): number => {
    try {
      return Number(readFileSync(`/proc/${pid}/root/progress`, 'utf8'));
    } catch {
      return 0;
    }
  };
  const first = progress();
  for (let waited = 0; progress() < first + 3 && waited < 60_000; waited += 20) await delay(20);
  assert.ok(progress() >= first + 3, `${pid} stands still at ${first}: ${errors === '' ? '' : readFileSync(errors, 'utf8')}`);
}

async function withContainer(runtime: 'runc' | 'crun', network: string, connected: boolean, body: (id: string) => Promise<void>, name = 'locks'): Promise<void> {
  const args = ['/usr/bin/python3', '-c', connected ? client(await startPeer(network)) : ALONE];
  const edit = (spec: Spec): void => {
    const others = (spec['linux'].namespaces as { type: string }[]).filter(({ type }) => type !== 'network');
    spec['linux'].namespaces = network === NODE ? others : [...others, { type: 'network', path: path(network) }];
  };
  const container = await startContainer({ runtime, id: `${name}-${runtime}-${process.pid}`, args, edit });
  try {
    await goesOn(container.pid, container.errorFile);
    await body(container.id);
  } finally {
    await container.stop();
  }
}

async function remove(agent: TestAgent): Promise<void> {
  for (const id of await checkpointIds(agent)) await agent.client.deleteCheckpoint({ checkpoint: id, reason: 'test' }, { signal: undefined });
}

/** After a stop. */
function assertOthersAreFree(network: string, connected: boolean): void {
  assert.equal(inside(network, 'python3', '-c', NEIGHBOUR), "b'x'\nb'x'\n");
  assert.equal(tables(network).length, connected ? 1 : 0);
  assert.equal(records().length, connected ? 1 : 0);
  if (connected) assert.equal(peer?.exitCode, null, 'the connections are not reset');
}

function assertNothingLeft(network: string): void {
  assert.deepEqual(tables(network), []);
  assert.deepEqual(records(), []);
}

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`what a stop leaves in a network namespace, ${runtime}`, () => {
    for (const network of [NETWORK, NODE]) {
      for (const tcpEstablished of [false, true]) {
        // How the agent finds and frees a namespace has nothing to do with the runtime.
        if (runtime === 'crun' && tcpEstablished !== (network === NETWORK)) continue;
        const what = `${tcpEstablished ? 'connections' : 'no connection'} in ${network === NODE ? "the node's own" : 'a named one'}`;
        void it(`${what}: others are free, and nothing is left after a restore or rm`, async () => {
          await withContainer(runtime, network, tcpEstablished, async (id) => {
            const agent = await armed('');
            await checkpoint(agent, id, { tcpEstablished, leaveRunning: true });
            assertNothingLeft(network);
            const saved = await checkpoint(agent, id, { tcpEstablished });
            assertOthersAreFree(network, tcpEstablished);
            const { pid } = await restore(agent, saved.checkpoint, { tcpEstablished });
            assertNothingLeft(network);
            await goesOn(pid);
            await checkpoint(agent, id, { tcpEstablished });
            assertOthersAreFree(network, tcpEstablished);
            await remove(agent);
            assertNothingLeft(network);
            await assertClean(agent);
          });
        });
      }
    }

    void it('a restore that fails when criu has unlocked the network leaves the connections blocked, and the next one has them', async () => {
      await withContainer(runtime, NETWORK, true, async (id) => {
        const agent = await armed('restore.gate.pre-resume=fail');
        const saved = await checkpoint(agent, id, { tcpEstablished: true, rehearsal: 'never' });
        await assert.rejects(restore(agent, saved.checkpoint, { tcpEstablished: true }), { message: /failpoint/ });
        assertOthersAreFree(NETWORK, true);
        const { pid } = await restore(agent, saved.checkpoint, { tcpEstablished: true });
        await goesOn(pid);
        assertNothingLeft(NETWORK);
        await remove(agent);
      });
    });

    void it('a failed restore without connections leaves nothing, nor does one that closes them', async () => {
      await withContainer(runtime, NETWORK, false, async (id) => {
        const agent = await armed('restore.gate.post-restore=fail');
        const saved = await checkpoint(agent, id, { rehearsal: 'never' });
        await assert.rejects(restore(agent, saved.checkpoint), { message: /failpoint/ });
        assertOthersAreFree(NETWORK, false);
      });
      await withContainer(runtime, NETWORK, true, async (id) => {
        const agent = await armed('');
        const { checkpoint: saved } = await checkpoint(agent, id, { tcpEstablished: true });
        await restore(agent, saved, { tcpClose: true });
        assertNothingLeft(NETWORK);
        await remove(agent);
      });
    });
  });
}

void describe('what is left when something goes wrong', () => {
  for (const place of ['checkpoint.commit.decided', 'restore.gate.post-restore']) {
    void it(`an agent that dies at ${place}: the next one frees the others and keeps the connections`, async () => {
      await withContainer('runc', NETWORK, true, async (id) => {
        const dying = await armed(`${place}=kill`);
        if (place.startsWith('checkpoint')) {
          await assert.rejects(checkpoint(dying, id, { tcpEstablished: true }));
        } else {
          const { checkpoint: saved } = await checkpoint(dying, id, { tcpEstablished: true });
          await assert.rejects(restore(dying, saved, { tcpEstablished: true }));
        }
        await dying.exited;
        const agent = await armed('');
        assertOthersAreFree(NETWORK, true);
        const [saved = ''] = await checkpointIds(agent);
        const { pid } = await restore(agent, saved, { tcpEstablished: true });
        await goesOn(pid);
        assertNothingLeft(NETWORK);
        await remove(agent);
      });
    });
  }

  void it('a failed stop takes nothing away that belongs to another container', async () => {
    await withContainer('runc', NETWORK, true, async (id) => {
      const agent = await armed('checkpoint.seal:2=fail');
      await checkpoint(agent, id, { tcpEstablished: true });
      await withContainer('runc', NETWORK, false, async (neighbour) => {
        await assert.rejects(checkpoint(agent, neighbour, { rehearsal: 'never' }), { message: /failpoint/ });
        assertOthersAreFree(NETWORK, true);
      }, 'locks-neighbour');
      await remove(agent);
      assertNothingLeft(NETWORK);
    });
  });
});
