import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StasisError } from '../../src/core/errors.ts';
import { collect, eventually, harness } from './harness.ts';
import { checkpointRequest, checkpointResult, container, hopeless, operation } from './scripted-agent.ts';

const none = { signal: undefined };

void test('a stream: progress messages, then the result, all fields as they were', async () => {
  await using h = await harness();
  const events = await collect(h.client.checkpoint(checkpointRequest, none));
  assert.deepEqual(events.map(({ type }) => type), ['progress', 'progress', 'progress', 'result']);
  assert.deepEqual(events.at(-1), { type: 'result', result: { ...checkpointResult, operationId: 'op-7' } });
  assert.deepEqual(h.script.calls[0]?.request, checkpointRequest);
  assert.deepEqual(h.script.calls[0]?.context.caller, { principal: 'local', roles: new Set(['viewer', 'operator', 'restorer', 'keeper']), transport: 'unix' });
});

void test('absent optional fields stay absent', async () => {
  await using h = await harness();
  await h.client.listCheckpoints({ pageSize: 0, pageToken: '' }, none);
  assert.deepEqual(h.script.calls[0]?.request, { pageSize: 0, pageToken: '' });
});

void test('unary calls', async () => {
  await using h = await harness();
  assert.deepEqual(await h.client.listContainers({ all: true }, none), { containers: [container, hopeless] });
  assert.deepEqual(await h.client.deleteCheckpoint({ checkpoint: 'x', reason: '' }, none), { checkpoint: 'x' });
});

void test('an error keeps its code, message, hint and details', async () => {
  await using h = await harness();
  await assert.rejects(collect(h.client.checkpoint({ ...checkpointRequest, container: 'missing' }, none)), {
    name: 'StasisError', code: 'CONTAINER_NOT_FOUND', message: 'there is no container "missing" on this node', hint: 'stasis ps lists them', details: { container: 'missing', tries: 2, sure: true },
  });
  await assert.rejects(h.client.inspectCheckpoint({ checkpoint: 'missing' }, none), { code: 'CHECKPOINT_NOT_FOUND', hint: 'stasis list shows them' });
});

void test('an error nobody foresaw is INTERNAL and is logged with its stack', async () => {
  await using h = await harness();
  await assert.rejects(h.client.inspectCheckpoint({ checkpoint: 'boom' }, none), { code: 'INTERNAL' });
  const logged = h.events.find(({ name }) => name === 'rpc.failed');
  assert.match(String((logged?.fields['err'] as Error | undefined)?.stack), /the secret path/);
});

void test('cancelling reaches the handler as CANCELLED and the caller at once', async () => {
  await using h = await harness();
  const stop = new AbortController();
  const stream = h.client.checkpoint({ ...checkpointRequest, container: 'slow' }, { signal: stop.signal });
  await assert.rejects(async () => {
    for await (const event of stream) if (event.type === 'progress') stop.abort(new StasisError('CANCELLED', 'enough'));
  }, { code: 'CANCELLED', message: 'enough' });
  const signal = h.script.calls[0]?.context.signal;
  await eventually('the signal is aborted', () => signal?.aborted === true);
  assert.equal((signal?.reason as StasisError | undefined)?.code, 'CANCELLED');
});

void test('leaving the loop cancels the call, and closes a generator that looks at nothing', async () => {
  await using h = await harness();
  for await (const event of h.client.checkpoint({ ...checkpointRequest, container: 'slow' }, none)) if (event.type === 'progress') break;
  await eventually('the signal is aborted', () => h.script.calls[0]?.context.signal.aborted === true);
  await eventually('the call has ended', () => h.metrics.render().includes('stasis_rpc_open_calls 0'));
});

void test('a deadline ends the call on both sides', async () => {
  await using h = await harness();
  await assert.rejects(collect(h.client.checkpoint({ ...checkpointRequest, container: 'stuck' }, { signal: undefined, timeoutMs: 100 })), { code: 'DEADLINE_EXCEEDED' });
  await eventually('the signal is aborted', () => h.script.calls[0]?.context.signal.aborted === true);
  assert.equal((h.script.calls[0]?.context.signal.reason as StasisError | undefined)?.code, 'DEADLINE_EXCEEDED');
});

void test('a reader that does not read stops the writer', async () => {
  await using h = await harness();
  let produced = 0;
  const flood = { ...h.script.handlers };
  const original = flood.checkpoint.bind(flood);
  h.script.handlers.checkpoint = async function* (request, context) {
    for await (const event of original(request, context)) {
      produced += 1;
      yield event;
    }
  };
  const iterator = h.client.checkpoint({ ...checkpointRequest, container: 'flood' }, none)[Symbol.asyncIterator]();
  await iterator.next();
  const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  // Buffers fill at the speed of the machine; then it stands still.
  let before = -1;
  for (let waited = 0; waited < 10_000 && produced !== before; waited += 300) {
    before = produced;
    await pause(300);
  }
  assert.equal(produced, before, 'it went on although nobody reads');
  assert.ok(before < 50_000, `${before} messages were produced for nobody`);
  await iterator.return?.(undefined);
});

void test('an oversized request and an oversized answer are refused, and the next call works', async () => {
  await using h = await harness();
  await assert.rejects(h.client.listContainers({ all: false, container: 'x'.repeat(300 * 1024) }, none), { code: 'LIMIT_EXCEEDED' });
  await assert.rejects(h.client.listContainers({ all: false, container: 'huge' }, none), { code: 'LIMIT_EXCEEDED' });
  assert.equal((await h.client.listContainers({ all: false }, none)).containers.length, 2);
});

void test('integers that are not exact are refused by name', async () => {
  await using h = await harness();
  await assert.rejects(collect(h.client.checkpoint({ ...checkpointRequest, deadlineMs: 2 ** 60 }, none)), { code: 'USAGE', message: /deadlineMs/ });
});

void test('watching: a snapshot first, then changes with their error', async () => {
  await using h = await harness();
  const events = await collect(h.client.watchOperations({ operationId: 'op-1' }, none));
  assert.deepEqual(events[0], { type: 'snapshot', snapshot: { operations: [operation] } });
  assert.equal(events[1]?.type === 'changed' && events[1].changed.error?.code, 'DUMP_FAILED');
});

void test('stopping: open calls end with AGENT_STOPPING, new ones find nobody', async () => {
  const h = await harness();
  const open = collect(h.client.watchOperations({}, none));
  open.catch(() => undefined);
  await eventually('the call is open', () => h.script.calls.length === 1);
  const started = performance.now();
  await h.server.close({ graceMs: 5000 });
  await assert.rejects(open, { code: 'AGENT_STOPPING' });
  assert.ok(performance.now() - started < 2000, 'it waited for the whole grace');
  await assert.rejects(h.client.getNode({}, none), { code: 'AGENT_UNREACHABLE', hint: /is stasis-agent running/ });
  await h[Symbol.asyncDispose]();
});

void test('stopping does not wait for a handler that looks at nothing', async () => {
  await using h = await harness();
  h.script.handlers.getNode = () => new Promise(() => undefined);
  const open = h.client.getNode({}, none);
  open.catch(() => undefined);
  await eventually('the call is open', () => h.metrics.render().includes('stasis_rpc_open_calls 1'));
  const started = performance.now();
  await h.server.close({ graceMs: 5000 });
  await assert.rejects(open, { code: 'AGENT_STOPPING' });
  assert.ok(performance.now() - started < 2000, 'it waited');
});

void test('calls are counted by method and code', async () => {
  await using h = await harness();
  await h.client.getNode({}, none);
  await assert.rejects(h.client.deleteCheckpoint({ checkpoint: 'missing', reason: '' }, none));
  const text = h.metrics.render();
  assert.match(text, /stasis_rpc_calls_total\{method="getNode",code="OK"\} 1/);
  assert.match(text, /stasis_rpc_calls_total\{method="deleteCheckpoint",code="CHECKPOINT_NOT_FOUND"\} 1/);
});
