import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { plainNetwork, settingsInside } from '../../src/host/plain-network.ts';

/** In a new network namespace, when the commands are done. */
async function inside<T>(commands: string, use: (pid: number) => T): Promise<T> {
  const child = spawn('unshare', ['--net', 'sh', '-ec', `${commands}\necho done\nexec sleep 600`], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    await Promise.race([once(child.stdout, 'data'), once(child, 'exit').then(() => assert.fail(`${commands} failed`))]);
    return use(child.pid ?? 0);
  } finally {
    child.kill('SIGKILL');
  }
}

void describe('a network namespace', () => {
  void it('is plain as it is made, and with its loopback interface up', async () => {
    assert.deepEqual(await inside('', plainNetwork), { up: false, mtu: 65536 });
    assert.deepEqual(await inside('ip link set lo up', plainNetwork), { up: true, mtu: 65536 });
    assert.deepEqual(await inside('ip link set lo up mtu 1500', plainNetwork), { up: true, mtu: 1500 });
  });

  for (const more of [
    'ip address add 10.1.1.1/8 dev lo', 'ip address add fe80::1/64 dev lo', 'ip address delete 127.0.0.1/8 dev lo',
    'ip route add 10.2.0.0/16 dev lo', 'ip route add unreachable 10.3.0.0/16', 'ip -6 route add unreachable fd00::/8',
    'ip route add 10.4.0.0/16 dev lo table 77', 'ip rule add pref 5 table 9', 'ip -6 rule delete pref 32766',
    'nft add table inet mine', 'iptables -A INPUT -p icmp -j DROP', 'ip link add name other type bridge',
    'echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6',
  ]) {
    void it(`is not plain any more after: ${more}`, async () => {
      assert.equal(await inside(`ip link set lo up\n${more}`, plainNetwork), undefined);
    });
  }

  void it('has its settings read inside of it', async () => {
    const paths = ['/proc/sys/net/ipv4/ip_forward', '/proc/sys/net/ipv4/ping_group_range', '/proc/sys/net/none'];
    const read = await inside('echo 1 > /proc/sys/net/ipv4/ip_forward\necho 3 9 > /proc/sys/net/ipv4/ping_group_range', (pid) => settingsInside(pid, paths));
    assert.deepEqual([...read], [[paths[0], '1'], [paths[1], '3\t9']]);
  });
});
