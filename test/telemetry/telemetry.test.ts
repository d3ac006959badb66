import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { StasisError } from '../../src/core/errors.ts';
import { events } from '../../src/telemetry/events.ts';
import { serveTelemetry } from '../../src/telemetry/http.ts';
import { createLogger, redactedFields, silentLogger } from '../../src/telemetry/logger.ts';
import type { Logger } from '../../src/telemetry/logger.ts';
import { createMetrics } from '../../src/telemetry/metrics.ts';
import { repositoryRoot, tableRows } from '../config/repository-root.ts';

function captured(level: 'debug' | 'info' = 'debug'): { logger: Logger; lines: () => Record<string, unknown>[]; text: () => string } {
  let text = '';
  const logger = createLogger(level, { write: (line) => { text += line; } });
  return { logger, text: () => text, lines: () => text.split('\n').filter(Boolean).map((line) => JSON.parse(line) as Record<string, unknown>) };
}

void test('an event is one line with its level, name and fields, also those of the child', () => {
  const { logger, lines } = captured();
  logger.child({ operation: 'op-1' }).event('checkpoint.committed', { bytes: 5 });
  const [line] = lines();
  assert.deepEqual({ ...line, time: undefined }, { level: 'info', time: undefined, event: 'checkpoint.committed', operation: 'op-1', bytes: 5 });
  assert.match(String(line?.['time']), /^\d{4}-\d\d-\d\dT.*Z$/);
});

void test('the level of the configuration holds', () => {
  const { logger, lines } = captured('info');
  logger.event('operation.step');
  logger.event('guard.fired');
  assert.deepEqual(lines().map(({ event, level }) => [event, level]), [['guard.fired', 'error']]);
});

void test('known errors are logged by code and hint, others with their stack, causes included', () => {
  const { logger, lines } = captured();
  logger.event('restore.failed', { err: new StasisError('NO_SPACE', 'full', { hint: 'free some', details: { path: '/x' }, cause: new Error('ENOSPC') }) });
  logger.event('agent.crashed', { err: new TypeError('oops') });
  const [known, unknown] = lines().map((line) => line['err'] as Record<string, unknown>);
  assert.deepEqual([known?.['code'], known?.['hint'], known?.['details']], ['NO_SPACE', 'free some', { path: '/x' }]);
  assert.equal((known?.['cause'] as { message: string } | undefined)?.message, 'ENOSPC');
  assert.match(String(unknown?.['stack']), /TypeError: oops/);
});

void test('secrets are in no line, wherever they are put', () => {
  const { logger, text } = captured();
  for (const field of redactedFields) logger.event('key.created', { [field]: 'hunter2', inside: { [field]: 'hunter2' } });
  assert.ok(!text().includes('hunter2'));
  assert.ok(text().includes('[redacted]'));
  silentLogger.child({ a: 1 }).event('key.created');
});

void test('docs/EVENTS.md has every event with its level and meaning, and no other', () => {
  const expected = Object.entries(events).map(([name, { level, meaning }]) => [`\`${name}\``, level, meaning]);
  assert.deepEqual(tableRows(readFileSync(join(repositoryRoot(), 'docs/EVENTS.md'), 'utf8'), 'event'), expected);
  for (const name of Object.keys(events)) assert.match(name, /^[a-z]+\.[a-z]+$/);
});

void test('metrics in the text format', () => {
  const metrics = createMetrics();
  const calls = metrics.counter('calls_total', 'Calls.\nTwo lines.');
  calls.add(1, { method: 'a"b\\c' });
  calls.add(2, { method: 'a"b\\c' });
  metrics.gauge('load_ratio', 'Load.').set(0.5);
  metrics.sampled('now_bytes', 'Now.', () => 7);
  const seconds = metrics.histogram('took_seconds', 'Took.', [1, 0.1]);
  for (const value of [0.05, 0.1, 0.5, 3]) seconds.observe(value, { kind: 'x' });
  assert.equal(metrics.render(), `# HELP calls_total Calls.\\nTwo lines.
# TYPE calls_total counter
calls_total{method="a\\"b\\\\c"} 3
# HELP load_ratio Load.
# TYPE load_ratio gauge
load_ratio 0.5
# HELP now_bytes Now.
# TYPE now_bytes gauge
now_bytes 7
# HELP took_seconds Took.
# TYPE took_seconds histogram
took_seconds_bucket{kind="x",le="0.1"} 2
took_seconds_bucket{kind="x",le="1"} 3
took_seconds_bucket{kind="x",le="+Inf"} 4
took_seconds_sum{kind="x"} 3.65
took_seconds_count{kind="x"} 4
`);
});

void test('what would break a scraper is a bug, and labels are bounded', () => {
  const metrics = createMetrics();
  const calls = metrics.counter('calls_total', 'Calls.');
  assert.throws(() => metrics.counter('calls_total', 'Again.'), /exists already/);
  assert.throws(() => metrics.counter('calls', 'No unit.'), /_total/);
  assert.throws(() => metrics.gauge('bad-name', 'x'), /not a metric name/);
  assert.throws(() => calls.add(-1), /cannot go down/);
  for (let i = 0; i < 1000; i++) calls.add(1, { id: String(i) });
  assert.equal(metrics.render().split('\n').filter((line) => line.startsWith('calls_total{')).length, 200);
});

void test('/metrics, /livez and /readyz', async () => {
  const metrics = createMetrics();
  metrics.counter('x_total', 'X.').add(1);
  let ready = true;
  await using server = await serveTelemetry({ listen: '127.0.0.1:0', metrics, logger: silentLogger, ready: () => ({ ready, reason: 'stopping' }) });
  const get = async (path: string, init?: RequestInit): Promise<readonly [number, string]> => {
    const response = await fetch(`http://${server.address}${path}`, init);
    return [response.status, await response.text()];
  };
  assert.deepEqual(await get('/livez'), [200, 'ok\n']);
  assert.deepEqual(await get('/readyz?verbose'), [200, 'ok\n']);
  ready = false;
  assert.deepEqual(await get('/readyz'), [503, 'stopping\n']);
  assert.match((await get('/metrics'))[1], /^# HELP x_total X\.\n# TYPE x_total counter\nx_total 1\n$/);
  assert.equal((await get('/'))[0], 404);
  assert.equal((await get('/metrics', { method: 'POST' }))[0], 405);
  await assert.rejects(serveTelemetry({ listen: server.address, metrics, logger: silentLogger, ready: () => ({ ready: true, reason: '' }) }), { code: 'CONFIG_INVALID', message: /EADDRINUSE/ });
});

void test('only loopback addresses are served', async () => {
  for (const listen of ['0.0.0.0:0', '192.168.1.1:0', '[::]:0', 'example.com:0']) {
    await assert.rejects(serveTelemetry({ listen, metrics: createMetrics(), logger: silentLogger, ready: () => ({ ready: true, reason: '' }) }), { code: 'CONFIG_INVALID', message: /loopback/ }, listen);
  }
});
