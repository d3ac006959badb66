/** Interfaces of a network namespace that the runtime has made: what preflight says of them is what a restore does. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { StasisError } from '../../src/core/errors.ts';
import { agentOfFile, assertClean, checkpoint, restore } from '../support/agent.ts';
import { startContainer, type TestContainer } from '../support/containers.ts';

const file = agentOfFile();

const kinds: readonly (readonly [name: string, command: string])[] = [
  ['dum0', 'ip link add dum0 type dummy'], ['br0', 'ip link add br0 type bridge'], ['ifb7', 'ip link add ifb7 type ifb'], ['vl5', 'ip link add link dum0 name vl5 type vlan id 5'],
];

function inside(pid: number, command: string): string {
  return execFileSync('nsenter', ['-t', String(pid), '-n', 'sh', '-ec', command], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
}

function succeeds(pid: number, command: string): boolean {
  try {
    inside(pid, command);
    return true;
  } catch {
    return false;
  }
}

function interfaces(pid: number): string[] {
  return (JSON.parse(inside(pid, 'ip -json link show')) as { ifname: string }[]).map(({ ifname }) => ifname).toSorted();
}

function settingsOf(pid: number): string[] {
  const links = JSON.parse(inside(pid, 'ip -json -details link show')) as { ifname: string; txqlen: number; group: string; promiscuity: number; allmulti: number; linkinfo?: { info_data?: Record<string, unknown> } }[];
  return links.map(({ ifname, txqlen, group, promiscuity, allmulti, linkinfo }) => (
    [ifname, txqlen, group, promiscuity, allmulti, ...['ageing_time', 'forward_delay', 'priority'].map((name) => linkinfo?.info_data?.[name])].join(' ')
  )).toSorted();
}

async function withContainer(id: string, runtime: 'runc' | 'crun', use: (container: TestContainer) => Promise<void>): Promise<void> {
  const container = await startContainer({ runtime, id, args: ['/bin/sh', '-c', 'while :; do sleep 0.2; done'] });
  try {
    await use(container);
    await assertClean(file.agent);
  } finally {
    await container.stop();
  }
}

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`interfaces in an own network namespace, ${runtime}`, () => {
    void it('of kinds that need nothing outside come back, and nobody warns of them', async (t) => {
      await withContainer(`links-${runtime}-${process.pid}`, runtime, async ({ id, pid }) => {
        if (runtime === 'crun' && succeeds(pid, 'ip link add ifb8 type ifb')) {
          await assert.rejects(checkpoint(file.agent, id), (error: StasisError) => error.code === 'NOT_CHECKPOINTABLE' && /ifb8 \(ifb\) is of a kind that CRIU does not know/.test(error.message));
          inside(pid, 'ip link delete ifb8');
        }
        const made = kinds.filter(([name]) => runtime === 'runc' || name === 'br0').filter(([, command]) => succeeds(pid, command)).map(([name]) => name);
        t.diagnostic(`made: ${made.join()}`);
        assert.ok(made.length > 0, 'this kernel makes none of them');
        inside(pid, 'ip link set lo txqueuelen 55 group 9');
        if (made.includes('br0')) inside(pid, 'ip link set br0 txqueuelen 77 group 7 promisc on allmulticast on type bridge ageing_time 1234 forward_delay 400 priority 99');
        const [was, settings] = [interfaces(pid), settingsOf(pid)];
        const saved = await checkpoint(file.agent, id);
        assert.deepEqual(saved.findings.filter(({ message }) => /interface/.test(message)), []);
        const restored = await restore(file.agent, saved.checkpoint);
        assert.deepEqual(interfaces(restored.pid), was);
        assert.deepEqual(settingsOf(restored.pid), settings);
      });
    });

    void it('with another end are told before the freeze, and are gone with the others\' addresses', async () => {
      await withContainer(`veth-${runtime}-${process.pid}`, runtime, async ({ id, pid, bundle }) => {
        inside(pid, 'ip link add br0 type bridge; ip link add v0 type veth peer name v1 netns 1; ip link set v0 up; ip address add 10.7.7.1/24 dev v0');
        const saved = await checkpoint(file.agent, id);
        const told = saved.findings.map(({ kind, message }) => `${kind}: ${message}`).join('\n');
        if (runtime === 'crun') {
          assert.match(told, /^lost: what the other end of the network interface v0 \(veth\) was connected to, and with it the addresses and routes of every interface, is lost by a restore$/m);
          const back = await restore(file.agent, saved.checkpoint);
          assert.deepEqual(interfaces(back.pid).filter((name) => /^(v|br)/.test(name)), ['br0', 'v0']);
          assert.doesNotMatch(inside(back.pid, 'ip -oneline address show dev v0'), / 10\.7\.7\.1\/24 /);
          return;
        }
        assert.match(told, /^lost: the network interface v0 \(veth\) in the container's own network, and with it every other interface, with its addresses and routes is lost by a restore$/m);
        assert.deepEqual(interfaces((await restore(file.agent, saved.checkpoint)).pid).filter((name) => /^(v|br)/.test(name)), []);
        // The bundle of a caller has a hook that makes it.
        const again = await checkpoint(file.agent, id);
        const hook = join(bundle, 'hook');
        writeFileSync(hook, `#!/bin/sh\npid=$(sed -n 's/.*"pid": *\\([0-9]*\\).*/\\1/p' | head -n 1)\nexec ip link add v7 netns "$pid" type veth peer name v8 netns "$pid"\n`);
        chmodSync(hook, 0o755);
        const spec = JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8')) as Record<string, unknown>;
        writeFileSync(join(bundle, 'config.json'), JSON.stringify({ ...spec, hooks: { createRuntime: [{ path: hook }] } }));
        assert.deepEqual(interfaces((await restore(file.agent, again.checkpoint, { bundle, allowDifference: ['network-links'] })).pid).filter((name) => name.startsWith('v')), ['v7', 'v8']);
      });
    });
  });
}
