/** What a retention policy lets go: a pure function of the checkpoints, the rules and the time. */
import { StasisError } from '../../core/errors.ts';
import type { CheckpointId, LineageId } from '../../core/ids.ts';
import { parseBytes, parseDuration } from '../../core/units.ts';
import { matchesSelector, parseSelector, type Selector } from './selector.ts';

export interface RetentionRule {
  /** Undefined: whatever no other rule is for. */
  readonly selector: Selector | undefined;
  /** So many of each lineage stay. */
  readonly last: number | undefined;
  /** Older ones go, but never the newest of a lineage. */
  readonly ageMs: number | undefined;
  /** Stored bytes of all checkpoints that the rule is for; the oldest go first, but never the newest of a lineage. */
  readonly bytes: number | undefined;
}

export interface RetentionItem {
  readonly id: CheckpointId;
  readonly lineage: LineageId;
  readonly createdMs: number;
  readonly storedBytes: number;
  readonly namespace: string;
  readonly name: string;
  readonly pinned: boolean;
}

export interface Expired {
  readonly id: CheckpointId;
  readonly reason: 'last' | 'age' | 'bytes';
}

/** "shop/web-*:last=3:age=24h:bytes=10G": at least one limit. Throws CONFIG_INVALID. */
export function parseRule(text: string): RetentionRule {
  const [selector = '', ...limits] = text.split(':').map((part) => part.trim());
  const wrong = (why: string): StasisError => new StasisError('CONFIG_INVALID', `retention.rules: ${JSON.stringify(text)}: ${why}`, { hint: 'write SELECTOR:last=3:age=24h:bytes=10G with at least one of the three' });
  const rule = { selector: parseSelector(selector), last: undefined as number | undefined, ageMs: undefined as number | undefined, bytes: undefined as number | undefined };
  if (limits.length === 0) throw wrong('there is no limit');
  for (const limit of limits) {
    const [, name, value = ''] = /^(last|age|bytes)=(.+)$/.exec(limit) ?? [];
    try {
      if (name === 'last' && /^[1-9]\d{0,8}$/.test(value)) rule.last = Number(value);
      else if (name === 'age') rule.ageMs = parseDuration(value);
      else if (name === 'bytes') rule.bytes = parseBytes(value);
      else throw wrong(`${JSON.stringify(limit)} is not a limit`);
    } catch (error) {
      throw error instanceof StasisError && error.code === 'CONFIG_INVALID' ? error : wrong((error as Error).message);
    }
  }
  return rule;
}

/**
 * The first rule whose selector fits is the one for a checkpoint. Pinned ones never go; they do not count for `last`, but their
 * bytes count. The newest of each lineage always stays, so a clock that jumps costs old checkpoints at most, never all.
 */
export function expired(items: readonly RetentionItem[], rules: readonly RetentionRule[], nowMs: number): Expired[] {
  const gone = new Map<CheckpointId, Expired>();
  const groups = Map.groupBy(items, (item) => rules.find(({ selector }) => selector === undefined || matchesSelector(selector, item)));
  for (const [rule, group] of groups) {
    if (rule === undefined) continue;
    const newest = new Set<CheckpointId>();
    for (const lineage of Map.groupBy(group, (item) => item.lineage).values()) {
      lineage.sort(youngerFirst);
      const first = lineage[0];
      if (first !== undefined && !items.some((item) => item.lineage === first.lineage && youngerFirst(item, first) < 0)) newest.add(first.id);
      const free = lineage.filter(({ pinned }) => !pinned);
      for (const [i, item] of free.entries()) {
        if (newest.has(item.id)) continue;
        if (rule.last !== undefined && i >= rule.last) gone.set(item.id, { id: item.id, reason: 'last' });
        else if (rule.ageMs !== undefined && nowMs - item.createdMs > rule.ageMs) gone.set(item.id, { id: item.id, reason: 'age' });
      }
    }
    if (rule.bytes !== undefined) shrink(group.filter(({ id }) => !gone.has(id)), rule.bytes, newest, gone);
  }
  return [...gone.values()];
}

function shrink(group: readonly RetentionItem[], most: number, newest: ReadonlySet<CheckpointId>, gone: Map<CheckpointId, Expired>): void {
  let bytes = group.reduce((sum, { storedBytes }) => sum + storedBytes, 0);
  for (const item of group.toSorted(youngerFirst).reverse()) {
    if (bytes <= most) return;
    if (item.pinned || newest.has(item.id)) continue;
    gone.set(item.id, { id: item.id, reason: 'bytes' });
    bytes -= item.storedBytes;
  }
}

function youngerFirst(a: RetentionItem, b: RetentionItem): number {
  return b.createdMs - a.createdMs || (a.id < b.id ? 1 : a.id > b.id ? -1 : 0);
}
