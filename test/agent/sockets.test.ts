/** Sockets that stand in no table of the kernel: never bound, refused, reset, shut down. They are no reason to refuse, and come back. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { isStasisError } from '../../src/core/errors.ts';
import { assertClean, checkpoint, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startContainer } from '../support/containers.ts';

/**
 * Makes one socket of each state, and writes what the kernel says of each into /state, again and again. When /use appears it
 * uses them and writes into /used what came of it.
 */
const SOCKETS = `
import json, os, socket, struct, time
T, U, LOOP = socket.SOCK_STREAM, socket.SOCK_DGRAM, '127.0.0.1'
def pair():
    with socket.create_server((LOOP, 0)) as server:
        near = socket.create_connection(server.getsockname()); far, _ = server.accept()
    return near, far
kept, s, meet = [], {}, socket.create_server((LOOP, 4004))
for name, family, kind, protocol in [('tcp', socket.AF_INET, T, 0), ('tcp6', socket.AF_INET6, T, 0), ('udp', socket.AF_INET, U, 0), ('udp6', socket.AF_INET6, U, 0), ('netlink', socket.AF_NETLINK, socket.SOCK_RAW, 0), ('packet', socket.AF_PACKET, socket.SOCK_RAW, 0)]:
    s[name] = socket.socket(family, kind, protocol)
for name, family, address in [('bound', socket.AF_INET, (LOOP, 4001)), ('bound6', socket.AF_INET6, ('::1', 4002))]:
    s[name] = socket.socket(family, T); s[name].bind(address)
s['refused'] = socket.socket(); s['refused'].connect_ex((LOOP, 1))
s['refused udp'] = socket.socket(socket.AF_INET, U); s['refused udp'].connect((LOOP, 1)); s['refused udp'].send(b'x'); time.sleep(0.1)
try: s['refused udp'].recv(1)
except ConnectionRefusedError: pass
s['reset'], far = pair(); far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); far.close()
s['shut by both'], far = pair(); kept.append(far); far.shutdown(socket.SHUT_RDWR); s['shut by both'].shutdown(socket.SHUT_RDWR)
s['other end of it'] = far
s['closed by peer'], far = pair(); far.close()
s['was a listener'] = socket.create_server((LOOP, 4003)); s['was a listener'].shutdown(socket.SHUT_RDWR)
time.sleep(0.3)
def tell(one):
    told = [one.family, one.type, one.getsockname()[:2] if one.family != socket.AF_NETLINK else 0]
    if one.type == T: told.append(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])
    return told
def put(path, value):
    open(path + '.new', 'w').write(json.dumps(value)); os.rename(path + '.new', path)
def use(name, one):
    one.settimeout(2)
    try:
        if name.startswith('refused'): one.connect(meet.getsockname()); return 'connects'
        if name.startswith(('tcp', 'udp')):
            one.bind(('::1' if '6' in name else LOOP, 0)); return 'bound'
        if name.startswith('bound'): one.listen(); return 'listens'
        if name == 'netlink': one.bind((0, 0)); return 'bound'
        if name == 'packet': one.bind(('lo', 3)); return 'bound'
        return str(one.recv(1))
    except OSError as e: return e.strerror
n = 0
while True:
    n += 1; put('/state', {k: tell(v) for k, v in s.items()}); put('/n', n)
    if os.path.exists('/use') and not os.path.exists('/used'): put('/used', {k: use(k, v) for k, v in s.items()})
    time.sleep(0.05)
`;

/** Connects with itself and does not accept, until /use appears. */
const WAITING = `
import json, os, socket, time
def put(path, value):
    open(path + '.new', 'w').write(json.dumps(value)); os.rename(path + '.new', path)
server = socket.create_server(('127.0.0.1', 4000)); server.setblocking(False)
client = socket.create_connection(('127.0.0.1', 4000))
n = 0
while True:
    n += 1; put('/n', n)
    if os.path.exists('/use') and not os.path.exists('/used'):
        try: server.accept(); old = 'is there'
        except BlockingIOError: old = 'is gone'
        again = socket.create_connection(('127.0.0.1', 4000)); server.setblocking(True); server.accept()
        put('/used', old)
    time.sleep(0.05)
`;

let home: AgentHome;
let agent: TestAgent;

before(async () => {
  home = makeHome();
  agent = await startAgent(home);
});

after(async () => {
  await agent.stop();
  await removeHome(home);
});

function json(pid: number, name: string): unknown {
  const path = `/proc/${pid}/root/${name}`;
  return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : undefined;
}

/** Until the program has written the file once more. */
async function told(pid: number, name: string): Promise<unknown> {
  const began = Number(json(pid, 'n') ?? 0);
  for (let waited = 0; waited < 20_000; waited += 50) {
    if (Number(json(pid, 'n') ?? 0) > began + 1 && json(pid, name) !== undefined) return json(pid, name);
    await delay(50);
  }
  throw new Error(`the program did not write ${name}`);
}

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`sockets in no table, ${runtime}`, () => {
    void it('are saved, come back as they were, and can be used', async () => {
      const container = await startContainer({ runtime, id: `sockets-${runtime}-${process.pid}`, args: ['/usr/bin/python3', '-c', SOCKETS], capabilities: ['CAP_NET_RAW', 'CAP_NET_ADMIN'] });
      try {
        const state = await told(container.pid, 'state');
        await checkpoint(agent, container.id, { leaveRunning: true, tcpEstablished: true });
        assert.deepEqual(await told(container.pid, 'state'), state);
        let { pid } = container;
        for (const round of [1, 2]) {
          const saved = await checkpoint(agent, container.id, { tcpEstablished: true });
          ({ pid } = await restore(agent, saved.checkpoint, { tcpEstablished: true }));
          assert.deepEqual(await told(pid, 'state'), state, `round ${round}`);
        }
        writeFileSync(`/proc/${pid}/root/use`, '');
        assert.deepEqual(await told(pid, 'used'), {
          tcp: 'bound', tcp6: 'bound', udp: 'bound', udp6: 'bound', netlink: 'bound', packet: 'bound', bound: 'listens', bound6: 'listens',
          refused: 'connects', 'refused udp': 'connects', reset: "b''", 'shut by both': "b''", 'other end of it': "b''", 'closed by peer': "b''", 'was a listener': 'Transport endpoint is not connected',
        });
        await assertClean(agent);
      } finally {
        await container.stop();
      }
    });

    void it('that wait to be accepted refuse a checkpoint, or are left out', async () => {
      const container = await startContainer({ runtime, id: `waiting-${runtime}-${process.pid}`, args: ['/usr/bin/python3', '-c', WAITING] });
      try {
        await told(container.pid, 'n');
        await assert.rejects(checkpoint(agent, container.id, { tcpEstablished: true }), (error: unknown) => isStasisError(error, 'NOT_CHECKPOINTABLE') && /to port 4000 of pid \d+ .* was not accepted yet/.test(error.message) && /--tcp-skip-in-flight/.test(error.hint ?? ''));
        const saved = await checkpoint(agent, container.id, { tcpEstablished: true, tcpSkipInFlight: true });
        const { pid } = await restore(agent, saved.checkpoint, { tcpEstablished: true });
        writeFileSync(`/proc/${pid}/root/use`, '');
        assert.equal(await told(pid, 'used'), 'is gone');
      } finally {
        await container.stop();
      }
    });
  });
}
