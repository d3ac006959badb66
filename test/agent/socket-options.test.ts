/** Every option of sockets that the kernel lets a program set: it is back after a restore, or preflight has named it. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { optionsLost, type SocketKind } from '../../src/runtime/preflight/socket-options.ts';
import { agentOfFile, checkpoint, restore } from '../support/agent.ts';
import { startContainer, waitForOutput } from '../support/containers.ts';

const file = agentOfFile();

const SOCKETS: readonly (SocketKind & { readonly address?: readonly (string | number)[]; readonly listening?: boolean })[] = [
  { domain: 2, type: 1, protocol: 6, address: ['127.0.0.1', 4000], listening: true },
  { domain: 10, type: 1, protocol: 6, address: ['::1', 4001], listening: true },
  { domain: 10, type: 1, protocol: 6 },
  { domain: 2, type: 2, protocol: 17, address: ['127.0.0.1', 4002] },
  { domain: 10, type: 2, protocol: 17, address: ['::1', 4003] },
  { domain: 1, type: 1, protocol: 0 }, { domain: 1, type: 2, protocol: 0 },
  { domain: 16, type: 3, protocol: 0, address: [0, 0] },
  { domain: 2, type: 3, protocol: 1 }, { domain: 10, type: 3, protocol: 58 }, { domain: 17, type: 3, protocol: 0 },
];

/**
 * Sets what can be set to something else, and tells of each socket what it has set. Passed over is what answers a state
 * (MTU, errors, memory), changes what can be sent or dumped at all (UDP_CORK, TCP_ULP, repair mode), or is no value.
 */
const PROGRAM = `
import json, os, socket, time
ALL = {1: list(range(1, 90)), 0: list(range(1, 60)), 41: range(1, 80), 6: range(1, 50), 17: [101, 102, 103, 104], 270: range(3, 13), 263: range(1, 25)}
STATES = {1: {3, 4, 25, 26, 27, 31, 38, 39, 44, 49, 50, 51, 56, 57, 66, 67}, 0: {3, 9, 14, 16, 17}, 41: {1, 6, 24, 36, 61}, 6: {11, 12, 19, 20, 21, 24, 28, 29, 31, 35}, 17: set(), 270: {9}, 263: {1, 2, 5, 6, 13, 18}}
def fits(level, domain, protocol): return {1: True, 0: domain in (2, 10), 41: domain == 10, 6: protocol == 6, 17: protocol == 17, 270: domain == 16, 263: domain == 17}[level]
def value(one, level, option):
    try: return one.getsockopt(level, option)
    except OSError: return None
def change(one, level, option):
    was = value(one, level, option)
    for new in () if was is None else (was + 1, 1 - was, 1, 5, 200, 0x10000000, 2000, 2 if was & 1 else 3):
        try: one.setsockopt(level, option, new)
        except (OSError, OverflowError): continue
        if value(one, level, option) != was: return True
    return False
sockets = []
for kind in json.loads('''${JSON.stringify(SOCKETS)}'''):
    one = socket.socket(kind['domain'], kind['type'], 0 if kind['domain'] == 17 else kind['protocol'])
    if 'address' in kind: one.bind(tuple(kind['address']))
    if kind.get('listening'): one.listen()
    # The kernel tells with these what a connection has come to: only of a listening socket they are what was set.
    passed = STATES if kind.get('listening') else {**STATES, 6: STATES[6] | {2, 10}}
    changed = [(level, option) for level in ALL if fits(level, kind['domain'], kind['protocol']) for option in ALL[level] if option not in passed[level] and change(one, level, option)]
    sockets.append((one, {'%d:%d' % which: value(one, *which) for which in changed}))
def tell(): return json.dumps([[one.fileno(), {name: value(one, *map(int, name.split(':'))) for name in set_}] for one, set_ in sockets])
print(tell(), flush=True)
while not os.path.exists('/use'): time.sleep(0.02)
open('/new', 'w').write(tell()); os.rename('/new', '/told')
time.sleep(1000)
`;

type Told = [number, Record<string, number>][];

async function toldOf(pid: number): Promise<Told> {
  writeFileSync(`/proc/${pid}/root/use`, '');
  for (let waited = 0; !existsSync(`/proc/${pid}/root/told`); waited += 50) {
    assert.ok(waited < 15_000);
    await delay(50);
  }
  return JSON.parse(readFileSync(`/proc/${pid}/root/told`, 'utf8')) as Told;
}

it('every option of sockets is kept, or named before the freeze', async (t) => {
  const container = await startContainer({
    runtime: 'runc', id: `options-${process.pid}`, args: ['/usr/bin/python3', '-c', PROGRAM], capabilities: ['CAP_NET_ADMIN', 'CAP_NET_RAW'],
    edit: (spec) => { delete spec['linux'].seccomp; },
  });
  try {
    const text = await waitForOutput(container.outputFile, (output) => output.includes('\n'));
    const was = JSON.parse(text.split('\n')[0]!) as Told;
    const saved = await checkpoint(file.agent, container.id, { rehearsal: 'never' });
    const is = await toldOf((await restore(file.agent, saved.checkpoint)).pid);
    const warnings = saved.findings.map(({ message }) => message);
    let lost = 0;
    const wrong: string[] = [];
    for (const [index, kind] of SOCKETS.entries()) {
      const [fd, before] = was[index]!;
      const names = new Map(optionsLost(kind, kind.listening === true).flatMap(([level, options]) => Object.entries(options).map(([name, option]) => [name, `${level}:${option}`] as const)));
      const gone = Object.keys(before).filter((option) => is[index]?.[1][option] !== before[option]).toSorted().join();
      // Of several sockets of a process with the same options the first is named.
      const named = warnings.filter((message) => message.includes('of the socket')).map((message) => message.split(' of the socket')[0]!.split(', ').map((name) => names.get(name) ?? name).toSorted().join());
      if (!named.includes(gone)) wrong.push(`${JSON.stringify(kind)}, descriptor ${fd}: lost are ${gone}; named are\n${named.join('\n')}`);
      lost += gone.split(',').length;
    }
    assert.deepEqual(wrong, []);
    t.diagnostic(`${lost} options named`);
    assert.ok(lost > 100, String(lost));
  } finally {
    await container.stop();
  }
});
