import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { plainNetwork, settingsInside } from '../../src/host/plain-network.ts';
import { inNetworkNamespace } from '../support/network-namespace.ts';
import { readNetworkTables } from '../../src/host/route-tables.ts';

void describe('a network namespace', () => {
  void it('is plain as it is made, and with its loopback interface up', async () => {
    assert.deepEqual(await inNetworkNamespace('', plainNetwork), { up: false, mtu: 65536 });
    assert.deepEqual(await inNetworkNamespace('ip link set lo up', plainNetwork), { up: true, mtu: 65536 });
    assert.deepEqual(await inNetworkNamespace('ip link set lo up mtu 1500', plainNetwork), { up: true, mtu: 1500 });
  });

  for (const more of [
    'ip address add 10.1.1.1/8 dev lo', 'ip address add fe80::1/64 dev lo', 'ip address delete 127.0.0.1/8 dev lo',
    'ip route add 10.2.0.0/16 dev lo', 'ip route add unreachable 10.3.0.0/16', 'ip -6 route add unreachable fd00::/8',
    'ip route add 10.4.0.0/16 dev lo table 77', 'ip rule add pref 5 table 9', 'ip -6 rule delete pref 32766',
    'nft add table inet mine', 'iptables -A INPUT -p icmp -j DROP', 'ip link add name other type bridge',
    'echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6',
  ]) {
    void it(`is not plain any more after: ${more}`, async () => {
      assert.equal(await inNetworkNamespace(`ip link set lo up\n${more}`, plainNetwork), undefined);
    });
  }

  void it('has the same routes whether its interfaces have a carrier or not', async () => {
    const make = 'ip link set lo up\nip link add b0 type bridge\nip address add 10.9.8.7/24 dev b0\nip link set b0 up\n'
      + 'ip route add 10.50.0.0/16 nexthop via 10.9.8.9 weight 2 nexthop via 10.9.8.10\nip route add 10.51.0.0/16 via 10.9.8.9\n';
    const state = async (more: string): Promise<[readonly string[], string]> => inNetworkNamespace(`${make}${more}`, (pid) => [
      readNetworkTables(pid).routes, execFileSync('nsenter', ['-t', String(pid), '-n', 'ip', 'route'], { encoding: 'utf8' }),
    ]);
    const [up, words] = await state('');
    const [down, downWords] = await state('ip link add v0 type veth peer v1\nip link set v0 master b0\nuntil ip route | grep -q "nexthop.*linkdown"; do sleep 0.05; done');
    assert.doesNotMatch(words, /linkdown/);
    assert.match(downWords, /nexthop.*linkdown/);
    assert.equal(up.length, 2);
    assert.deepEqual(down, up);
  });

  void it('has its settings read inside of it', async () => {
    const paths = ['net/ipv4/ip_forward', 'net/ipv4/ping_group_range', 'net/none'];
    const read = await inNetworkNamespace('echo 1 > /proc/sys/net/ipv4/ip_forward\necho 3 9 > /proc/sys/net/ipv4/ping_group_range', (pid) => settingsInside(pid, paths));
    assert.deepEqual([...read], [[paths[0], '1'], [paths[1], '3\t9']]);
  });
});
