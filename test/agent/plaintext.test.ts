/** Opting out of encryption: only where the configuration names the namespace, never quietly. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { plaintextSelector } from '../../src/agent/plaintext.ts';
import { parseSelector } from '../../src/agent/retention/selector.ts';
import type { Container } from '../../src/runtime/types.ts';
import { checkpoint, endAgents, makeHome, removeHome, restore, startAgent } from '../support/agent.ts';
import { startCounter } from '../support/counter.ts';

const home = makeHome();
after(async () => {
  await endAgents();
  await removeHome(home);
});

function container(manager: Container['manager'], name: string, annotations: Record<string, string> = {}): Container {
  return { manager, name, spec: { annotations } } as unknown as Container;
}

void it('a namespace counts only where a manager of Kubernetes wrote it', () => {
  const selectors = ['dev/*', '-/bench-*'].map(parseSelector);
  const named = { 'io.kubernetes.cri.sandbox-namespace': 'dev', 'io.kubernetes.pod.namespace': 'dev' };
  for (const manager of ['containerd', 'cri-o'] as const) {
    assert.deepEqual(plaintextSelector(container(manager, 'web', named), selectors), { selector: 'dev/*', namespace: 'dev' });
    assert.equal(plaintextSelector(container(manager, 'web', { ...named, 'io.kubernetes.cri.sandbox-namespace': 'shop', 'io.kubernetes.pod.namespace': 'shop' }), selectors), undefined);
  }
  for (const manager of ['plain', 'podman'] as const) {
    assert.equal(plaintextSelector(container(manager, 'web', named), selectors), undefined, 'an annotation is a wish');
    assert.deepEqual(plaintextSelector(container(manager, 'bench-1', named), selectors), { selector: '-/bench-*', namespace: '-' });
  }
});

void it('is told at the start and at each checkpoint, is shown, comes back; and others stay sealed', { timeout: 120_000 }, async () => {
  await using stack = new AsyncDisposableStack();
  const [open, sealed] = [await startCounter('runc'), await startCounter('runc')];
  stack.defer(() => open.stop());
  stack.defer(() => sealed.stop());
  let agent = await startAgent(home);
  const before = await checkpoint(agent, open.id, { leaveRunning: true });
  assert.equal(before.cipher, 'xchacha20-poly1305');
  await agent.stop();

  agent = await startAgent(home, { STASIS_REPOSITORY_PLAINTEXT_FOR: `-/${open.id}` });
  assert.deepEqual(agent.log.find(({ event }) => event === 'repository.plaintext')?.['plaintext_for'], [`-/${open.id}`]);
  const made = await checkpoint(agent, open.id, { leaveRunning: true, reason: 'measuring' });
  assert.equal(made.cipher, 'null');
  const audit = agent.log.filter(({ event }) => event === 'checkpoint.plaintext');
  assert.deepEqual(audit.map((entry) => [entry['checkpoint_id'], entry['namespace'], entry['selector'], entry['reason'], entry['principal'], entry['level']]), [[made.checkpoint, '-', `-/${open.id}`, 'measuring', 'local', 'warn']]);
  assert.equal((await checkpoint(agent, sealed.id, { leaveRunning: true })).cipher, 'xchacha20-poly1305');
  const { checkpoints } = await agent.client.listCheckpoints({ pageSize: 0, pageToken: '' }, { signal: undefined });
  assert.deepEqual(checkpoints.map(({ cipher }) => cipher), ['xchacha20-poly1305', 'null', 'xchacha20-poly1305']);
  const packs = join(home.state, 'repository/packs');
  // What is not sealed shows where its zstd frames begin.
  const frames = (id: string): boolean => readdirSync(packs).some((name) => name.startsWith(id) && readFileSync(join(packs, name)).includes(Buffer.from('28b52ffd', 'hex')));
  assert.deepEqual([frames(made.checkpoint), frames(before.checkpoint)], [true, false]);
  await agent.stop();

  // Back to the rule: sealed again, and what is open can still be read.
  agent = await startAgent(home);
  assert.equal((await checkpoint(agent, open.id, { leaveRunning: true })).cipher, 'xchacha20-poly1305');
  await open.stop();
  stack.defer(() => { execFileSync('runc', ['delete', '--force', open.id]); });
  await open.adopt(await restore(agent, made.checkpoint));
  await open.assertCounting();
  await agent.stop();
});
