import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { assert as check, boolean, dictionary, double, oneof, option, property, string } from 'fast-check';
import { errorTable, StasisError } from '../../src/core/errors.ts';
import type { ErrorCode } from '../../src/core/errors.ts';
import { agentService, loadDefinitions } from '../../src/rpc/definitions.ts';
import { allowedRoles } from '../../src/rpc/roles.ts';
import { errorInfo, errorOf, errorOfInfo, statusOf } from '../../src/rpc/status.ts';
import { agentWire } from '../../src/rpc/wire.ts';
import type { Failure } from '../../src/rpc/status.ts';

const wire = agentWire(loadDefinitions());

void test('the proto, the roles and the handlers name the same methods', () => {
  const inProto = Object.keys(loadDefinitions().service(agentService)).map((name) => name.charAt(0).toLowerCase() + name.slice(1));
  assert.deepEqual(inProto.sort(), Object.keys(allowedRoles).sort());
});

void test('every message of the proto has an interface with the same fields', async () => {
  const sources = await Promise.all(['api', 'api-keys', 'api-repository', 'archives', 'store-report'].map((name) => readFile(new URL(import.meta.url.includes('/dist/') ? sourceUrl(name) : `../../src/rpc/${name}.ts`, import.meta.url), 'utf8')));
  const source = sources.join('\n');
  const { types } = loadDefinitions();
  for (const [name, definition] of Object.entries(types)) {
    const message = name.replace('stasis.agent.v1.', '');
    const fields = (definition as { type?: { field?: { name: string }[] } }).type?.field;
    const body = new RegExp(`interface ${message} \\{(.*?)\\n\\}`, 's').exec(source)?.[1];
    if (fields === undefined || body === undefined) continue;
    const inTypes = [...body.matchAll(/^ {2}readonly (\w+)\??:/gm)].map((match) => match[1]).sort();
    assert.deepEqual(inTypes, fields.map((field) => field.name).sort(), message);
  }
});

/** The types are gone in the compiled file; the source lies in the package above it. */
function sourceUrl(name: string): string {
  return `${import.meta.url.replace(/\/(\.cache\/[^/]+\/)?dist\/.*$/, '')}/src/rpc/${name}.ts`;
}

void test('every error code has the same way there and back', () => {
  for (const code of Object.keys(errorTable) as ErrorCode[]) {
    const error = new StasisError(code, `message of ${code}: ü`, { hint: 'a hint', details: { name: 'x', count: 3, sure: false } });
    const status = statusOf(error, wire.errors);
    assert.equal(status.code, errorTable[code].grpc);
    const back = errorOf(status, 'here', wire.errors);
    assert.deepEqual([back.code, back.message, back.hint, back.details], [error.code, error.message, error.hint, error.details]);
  }
});

void test('any text and details survive, long ones are cut to what fits into trailers', () => {
  check(property(string({ unit: 'binary', maxLength: 5000 }), option(string({ unit: 'grapheme' }), { nil: undefined }), dictionary(string({ minLength: 1, maxLength: 20 }).filter((key) => key !== '__proto__'), oneof(string({ maxLength: 500 }), double({ noNaN: true }), boolean()), { maxKeys: 30 }), (message, hint, details) => {
    const info = errorInfo(new StasisError('DUMP_FAILED', message.toWellFormed(), { hint, details }));
    const bytes = wire.errors.encode(info);
    assert.ok(bytes.length < 20_000);
    const back = errorOfInfo(wire.errors.decode(bytes));
    assert.equal(back.code, 'DUMP_FAILED');
    assert.equal(back.message, info.message.toWellFormed());
    assert.equal(back.hint, hint);
  }), { numRuns: 200 });
});

void test('a code of a newer agent is INTERNAL and stays readable', () => {
  const back = errorOfInfo({ code: 'MOON_IN_THE_WAY', message: 'wait', details: [] });
  assert.deepEqual([back.code, back.message], ['INTERNAL', 'MOON_IN_THE_WAY: wait']);
});

void test('failures without our trailer are mapped by their status', () => {
  const failure = (code: number, details: string): Failure => Object.assign(new Error(details), { code, details });
  const code = (status: number, details = 'x'): string => errorOf(failure(status, details), 'peer', wire.errors).code;
  assert.equal(code(14), 'AGENT_UNREACHABLE');
  assert.equal(code(14, 'No connection established. Last error: self-signed certificate in certificate chain'), 'UNAUTHENTICATED');
  assert.equal(code(4), 'DEADLINE_EXCEEDED');
  assert.equal(code(8), 'LIMIT_EXCEEDED');
  assert.equal(code(12), 'INTERNAL');
  assert.match(errorOf(failure(14, 'connect EACCES /run/stasis/agent.sock'), 'peer', wire.errors).hint ?? '', /root/);
});
