/** What a retention policy lets go: a pure function of the checkpoints, the rules and the time. */
import { StasisError } from '../../core/errors.ts';
import type { CheckpointId, LineageId } from '../../core/ids.ts';
import { parseBytes, parseDuration } from '../../core/units.ts';
import { matchesSelector, parseNamespaces, parseSelector, type Selector } from './selector.ts';

export interface RetentionRule {
  /** Undefined: whatever no other rule is for. */
  readonly selector: Selector | undefined;
  /** So many of each lineage stay. */
  readonly last: number | undefined;
  /** Older ones go, but never the newest of a lineage. */
  readonly ageMs: number | undefined;
  /** Bytes of each lineage; the oldest go first, but never the newest. */
  readonly lineageBytes: number | undefined;
  /** Bytes of all checkpoints that the rule is for; the oldest go first, but never the newest of a lineage. */
  readonly bytes: number | undefined;
}

/** Limits of each namespace that fits, as a whole and beside the rules. */
export interface NamespaceRule {
  readonly namespaces: RegExp;
  readonly last: number | undefined;
  readonly ageMs: number | undefined;
  readonly bytes: number | undefined;
}

export interface RetentionPolicy {
  readonly rules: readonly RetentionRule[];
  readonly namespaces: readonly NamespaceRule[];
}

export interface RetentionItem {
  readonly id: CheckpointId;
  readonly lineage: LineageId;
  readonly createdMs: number;
  readonly namespace: string;
  readonly name: string;
  readonly pinned: boolean;
  /** The packs that it needs, by number. */
  readonly packs: Iterable<number>;
}

export type Limit = 'last' | 'age' | 'lineage-bytes' | 'bytes' | 'namespace-last' | 'namespace-age' | 'namespace-bytes';

export interface Expired {
  readonly id: CheckpointId;
  readonly reason: Limit;
}

interface Limits {
  last: number | undefined;
  ageMs: number | undefined;
  lineageBytes: number | undefined;
  bytes: number | undefined;
}

/** "shop/web-*:last=3:age=24h:lineage-bytes=1G:bytes=10G": at least one limit. Throws CONFIG_INVALID. */
export function parseRule(text: string): RetentionRule {
  const [selector = '', ...limits] = text.split(':').map((part) => part.trim());
  return { selector: parseSelector(selector), ...parseLimits('retention.rules', text, limits, ['last', 'age', 'lineage-bytes', 'bytes']) };
}

/** "team-*:last=100:age=720h:bytes=50G": at least one limit. Throws CONFIG_INVALID. */
export function parseNamespaceRule(text: string): NamespaceRule {
  const [namespaces = '', ...limits] = text.split(':').map((part) => part.trim());
  const { last, ageMs, bytes } = parseLimits('retention.namespaces', text, limits, ['last', 'age', 'bytes']);
  return { namespaces: parseNamespaces(namespaces), last, ageMs, bytes };
}

function parseLimits(key: string, text: string, limits: readonly string[], allowed: readonly string[]): Limits {
  const wrong = (why: string): StasisError =>
    new StasisError('CONFIG_INVALID', `${key}: ${JSON.stringify(text)}: ${why}`, { hint: `write ${key === 'retention.rules' ? 'SELECTOR' : 'NAMESPACE'}:last=3:age=24h:bytes=10G with at least one of ${allowed.join(', ')}` });
  const found: Limits = { last: undefined, ageMs: undefined, lineageBytes: undefined, bytes: undefined };
  if (limits.length === 0) throw wrong('there is no limit');
  for (const limit of limits) {
    const [, name = '', value = ''] = /^([a-z-]+)=(.+)$/.exec(limit) ?? [];
    try {
      if (!allowed.includes(name) || (name === 'last' && !/^[1-9]\d{0,8}$/.test(value))) throw wrong(`${JSON.stringify(limit)} is not a limit`);
      if (name === 'last') found.last = Number(value);
      else if (name === 'age') found.ageMs = parseDuration(value);
      else if (name === 'bytes') found.bytes = parseBytes(value);
      else found.lineageBytes = parseBytes(value);
    } catch (error) {
      throw error instanceof StasisError && error.code === 'CONFIG_INVALID' ? error : wrong((error as Error).message);
    }
  }
  return found;
}

/**
 * The first rule whose selector fits is the one for a checkpoint; then come the limits of its namespace. Pinned ones never go;
 * they do not count for `last`, but their bytes count. The newest of each lineage always stays, so a clock that jumps costs old
 * checkpoints at most, never all. `sizes`: of packs, by number; one that several checkpoints need counts once, and is only
 * freed with the last of them.
 */
export function expired(items: readonly RetentionItem[], { rules, namespaces }: RetentionPolicy, sizes: readonly number[], nowMs: number): Expired[] {
  const choice = new Choice(items, sizes, nowMs);
  const groups = Map.groupBy(items, (item) => rules.find(({ selector }) => selector === undefined || matchesSelector(selector, item)));
  for (const [rule, group] of groups) {
    if (rule === undefined) continue;
    for (const lineage of Map.groupBy(group, (item) => item.lineage).values()) {
      choice.count(lineage, rule.last, 'last');
      choice.old(lineage, rule.ageMs, 'age');
      choice.shrink(lineage, rule.lineageBytes, 'lineage-bytes');
    }
    choice.shrink(group, rule.bytes, 'bytes');
  }
  for (const [namespace, group] of Map.groupBy(items, (item) => item.namespace)) {
    const rule = namespaces.find((one) => one.namespaces.test(namespace));
    if (rule === undefined) continue;
    choice.count(group, rule.last, 'namespace-last');
    choice.old(group, rule.ageMs, 'namespace-age');
    choice.shrink(group, rule.bytes, 'namespace-bytes');
  }
  return [...choice.gone.values()];
}

class Choice {
  readonly gone = new Map<CheckpointId, Expired>();
  readonly #sizes: readonly number[];
  readonly #nowMs: number;
  /** The newest of each lineage. */
  readonly #newest = new Set<CheckpointId>();

  constructor(items: readonly RetentionItem[], sizes: readonly number[], nowMs: number) {
    this.#sizes = sizes;
    this.#nowMs = nowMs;
    for (const lineage of Map.groupBy(items, (item) => item.lineage).values()) {
      const [first] = lineage.sort(youngerFirst);
      if (first !== undefined) this.#newest.add(first.id);
    }
  }

  #left(group: readonly RetentionItem[]): RetentionItem[] {
    return group.filter(({ id }) => !this.gone.has(id)).sort(youngerFirst);
  }

  count(group: readonly RetentionItem[], last: number | undefined, reason: Limit): void {
    if (last === undefined) return;
    const free = this.#left(group).filter(({ pinned }) => !pinned);
    for (const item of free.slice(last)) this.#drop(item, reason);
  }

  old(group: readonly RetentionItem[], ageMs: number | undefined, reason: Limit): void {
    if (ageMs === undefined) return;
    for (const item of this.#left(group)) if (this.#nowMs - item.createdMs > ageMs) this.#drop(item, reason);
  }

  shrink(group: readonly RetentionItem[], most: number | undefined, reason: Limit): void {
    if (most === undefined) return;
    const left = this.#left(group);
    const users = new Map<number, number>();
    for (const item of left) for (const pack of item.packs) users.set(pack, (users.get(pack) ?? 0) + 1);
    let bytes = 0;
    for (const pack of users.keys()) bytes += this.#sizes[pack] ?? 0;
    for (const item of left.reverse()) {
      if (bytes <= most) return;
      if (!this.#drop(item, reason)) continue;
      for (const pack of item.packs) {
        const others = (users.get(pack) ?? 1) - 1;
        users.set(pack, others);
        if (others === 0) bytes -= this.#sizes[pack] ?? 0;
      }
    }
  }

  #drop({ id, pinned }: RetentionItem, reason: Limit): boolean {
    if (pinned || this.#newest.has(id)) return false;
    this.gone.set(id, { id, reason });
    return true;
  }
}

function youngerFirst(a: RetentionItem, b: RetentionItem): number {
  return b.createdMs - a.createdMs || (a.id < b.id ? 1 : a.id > b.id ? -1 : 0);
}
