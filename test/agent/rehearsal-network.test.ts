/**
 * Containers that use the network of the node, or that of a pod: their connections and listening sockets are rebuilt in a
 * copy of that network which leads nowhere, so that the true ones never notice.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { checkpoint, endAgents, makeHome, removeHome, restore, startAgent, type AgentHome } from '../support/agent.ts';
import { startContainer, type Spec } from '../support/containers.ts';

const NETWORK = `rehearsal-${process.pid}`;
const ADDRESS = '10.77.0.2';
const ADDRESS6 = 'fd00:77::2';

let home: AgentHome;

function ip(...args: string[]): void {
  execFileSync('ip', args);
}

before(() => {
  home = makeHome();
  ip('netns', 'add', NETWORK);
  for (const where of [['-n', NETWORK], []]) {
    ip(...where, 'link', 'set', 'lo', 'up');
    ip(...where, 'link', 'add', 'pod0', 'type', 'veth', 'peer', 'name', 'pod1');
    for (const name of ['pod0', 'pod1']) ip(...where, 'link', 'set', name, 'up');
    ip(...where, 'addr', 'add', `${ADDRESS}/24`, 'dev', 'pod0');
    ip(...where, 'addr', 'add', `${ADDRESS6}/64`, 'dev', 'pod0', 'nodad');
  }
});

after(async () => {
  await removeHome(home);
  ip('netns', 'delete', NETWORK);
  ip('link', 'delete', 'pod0');
});

afterEach(endAgents);

const SERVER = `
import socket
server = socket.create_server(("${ADDRESS}", 7700))
print("ready", flush=True)
peer = server.accept()[0]
while True:
  peer.sendall(peer.recv(1) or exit(1))
`;

const CLIENT = `
import socket, time
servers = [socket.create_server(("${ADDRESS}", 7701)), socket.create_server(("${ADDRESS6}", 7702), family=socket.AF_INET6)]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("${ADDRESS}", 7703))
peer = socket.create_connection(("${ADDRESS}", 7700))
n = 0
while True:
  n += 1
  peer.sendall(b"x")
  assert peer.recv(1) == b"x"
  open("/beats", "w").write(str(n))
  time.sleep(0.02)
`;

const kinds: Readonly<Record<string, { readonly enter: readonly [string, ...string[]]; readonly edit: (spec: Spec) => void }>> = {
  'a pod': { enter: ['ip', 'netns', 'exec', NETWORK], edit: (spec) => {
    spec['linux'].namespaces.find(({ type }: { type: string }) => type === 'network').path = `/run/netns/${NETWORK}`;
  } },
  'the node': { enter: ['env'], edit: (spec) => {
    spec['linux'].namespaces = spec['linux'].namespaces.filter(({ type }: { type: string }) => type !== 'network');
  } },
};

async function startServer(enter: readonly [string, ...string[]]): Promise<ChildProcess> {
  const [program, ...args] = enter;
  const server = spawn(program, [...args, 'python3', '-c', SERVER], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(server.stdout, 'data');
  return server;
}

void describe('rehearsal in the network of others', () => {
  for (const [kind, { enter, edit }] of Object.entries(kinds)) {
    for (const runtime of ['runc', 'crun'] as const) {
      void it(`of ${kind} (${runtime})`, async () => {
        const server = await startServer(enter);
        const container = await startContainer({ runtime, id: `net-${runtime}-${process.pid}-${kind.replace(' ', '-')}`, args: ['/usr/bin/python3', '-c', CLIENT], edit });
        let { pid } = container;
        const beats = (): number => Number(readFileSync(`/proc/${pid}/root/beats`, { encoding: 'utf8', flag: 'a+' }));
        const goesOn = async (): Promise<void> => {
          const seen = beats();
          for (let waited = 0; waited < 20_000 && beats() <= seen; waited += 20) await delay(20);
          assert.ok(beats() > seen, `nothing comes over the connection: ${readFileSync(container.errorFile, 'utf8')}`);
        };
        try {
          await goesOn();
          const agent = await startAgent(home);
          const running = await checkpoint(agent, container.id, { leaveRunning: true, rehearsal: 'always', tcpEstablished: true });
          assert.equal(running.rehearsal?.done, true);
          await goesOn();
          const stopped = await checkpoint(agent, container.id, { rehearsal: 'always', tcpEstablished: true });
          assert.equal(stopped.rehearsal?.done, true);
          pid = (await restore(agent, stopped.checkpoint)).pid;
          await goesOn();
          assert.equal(await agent.stop(), 0);
        } finally {
          await container.stop();
          server.kill();
        }
      });
    }
  }
});
