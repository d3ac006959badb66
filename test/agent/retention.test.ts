import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { isStasisError } from '../../src/core/errors.ts';
import type { CheckpointId, LineageId } from '../../src/core/ids.ts';
import { systemClock } from '../../src/core/clock.ts';
import { expired, parseRule } from '../../src/agent/retention/policy.ts';
import type { RetentionItem, RetentionRule } from '../../src/agent/retention/policy.ts';
import { retentionRules } from '../../src/agent/retention/configured.ts';
import { Quota } from '../../src/agent/retention/quota.ts';
import type { Repository } from '../../src/repository/types.ts';

const item = fc.record({
  lineage: fc.constantFrom('a', 'b', 'c').map((text) => text as LineageId),
  createdMs: fc.integer({ min: 0, max: 1000 }),
  storedBytes: fc.nat(100),
  namespace: fc.constantFrom('', 'shop', 'bank'),
  name: fc.constantFrom('web', 'web-2', 'db'),
  pinned: fc.boolean(),
});
const items = fc.array(item, { maxLength: 30 }).map((list): RetentionItem[] => list.map((one, i) => ({ ...one, id: String(i).padStart(20, '0') as CheckpointId })));
const limits = { last: fc.option(fc.integer({ min: 1, max: 5 }), { nil: undefined }), ageMs: fc.option(fc.nat(1000), { nil: undefined }), bytes: fc.option(fc.nat(500), { nil: undefined }) };
const rules = fc.array(fc.record({ selector: fc.constantFrom('shop/*', 'web*', 'bank/db').map((text) => parseRule(`${text}:last=1`).selector), ...limits }), { maxLength: 3 })
  .chain((some) => fc.option(fc.record({ selector: fc.constant(undefined), ...limits }), { nil: undefined }).map((rest): RetentionRule[] => (rest === undefined ? some : [...some, rest])));

const newestOf = (list: readonly RetentionItem[], lineage: string): RetentionItem | undefined =>
  list.filter((one) => one.lineage === lineage).sort((a, b) => b.createdMs - a.createdMs || (a.id < b.id ? 1 : -1))[0];

void describe('retention policy', () => {
  void it('pins and the newest of each lineage stay, whatever the rules and the time; nothing goes without a rule', () => {
    fc.assert(fc.property(items, rules, fc.integer({ min: -10_000, max: 10_000 }), (list, some, nowMs) => {
      const gone = new Set(expired(list, some, nowMs).map(({ id }) => id));
      for (const one of list) if (one.pinned) assert.ok(!gone.has(one.id), 'pinned');
      for (const lineage of ['a', 'b', 'c']) {
        const newest = newestOf(list, lineage);
        if (newest !== undefined) assert.ok(!gone.has(newest.id), 'the newest');
      }
      if (some.length === 0) assert.equal(gone.size, 0);
    }));
  });

  void it('done once it is done: what stays would stay again, in any order', () => {
    fc.assert(fc.property(items, rules, fc.nat(2000), (list, some, nowMs) => {
      const gone = new Set(expired(list, some, nowMs).map(({ id }) => id));
      const left = list.filter(({ id }) => !gone.has(id));
      assert.deepEqual(expired(left, some, nowMs), []);
      assert.deepEqual([...expired([...list].reverse(), some, nowMs)].map(({ id }) => id).sort(), [...gone].sort());
    }));
  });

  void it('one rule for all: at most so many, none too old, and no more bytes than must be', () => {
    fc.assert(fc.property(items, fc.record(limits), fc.nat(2000), (list, { last, ageMs, bytes }, nowMs) => {
      const gone = new Set(expired(list, [{ selector: undefined, last, ageMs, bytes }], nowMs).map(({ id }) => id));
      const left = list.filter(({ id }) => !gone.has(id));
      for (const lineage of ['a', 'b', 'c']) {
        const newest = newestOf(left, lineage);
        const free = left.filter((one) => one.lineage === lineage && !one.pinned);
        if (last !== undefined) assert.ok(free.length <= Math.max(last, 1));
        if (ageMs !== undefined) assert.ok(free.every((one) => one === newest || nowMs - one.createdMs <= ageMs));
      }
      const removable = left.filter((one) => !one.pinned && one !== newestOf(left, one.lineage));
      if (bytes !== undefined && removable.length > 0) assert.ok(left.reduce((sum, one) => sum + one.storedBytes, 0) <= bytes || removable.every((one) => one.storedBytes === 0));
    }));
  });

  void it('the first rule that fits counts', () => {
    const list = ['shop', 'bank'].flatMap((namespace, n) => [1, 2, 3].map((i): RetentionItem => ({ id: `${n}${i}`.padStart(20, '0') as CheckpointId, lineage: namespace as LineageId, createdMs: i, storedBytes: 1, namespace, name: 'web', pinned: false })));
    const configured = retentionRules({ retention: { last: 1, age: '', bytes: 0, rules: ['shop/w*:last=2'] } });
    assert.deepEqual(expired(list, configured, 10).map(({ id }) => id.slice(-2)), ['01', '12', '11']);
  });

  void it('rules that cannot be meant are refused', () => {
    for (const text of ['', 'web', 'web:', 'web:last=0', 'web:age=soon', 'a/b/c:last=1', 'web:most=3', 'we b:last=1']) {
      assert.throws(() => parseRule(text), (error) => isStasisError(error, 'CONFIG_INVALID'), text);
    }
    assert.deepEqual({ ...parseRule('shop/*:last=3:age=24h:bytes=10G'), selector: 0 }, { selector: 0, last: 3, ageMs: 86_400_000, bytes: 10 * 1024 ** 3 });
  });
});

void describe('quota', () => {
  const repository = (used: () => number): Repository => ({ maintenance: { usedBytes: () => Promise.resolve(used()) } }) as unknown as Repository;
  const signal = AbortSignal.timeout(60_000);

  void it('is reserved, given back, and refused with the sizes', async () => {
    let used = 100;
    const quota = new Quota(repository(() => used), systemClock, 1000);
    const first = await quota.reserve(600, { signal });
    await assert.rejects(quota.reserve(400, { signal }), (error) => isStasisError(error, 'NO_SPACE') && error.details['reserved'] === 600 && error.details['needed'] === 400 && error.details['quota'] === 1000);
    first[Symbol.dispose]();
    used = 950;
    quota.wrote(850);
    await assert.rejects(quota.reserve(100, { signal }), (error) => isStasisError(error, 'NO_SPACE'));
    used = 0;
    (await quota.reserve(900, { signal }))[Symbol.dispose]();
    await new Quota(repository(() => assert.fail('nobody counts without a quota')), systemClock, 0).reserve(1e15, { signal });
  });
});
