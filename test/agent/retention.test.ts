import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { isStasisError } from '../../src/core/errors.ts';
import type { CheckpointId, LineageId } from '../../src/core/ids.ts';
import { systemClock } from '../../src/core/clock.ts';
import { expired, parseNamespaceRule, parseRule } from '../../src/agent/retention/policy.ts';
import type { RetentionItem, RetentionRule } from '../../src/agent/retention/policy.ts';
import { namespaceQuotas, retentionPolicy } from '../../src/agent/retention/configured.ts';
import { Quota } from '../../src/agent/retention/quota.ts';
import type { QuotaParts } from '../../src/agent/retention/quota.ts';
import type { Repository } from '../../src/repository/types.ts';

const PACKS = 40;
const sizes = Array.from({ length: PACKS }, (_, i) => (i * 37) % 100);
const item = fc.record({
  lineage: fc.constantFrom('a', 'b', 'c').map((text) => text as LineageId),
  createdMs: fc.integer({ min: 0, max: 1000 }),
  namespace: fc.constantFrom('', 'shop', 'bank'),
  name: fc.constantFrom('web', 'web-2', 'db'),
  pinned: fc.boolean(),
  packs: fc.uniqueArray(fc.nat(PACKS - 1), { maxLength: 4 }),
});
/** Packs are shared within a lineage only. */
const items = fc.array(item, { maxLength: 30 }).map((list): RetentionItem[] =>
  list.map((one, i) => ({ ...one, packs: one.packs.map((pack) => pack - (pack % 3) + 'abc'.indexOf(one.lineage)).filter((pack) => pack < PACKS), id: String(i).padStart(20, '0') as CheckpointId })));
const last = fc.option(fc.integer({ min: 1, max: 5 }), { nil: undefined });
const bytes = fc.option(fc.nat(500), { nil: undefined });
const ageMs = fc.option(fc.nat(1000), { nil: undefined });
const limits = { last, ageMs, lineageBytes: bytes, bytes };
const rules = fc.array(fc.record({ selector: fc.constantFrom('shop/*', 'web*', 'bank/db').map((text) => parseRule(`${text}:last=1`).selector), ...limits }), { maxLength: 3 })
  .chain((some) => fc.option(fc.record({ selector: fc.constant(undefined), ...limits }), { nil: undefined }).map((rest): RetentionRule[] => (rest === undefined ? some : [...some, rest])));
const namespaces = fc.array(fc.record({ namespaces: fc.constantFrom('shop', '*', 'b*').map((text) => parseNamespaceRule(`${text}:last=1`).namespaces), last, ageMs, bytes }), { maxLength: 2 });
const policy = fc.record({ rules, namespaces });
const none: RetentionRule = { selector: undefined, last: undefined, ageMs: undefined, lineageBytes: undefined, bytes: undefined };

const sizeOf = (list: readonly RetentionItem[]): number => [...new Set(list.flatMap(({ packs }) => [...packs]))].reduce((sum, pack) => sum + (sizes[pack] ?? 0), 0);

const newestOf = (list: readonly RetentionItem[], lineage: string): RetentionItem | undefined =>
  list.filter((one) => one.lineage === lineage).sort((a, b) => b.createdMs - a.createdMs || (a.id < b.id ? 1 : -1))[0];

void describe('retention policy', () => {
  void it('pins and the newest of each lineage stay, whatever the rules and the time; nothing goes without a rule', () => {
    fc.assert(fc.property(items, policy, fc.integer({ min: -10_000, max: 10_000 }), (list, some, nowMs) => {
      const gone = new Set(expired(list, some, sizes, nowMs).map(({ id }) => id));
      for (const one of list) if (one.pinned) assert.ok(!gone.has(one.id), 'pinned');
      for (const lineage of ['a', 'b', 'c']) {
        const newest = newestOf(list, lineage);
        if (newest !== undefined) assert.ok(!gone.has(newest.id), 'the newest');
      }
      if (some.rules.length === 0 && some.namespaces.length === 0) assert.equal(gone.size, 0);
    }));
  });

  void it('done once it is done: what stays would stay again, in any order', () => {
    fc.assert(fc.property(items, policy, fc.nat(2000), (list, some, nowMs) => {
      const gone = new Set(expired(list, some, sizes, nowMs).map(({ id }) => id));
      const left = list.filter(({ id }) => !gone.has(id));
      assert.deepEqual(expired(left, some, sizes, nowMs), []);
      assert.deepEqual([...expired([...list].reverse(), some, sizes, nowMs)].map(({ id }) => id).sort(), [...gone].sort());
    }));
  });

  void it('one rule for all: at most so many, none too old, and no more bytes than must be', () => {
    fc.assert(fc.property(items, fc.record(limits), fc.nat(2000), (list, most, nowMs) => {
      const gone = new Set(expired(list, { rules: [{ ...none, ...most }], namespaces: [] }, sizes, nowMs).map(({ id }) => id));
      const left = list.filter(({ id }) => !gone.has(id));
      const removable = (some: readonly RetentionItem[]): boolean => some.some((one) => !one.pinned && one !== newestOf(left, one.lineage));
      for (const lineage of ['a', 'b', 'c']) {
        const mine = left.filter((one) => one.lineage === lineage);
        const free = mine.filter((one) => !one.pinned);
        if (most.last !== undefined) assert.ok(free.length <= most.last);
        if (most.ageMs !== undefined) assert.ok(free.every((one) => one === newestOf(left, lineage) || nowMs - one.createdMs <= (most.ageMs ?? 0)));
        if (most.lineageBytes !== undefined && removable(mine)) assert.ok(sizeOf(mine) <= most.lineageBytes, 'a lineage');
      }
      if (most.bytes !== undefined && removable(left)) assert.ok(sizeOf(left) <= most.bytes, 'all');
    }));
  });

  void it('a namespace as a whole: over all its lineages, each namespace by itself', () => {
    fc.assert(fc.property(items, fc.record({ last, bytes }), (list, most) => {
      const rule = { ...parseNamespaceRule('*:last=1'), ...most };
      const gone = new Set(expired(list, { rules: [], namespaces: [rule] }, sizes, 0).map(({ id }) => id));
      for (const namespace of ['', 'shop', 'bank']) {
        const left = list.filter((one) => one.namespace === namespace && !gone.has(one.id));
        const removable = left.filter((one) => !one.pinned && one !== newestOf(list, one.lineage));
        if (most.last !== undefined) assert.ok(removable.length <= most.last);
        if (most.bytes !== undefined && removable.length > 0) assert.ok(sizeOf(left) <= most.bytes);
      }
    }));
  });

  void it('what a younger checkpoint still needs is not counted as freed', () => {
    const of = (i: number, packs: number[]): RetentionItem => ({ id: String(i).padStart(20, '0') as CheckpointId, lineage: 'a' as LineageId, createdMs: i, namespace: '', name: 'x', pinned: false, packs });
    // The first made the large pack, and all need it: taking it away frees nothing, so the next has to go, too.
    const list = [of(1, [0]), of(2, [0, 1]), of(3, [0, 2])];
    assert.deepEqual(expired(list, { rules: [{ ...none, bytes: 1015 }], namespaces: [] }, [1000, 10, 10], 0).map(({ id }) => id.slice(-1)), ['1', '2']);
  });

  void it('the first rule that fits counts', () => {
    const list = ['shop', 'bank'].flatMap((namespace, n) => [1, 2, 3].map((i): RetentionItem => ({ id: `${n}${i}`.padStart(20, '0') as CheckpointId, lineage: namespace as LineageId, createdMs: i, namespace, name: 'web', pinned: false, packs: [] })));
    const configured = retentionPolicy({ retention: { last: 1, age: '', bytes: 0, lineageBytes: 0, rules: ['shop/w*:last=2'], namespaces: [] } });
    assert.deepEqual(expired(list, configured, sizes, 10).map(({ id }) => id.slice(-2)), ['01', '12', '11']);
  });

  void it('rules that cannot be meant are refused', () => {
    for (const text of ['', 'web', 'web:', 'web:last=0', 'web:age=soon', 'a/b/c:last=1', 'web:most=3', 'we b:last=1']) {
      assert.throws(() => parseRule(text), (error) => isStasisError(error, 'CONFIG_INVALID'), text);
    }
    for (const text of ['', 'shop', 'shop/web:last=1', 'shop:lineage-bytes=1G', 'shop:last=x']) assert.throws(() => parseNamespaceRule(text), (error) => isStasisError(error, 'CONFIG_INVALID'), text);
    for (const text of ['', 'shop', 'shop=', 'shop=much', '=1G']) assert.throws(() => namespaceQuotas({ repository: { namespaceQuotas: [text] } } as never), (error) => isStasisError(error, 'CONFIG_INVALID'), text);
    assert.deepEqual({ ...parseRule('shop/*:last=3:age=24h:bytes=10G'), selector: 0 }, { selector: 0, last: 3, ageMs: 86_400_000, lineageBytes: undefined, bytes: 10 * 1024 ** 3 });
  });
});

void describe('quota', () => {
  const signal = AbortSignal.timeout(60_000);
  const make = (used: () => number, bytes: number, more: Partial<QuotaParts> = {}): Quota =>
    new Quota({ repository: { maintenance: { usedBytes: () => Promise.resolve(used()), reserved: () => Promise.resolve(new Map(elsewhere)) } } as unknown as Repository, holdings: { bytesOf: () => Promise.resolve(0) }, clock: systemClock, bytes, namespaces: [], ...more });
  const elsewhere: [CheckpointId, number][] = [];
  const ask = (bytes: number, namespace = ''): { bytes: number; namespace: string } => ({ bytes, namespace });
  const full = (error: unknown): boolean => isStasisError(error, 'NO_SPACE');

  void it('is reserved, given back, and refused with the sizes', async () => {
    let used = 100;
    const quota = make(() => used, 1000);
    const first = await quota.reserve(ask(600), { signal });
    await assert.rejects(quota.reserve(ask(400), { signal }), (error) => isStasisError(error, 'NO_SPACE') && error.details['reserved'] === 600 && error.details['needed'] === 400 && error.details['quota'] === 1000);
    first[Symbol.dispose]();
    used = 950;
    quota.wrote(850);
    await assert.rejects(quota.reserve(ask(100), { signal }), full);
    used = 0;
    (await quota.reserve(ask(900), { signal }))[Symbol.dispose]();
    await make(() => assert.fail('nobody counts without a quota'), 0).reserve(ask(1e15), { signal });
  });

  void it('exactly what fits fits; of two that ask at once for more than half, not both', async () => {
    const quota = make(() => 100, 1000);
    (await quota.reserve(ask(900), { signal }))[Symbol.dispose]();
    await assert.rejects(quota.reserve(ask(901), { signal }), full);
    const both = await Promise.allSettled([quota.reserve(ask(451), { signal }), quota.reserve(ask(451), { signal })]);
    assert.ok(both.filter(({ status }) => status === 'fulfilled').length <= 1);
  });

  void it('files that were read ahead count beside the memory, and not twice', async () => {
    let used = 100;
    const quota = make(() => used, 1000);
    const mine = await quota.reserve(ask(600), { signal });
    // Its packs are in the store by now.
    used = 400;
    await mine.wrote(300, { signal });
    used = 401;
    await assert.rejects(mine.wrote(301, { signal }), full);
    mine[Symbol.dispose]();
    used = 100;
    await quota.reserve(ask(900), { signal });
  });

  void it('what other agents have reserved counts once our own mark is set, and our own not twice', async () => {
    const quota = make(() => 100, 1000);
    const id = (text: string): CheckpointId => text.padStart(20, '0') as CheckpointId;
    using first = await quota.reserve(ask(400), { signal });
    elsewhere.push([id('1'), 400]);
    await first.begun(id('1'), { signal });
    using second = await quota.reserve(ask(300), { signal });
    elsewhere.push([id('2'), 300], [id('3'), 201]);
    await assert.rejects(second.begun(id('2'), { signal }), full);
    elsewhere[2] = [id('3'), 200];
    await second.begun(id('2'), { signal });
    elsewhere.length = 0;
  });

  void it('of namespaces: the first that fits, each namespace by itself, reservations too', async () => {
    const namespaces = namespaceQuotas({ repository: { namespaceQuotas: ['shop=1000', 'team-*=500'] } } as never);
    const quota = make(() => 0, 0, { namespaces, holdings: { bytesOf: (namespace) => Promise.resolve(namespace === 'shop' ? 300 : 0) } });
    const first = await quota.reserve(ask(500, 'shop'), { signal });
    await assert.rejects(quota.reserve(ask(201, 'shop'), { signal }), full);
    await quota.reserve(ask(500, 'team-a'), { signal });
    await quota.reserve(ask(500, 'team-b'), { signal });
    await assert.rejects(quota.reserve(ask(1, 'team-a'), { signal }), full);
    await quota.reserve(ask(1e12, 'elsewhere'), { signal });
    first[Symbol.dispose]();
    await quota.reserve(ask(700, 'shop'), { signal });
  });
});
