/** Every text and every list that a caller can send has a bound: made from the proto file, so that a new field has one, too. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { agentService, loadDefinitions } from '../../src/rpc/definitions.ts';
import type { Methods } from '../../src/rpc/definitions.ts';
import { harness } from './harness.ts';
import type { Harness } from './harness.ts';

interface Field {
  readonly name: string;
  readonly type: string;
  readonly typeName: string;
  readonly label: string;
}

const { types, service } = loadDefinitions();

function fieldsOf(message: string): readonly Field[] {
  return (types[`stasis.agent.v1.${message}`] as unknown as { type: { field: Field[] } }).type.field;
}

interface Case {
  readonly what: string;
  readonly method: string;
  readonly request: object;
}

/** For each field of a message, also inside of others, one message that is too much in this field and empty elsewhere. */
function* tooMuch(message: string, textBytes: number, entries: number): Generator<{ readonly what: string; readonly value: object }> {
  for (const { name, type, typeName, label } of fieldsOf(message)) {
    const many = label === 'LABEL_REPEATED';
    if (many) yield { what: `${message}.${name}: ${entries} entries`, value: { [name]: Array.from({ length: entries }, () => (type === 'TYPE_MESSAGE' ? {} : type === 'TYPE_STRING' ? '' : 0)) } };
    if (type === 'TYPE_STRING') yield { what: `${message}.${name}: ${textBytes} bytes`, value: { [name]: many ? ['é'.repeat(textBytes / 2)] : 'é'.repeat(textBytes / 2) } };
    if (type === 'TYPE_MESSAGE') for (const inner of tooMuch(typeName, textBytes, entries)) yield { what: inner.what, value: { [name]: many ? [inner.value] : inner.value } };
  }
}

function cases(textBytes: number, entries: number): Case[] {
  return Object.entries(service(agentService)).flatMap(([method, definition]) => {
    const request = (definition as unknown as { requestType: { type: { name: string } } }).requestType.type.name;
    return [...tooMuch(request, textBytes, entries)].map(({ what, value }) => ({ what: `${method}: ${what}`, method, request: value }));
  });
}

void describe('bounds of requests', () => {
  let h: Harness;
  let client: Client;
  const methods: Methods = service(agentService);

  before(async () => {
    h = await harness();
    client = new Client(`unix:${h.socket}`, credentials.createInsecure());
  });
  after(async () => {
    client.close();
    await h[Symbol.asyncDispose]();
  });

  /** The code in our trailer, or the status; '' when the call went well. */
  async function outcome({ method, request }: Case): Promise<{ readonly status: number; readonly details: string }> {
    const { path, requestSerialize, responseDeserialize, requestStream, responseStream } = methods[method]!;
    const options = { deadline: Date.now() + 10_000 };
    return new Promise((resolve) => {
      const failed = (error: { code?: number; details?: string } | null): void => resolve({ status: error?.code ?? 0, details: error?.details ?? '' });
      if (!responseStream) {
        client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, new Metadata(), options, failed);
        return;
      }
      const call = requestStream
        ? client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, new Metadata(), options)
        : client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, request, new Metadata(), options);
      if (requestStream) (call as ReturnType<Client['makeBidiStreamRequest']>).write(request);
      call.on('error', failed).on('data', () => undefined).on('end', () => resolve({ status: 0, details: '' }));
    });
  }

  const found = cases(6000, 1001);

  test('the proto file has texts and lists to try', () => {
    assert.ok(found.filter(({ what }) => what.endsWith('bytes')).length >= 30, String(found.length));
    assert.ok(found.some(({ what }) => what.endsWith('entries')));
  });

  for (const one of found) {
    test(`${one.what} are refused`, async () => {
      const calls = h.script.calls.length;
      const { status, details } = await outcome(one);
      assert.equal(status, 3, details);
      assert.match(details, /bytes long|has 1001 entries/);
      assert.equal(h.script.calls.length, calls, 'the handler was not asked');
    });
  }

  test('a reason of 1024 bytes is taken, one byte more is not', async () => {
    assert.equal((await outcome({ what: '', method: 'DeleteCheckpoint', request: { checkpoint: 'x', reason: 'r'.repeat(1024) } })).status, 0);
    assert.equal((await outcome({ what: '', method: 'DeleteCheckpoint', request: { checkpoint: 'x', reason: 'r'.repeat(1025) } })).status, 3);
  });
});
