/** Preflight against everything in scenarios-kinds.ts: found, with process, thing and remedy. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { after, before, describe, it } from 'node:test';
import { examine, type CheckpointFlags, type Toolchain } from '../../src/runtime/index.ts';
import { startContainer, toolchain, waitForOutput } from '../support/containers.ts';
import { kindScenarios } from './scenarios-kinds.ts';

const flags: CheckpointFlags = { leaveRunning: true, tcpEstablished: true, fileLocks: true, extUnixSk: false, shellJob: false };

describe('preflight of kinds', () => {
  let tools: Toolchain;
  before(async () => {
    tools = await toolchain();
  });

  for (const { name, options, kind, severity, message } of kindScenarios) {
    it(`finds ${name}`, async () => {
      const container = await startContainer({ runtime: 'runc', id: 'preflight-kinds', ...options });
      try {
        await waitForOutput(container.outputFile, (text) => text.includes('ready'));
        const verdict = await examine(await container.inspect(), tools, flags, { signal: undefined });
        const found = verdict.findings.filter((candidate) => candidate.kind === kind && message.test(candidate.message));
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

  after(() => {
    assert.throws(() => execFileSync('runc', ['state', 'preflight-kinds'], { stdio: 'ignore' }));
  });
});
