/** Ctrl-C and SIGTERM, with real signals to the real program. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually, harness } from '../rpc/harness.ts';
import type { Harness } from '../rpc/harness.ts';
import { start } from './run.ts';
import type { Running } from './run.ts';

async function running(h: Harness, ...args: readonly string[]): Promise<Running> {
  const before = h.script.calls.length;
  const program = start([...args, '--socket', h.socket]);
  await eventually('the call has arrived', () => h.script.calls.length > before);
  // The handler notes the call before its generator begins.
  await new Promise((resolve) => setTimeout(resolve, 150));
  return program;
}

for (const [signal, status] of [['SIGINT', 130], ['SIGTERM', 143]] as const) {
  void test(`${signal} cancels the operation, says so and ends with ${status}`, async () => {
    await using h = await harness();
    const program = await running(h, 'checkpoint', '--operation-id', 'op-c', 'slow');
    program.child.kill(signal);
    const result = await program.ended;
    assert.deepEqual([result.status, result.stdout], [status, '']);
    assert.equal(result.stderr, 'stasis: cancelling operation op-c; once more to leave without waiting for it\nstasis: operation op-c is cancelled and undone\n');
    assert.deepEqual(h.script.calls.at(-1)?.request, { operationId: 'op-c' });
  });
}

void test('a second Ctrl-C leaves at once', async () => {
  await using h = await harness();
  h.script.handlers.cancelOperation = () => new Promise(() => undefined);
  const program = await running(h, 'restore', '--operation-id', 'op-c', 'slow');
  program.child.kill('SIGINT');
  await eventually('the first is taken', () => program.stderr().includes('cancelling'));
  const started = performance.now();
  program.child.kill('SIGINT');
  const result = await program.ended;
  assert.ok(performance.now() - started < 3000, 'it waited');
  assert.equal(result.status, 130);
  assert.match(result.stderr, /leaving; the agent goes on undoing operation op-c/);
});

void test('an operation that was done before the cancellation came is a success', async () => {
  await using h = await harness();
  h.script.handlers.checkpoint = async function* (request, context) {
    h.script.calls.push({ method: 'checkpoint', request, context });
    await eventually('the cancellation', () => h.script.calls.some(({ method }) => method === 'cancelOperation'));
    const { checkpointResult } = await import('../rpc/scripted-agent.ts');
    yield { type: 'result', result: checkpointResult };
  };
  const program = await running(h, 'checkpoint', 'web');
  program.child.kill('SIGINT');
  const result = await program.ended;
  assert.deepEqual([result.status, result.stdout], [0, '0g1k5d7h8wk3m2n4p6q8\n']);
  assert.match(result.stderr, /could not be cancelled: there is no operation .*\n(.*\n)*stasis: too late to cancel: it is done/);
});

void test('cancelled by somebody else is status 17', async () => {
  await using h = await harness();
  const program = await running(h, 'checkpoint', '--operation-id', 'op-c', 'slow');
  const other = await start(['cancel', 'op-c', '--socket', h.socket]).ended;
  assert.deepEqual([other.status, other.stdout], [0, 'op-c\n']);
  const result = await program.ended;
  assert.equal(result.status, 17);
  assert.match(result.stderr, /error: operation op-c was cancelled/);
});

void test('an agent that stops in the middle is status 12', async () => {
  await using h = await harness();
  const program = await running(h, 'checkpoint', 'slow');
  await h.server.close({ graceMs: 1000 });
  assert.equal((await program.ended).status, 12);
});

void test('on a terminal the bar is drawn and wiped, and the id still stands alone on stdout', async () => {
  await using h = await harness();
  const { execFile } = await import('node:child_process');
  const { promisify } = await import('node:util');
  const { program } = await import('./run.ts');
  const directory = h.directory;
  const command = `${process.execPath} ${program} checkpoint web --socket ${h.socket} > ${directory}/stdout`;
  // script(1) gives the program a real pseudo-terminal.
  const { stdout: screen } = await promisify(execFile)('script', ['-qec', command, '/dev/null'], { env: { PATH: process.env['PATH'] ?? '', TERM: 'xterm' } });
  const { readFileSync } = await import('node:fs');
  assert.equal(readFileSync(`${directory}/stdout`, 'utf8'), '0g1k5d7h8wk3m2n4p6q8\n');
  // eslint-disable-next-line no-control-regex
  assert.match(screen, /\r\u001b\[2Kcheckpoint web .*step 1\/7 dump.*\r\u001b\[2K2\.00 GiB in 2\.10 s, frozen 91[23] ms, 300 MiB stored\r\n/s);
});
