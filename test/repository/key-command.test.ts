import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { StasisError, isStasisError } from '../../src/core/errors.ts';
import { commandKeyProvider, MemoryStore } from '../../src/repository/index.ts';
import type { KeyProvider } from '../../src/repository/index.ts';
import { encodeSecrets, newSecrets } from '../../src/repository/keys/document.ts';
import { hex } from '../../src/repository/trust.ts';
import { failure, load, save, testKeys, withRepository } from './support.ts';

const clock = { ms: 0, now: () => 0, monotonic: () => clock.ms, sleep: async () => undefined };

interface Kms {
  readonly requests: Record<string, unknown>[];
  readonly provider: Promise<KeyProvider>;
  readonly problems: StasisError[];
  /** Answers instead of the good one, as text. */
  answer: ((request: Record<string, unknown>) => string | undefined) | undefined;
}

/** A KMS that holds the secrets of `inside`; `signs`: it also signs. */
function kms(inside: ReturnType<typeof testKeys>, { signs }: { signs: boolean }, answer?: Kms['answer']): Kms {
  const own: Omit<Kms, 'provider'> = { requests: [], problems: [], answer };
  const signing = testKeys();
  const good = async (request: Record<string, unknown>): Promise<object> => {
    if (request['request'] === 'describe') return { recipients: inside.recipients.map(hex), ...(signs ? { signer: hex(inside.signer) } : {}) };
    if (request['request'] === 'sign') return { signature: Buffer.from(await inside.sign(Buffer.from(String(request['message']), 'base64'))).toString('base64') };
    const keys = request['keys'] as { recipient: string; sealed: string }[];
    const dataKey = await inside.unwrap(keys.map(({ recipient, sealed }) => ({ recipient: Buffer.from(recipient, 'hex'), sealed: Buffer.from(sealed, 'base64') })));
    return { dataKey: dataKey === undefined ? null : Buffer.from(dataKey).toString('base64') };
  };
  const provider = commandKeyProvider({
    description: 'key command /kms', cacheMs: 1000, clock, onProblem: (error) => own.problems.push(error), signing: () => Promise.resolve(signing),
    run: async (input) => {
      const request = JSON.parse(Buffer.from(input).toString()) as Record<string, unknown>;
      assert.equal(request['protocol'], 'stasis-keys-1');
      own.requests.push(request);
      return Buffer.from(mine.answer?.(request) ?? JSON.stringify(await good(request)));
    },
  });
  const mine: Kms = Object.assign(own, { provider });
  return mine;
}

for (const signs of [true, false]) {
  void test(`checkpoints through a command that opens${signs ? ' and signs' : ''}; answers are used again for a while`, async () => {
    const inside = testKeys();
    const store = new MemoryStore();
    const bytes = randomBytes(20_000);
    const command = kms(inside, { signs });
    const keys = await command.provider;
    const count = (request: string): number => command.requests.filter((one) => one['request'] === request).length;
    await withRepository({ store, keys }, async (repository) => {
      const { id, lineage } = await save(repository, { bytes });
      assert.equal(count('unwrap'), 0, 'writing needs no secret');
      for (let i = 0; i < 3; i += 1) assert.ok((await load(repository, id)).equals(bytes));
      assert.equal(count('unwrap'), 1);
      assert.equal(command.requests.find((one) => one['request'] === 'unwrap')?.['lineage'], lineage);
      clock.ms += 1001;
      assert.ok((await load(repository, id)).equals(bytes));
      assert.deepEqual([count('unwrap'), count('sign')], [2, signs ? 2 : 0]);
      clock.ms += 1001;
      command.answer = (request) => (request['request'] === 'unwrap' ? '{"dataKey":null}' : undefined);
      assert.equal(await failure(load(repository, id)), 'KEY_WRONG', 'access was taken away');
    });
    if (signs) await withRepository({ store, keys: inside }, async (repository) => assert.equal((await Array.fromAsync(repository.list({ signal: undefined }))).length, 1));
  });
}

void test('a command that prints a key file keeps the secrets in memory, and is asked nothing more', async () => {
  const command = kms(testKeys(), { signs: false }, () => encodeSecrets(newSecrets()).replaceAll('\n', ' '));
  const keys = await command.provider;
  const bytes = randomBytes(1000);
  await withRepository({ keys }, async (repository) => assert.ok((await load(repository, (await save(repository, { bytes })).id)).equals(bytes)));
  assert.deepEqual(command.requests.map((one) => one['request']), ['describe']);
});

void test('garbage is refused, and not repeated in the message', async () => {
  const secret = 'c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0';
  const say = (text: string) => failure(kms(testKeys(), { signs: true }, () => text).provider);
  for (const text of ['', 'not json', '[]', 'null', '{}', '{"recipients":[]}', '{"recipients":["zz"]}', `{"recipients":["${'A'.repeat(64)}"]}`, `{"recipients":["${'0'.repeat(64)}"],"signer":1}`, '\u0000\u0001']) {
    assert.equal(await say(text), 'KEY_UNAVAILABLE', text);
  }
  assert.equal(await say('{"stasis":"key file 1"}'), 'KEY_WRONG');
  const command = kms(testKeys(), { signs: true });
  const keys = await command.provider;
  await withRepository({ keys }, async (repository) => {
    const { id } = await save(repository, { bytes: randomBytes(1000) });
    for (const text of [secret, `{"dataKey":"${secret}"}`, `{"dataKey":7,"x":"${secret}"}`]) {
      command.answer = () => text;
      await assert.rejects(load(repository, id), (error) => {
        assert.ok(isStasisError(error, 'KEY_UNAVAILABLE'));
        assert.ok(!`${error.message}${error.stack}${String(error.cause)}`.includes(secret.slice(0, 8)));
        return true;
      });
    }
    // The right size, but another key.
    command.answer = () => JSON.stringify({ dataKey: randomBytes(32).toString('base64') });
    assert.equal(await failure(load(repository, id)), 'KEY_WRONG');
    command.answer = (request) => (request['request'] === 'sign' ? JSON.stringify({ signature: randomBytes(64).toString('base64') }) : undefined);
    assert.equal(await failure(save(repository, { bytes: randomBytes(100) })), 'KEY_UNAVAILABLE');
  });
});

void test('out of reach: said as it is, not as damage; what was known goes on', async () => {
  const command = kms(testKeys(), { signs: false });
  const keys = await command.provider;
  await withRepository({ keys }, async (repository) => {
    const { id, lineage } = await save(repository, { bytes: randomBytes(1000) });
    command.answer = () => { throw new StasisError('KEY_UNAVAILABLE', 'no route'); };
    clock.ms += 5000;
    assert.equal(await failure(load(repository, id)), 'KEY_UNAVAILABLE');
    assert.equal(await failure(Array.fromAsync(repository.list({ signal: undefined }))), 'KEY_UNAVAILABLE');
    assert.equal(await failure(repository.verify(id, { signal: undefined })), 'KEY_UNAVAILABLE');
    assert.equal(await failure(repository.maintenance.check({ signal: undefined, readData: true })), 'KEY_UNAVAILABLE');
    assert.equal(await failure(repository.begin({ id: (await save(repository, { bytes: randomBytes(10) })).id, lineage }, { signal: undefined })), 'CHECKPOINT_IN_USE');
    assert.deepEqual(command.problems.map(({ code }) => code), ['KEY_UNAVAILABLE'], 'told once');
    command.answer = undefined;
    clock.ms += 5000;
    assert.equal(await failure(load(repository, id)), 'none');
  });
});
