/** scripts/node and scripts/demo, as a newcomer calls them. Runs on the machine. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { leftovers, repository, uniqueName } from './box.ts';

const node = join(repository, 'scripts/node');

void test('a node has its agent running and stasis on the PATH, and hands on the status of the command', () => {
  const name = uniqueName();
  const ended = spawnSync(node, ['--name', name, '--', 'bash', '-c', 'stasis node --json; exit 23'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  assert.equal(ended.status, 23, ended.stderr);
  const answer = JSON.parse(ended.stdout) as { name: string; problems: string[] };
  assert.equal(answer.name, name);
  assert.deepEqual(answer.problems, []);
  assert.deepEqual(leftovers(name), []);
});

void test('an agent that cannot start is told with its log, with status 4', () => {
  const ended = spawnSync(node, ['--', 'true'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, STASIS_WORKERS: 'many' } });
  assert.equal(ended.status, 4);
  assert.match(ended.stderr, /^stasis: the agent ended while it started; its log:\n.*workers/s);
});

void test('two nodes side by side', async () => {
  const run = async (): Promise<string> => {
    const child = spawn(node, ['--', 'bash', '-c', 'stasis list --json >/dev/null && hostname'], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [output, [status]] = await Promise.all([text(child.stdout), once(child, 'close') as Promise<[number]>]);
    assert.equal(status, 0);
    return output;
  };
  const [first, second] = await Promise.all([run(), run()]);
  assert.notEqual(first, second);
});

void test('the demo proves all that it claims', () => {
  const ended = spawnSync(join(repository, 'scripts/demo'), ['--json'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  assert.equal(ended.status, 0, ended.stderr);
  const { ok, chapters, proofs } = JSON.parse(ended.stdout) as { ok: boolean; chapters: unknown[]; proofs: { claim: string; holds: boolean }[] };
  assert.equal(ok, true);
  assert.equal(chapters.length, 3);
  assert.deepEqual(proofs.filter(({ holds }) => !holds), []);
});
