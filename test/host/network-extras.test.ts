import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readNetworkExtras, type NetworkExtras } from '../../src/host/network-extras.ts';
import { inNetworkNamespace } from '../support/network-namespace.ts';

const BRIDGE = 'ip link add b0 type bridge\nip addr add 10.9.8.7/24 dev b0\nip addr add fd00::5/64 dev b0 nodad\nip link set b0 up';
const NOTHING: NetworkExtras = { neighbours: 0, queueing: [], nextHops: 0, ipsec: 0 };

/** Of a network namespace with a bridge, when the commands are done. */
function after(commands: string): Promise<NetworkExtras> {
  return inNetworkNamespace(`ip link set lo up\n${BRIDGE}\n${commands}`, readNetworkExtras);
}

void describe('what a network namespace has beside addresses, routes and rules', () => {
  void it('is nothing where nobody has set it', async () => assert.deepEqual(await after('ip route add 10.2.0.0/16 via 10.9.8.9'), NOTHING));

  for (const [commands, extras] of [
    ['ip neigh add 10.9.8.9 lladdr 02:00:00:00:00:09 dev b0\nip neigh add fd00::9 lladdr 02:00:00:00:00:09 dev b0', { neighbours: 2 }],
    ['ip neigh add proxy 10.9.8.77 dev b0', { neighbours: 1 }],
    ['tc qdisc add dev b0 root handle 1: htb', { queueing: ['htb'] }],
    ['tc qdisc add dev lo clsact', { queueing: ['clsact'] }],
    ['ip nexthop add id 5 via 10.9.8.9 dev b0', { nextHops: 1 }],
    ['ip xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir out', { ipsec: 1 }],
  ] as const) {
    void it(`is seen after: ${commands.split('\n')[0]}`, async () => assert.deepEqual(await after(commands), { ...NOTHING, ...extras }));
  }
});
