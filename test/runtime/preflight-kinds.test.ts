/** Preflight against everything in scenarios-kinds.ts: found, with process, thing and remedy. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { mayRaiseLimits } from '../../src/runtime/preflight/task-checks.ts';
import { examine, type CheckpointFlags, type Toolchain } from '../../src/runtime/index.ts';
import type { Finding, Verdict } from '../../src/runtime/types.ts';
import { startContainer, toolchain, waitForOutput, type TestContainer } from '../support/containers.ts';
import { kindScenarios } from './scenarios-kinds.ts';

const flags: CheckpointFlags = { leaveRunning: true, tcpEstablished: true, fileLocks: true, extUnixSk: false, shellJob: false };

/** Some of it is only there a moment after the program has said that it is ready: a thread that ends, for example. */
async function judged(container: TestContainer, tools: Toolchain, isMeant: (finding: Finding) => boolean): Promise<Verdict> {
  for (let tries = 1; ; tries++) {
    const verdict = await examine(await container.inspect(), tools, flags, { signal: undefined });
    if (tries === 20 || verdict.findings.some(isMeant)) return verdict;
    await delay(100);
  }
}

describe('preflight of kinds', () => {
  let tools: Toolchain;
  before(async () => {
    tools = await toolchain();
  });

  for (const { name, options, features, kind, severity, message } of kindScenarios) {
    it(`finds ${name}`, async () => {
      const container = await startContainer({ runtime: 'runc', id: 'preflight-kinds', ...options });
      try {
        await waitForOutput(container.outputFile, (text) => text.includes('ready'));
        const isMeant = (candidate: Finding): boolean => candidate.kind === kind && message.test(candidate.message);
        const verdict = await judged(container, { ...tools, features: { ...tools.features, ...features } }, isMeant);
        const found = verdict.findings.filter(isMeant);
        assert.equal(found.length, 1, JSON.stringify(verdict.findings));
        assert.equal(found[0]?.severity, severity);
        assert.ok(found[0].hint.length > 20);
        assert.equal(verdict.checkpointable, severity === 'warning');
        // The first thing that a person reads is the cause, not one of its consequences.
        assert.equal(verdict.findings[0]?.kind, kind, JSON.stringify(verdict.findings));
      } finally {
        await container.stop();
      }
    });
  }

  it('finds nothing that is lost of connections', async () => {
    const program = 'import socket, time\nfor family, here in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):\n'
      + '    l = socket.create_server((here, 4000), family=family); c = socket.create_connection((here, 4000)); a = l.accept(); globals()[here] = l, c, a\n'
      + 'print("ready", flush=True)\ntime.sleep(1000)';
    const container = await startContainer({ runtime: 'runc', id: 'preflight-kinds', args: ['/usr/bin/python3', '-c', `import subprocess\nsubprocess.check_call(["ip", "link", "set", "lo", "up"])\n${program}`], capabilities: ['CAP_NET_ADMIN'] });
    try {
      await waitForOutput(container.outputFile, (text) => text.includes('ready'));
      const { findings } = await examine(await container.inspect(), tools, flags, { signal: undefined });
      assert.deepEqual(findings.filter(({ kind }) => kind === 'lost').map(({ message }) => message), []);
    } finally {
      await container.stop();
    }
  });

  for (const [what, user] of [['user', { uid: 33, gid: 33 }], ['group', { uid: 0, gid: 33 }]] as const) {
    it(`names the capability that the agent lacks for a process of another ${what}`, { skip: mayRaiseLimits() && 'the agent may read the limits of every process' }, async () => {
      const container = await startContainer({
        runtime: 'runc', id: 'preflight-kinds', args: ['/bin/sh', '-c', 'echo ready; exec sleep 1000'],
        edit: (spec) => { spec['process'].user = user; },
      });
      try {
        await waitForOutput(container.outputFile, (text) => text.includes('ready'));
        const { checkpointable, findings: [first] } = await examine(await container.inspect(), tools, flags, { signal: undefined });
        assert.equal(checkpointable, false);
        assert.equal(first?.kind, 'capability');
        assert.match(first.message, /^pid \d+ \(\w+, 1 inside\) runs as user \d+, and the agent lacks CAP_SYS_RESOURCE/);
        assert.match(first.hint, /as root/);
      } finally {
        await container.stop();
      }
    });
  }

  after(() => {
    assert.throws(() => execFileSync('runc', ['state', 'preflight-kinds'], { stdio: 'ignore' }));
  });
});
