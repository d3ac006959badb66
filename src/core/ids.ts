/** Branded identifiers and their parsers. Ids that come from outside pass a parser first. */
import { randomBytes } from 'node:crypto';
import { StasisError } from './errors.ts';

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

/** 20 characters of Crockford base 32: 48 bits of milliseconds, then 52 random bits. Sorts by time. */
export type CheckpointId = Branded<'CheckpointId'>;
/** 32 hexadecimal digits, random. */
export type LineageId = Branded<'LineageId'>;
/** 1 to 64 characters [A-Za-z0-9_.-]; a client may choose its own to make a request repeatable. */
export type OperationId = Branded<'OperationId'>;
/** A container id as runc and crun accept it: [A-Za-z0-9_+.-], 1 to 255 characters, not "." or "..". */
export type ContainerId = Branded<'ContainerId'>;

const alphabet = '0123456789abcdefghjkmnpqrstvwxyz';

export function newCheckpointId(nowMs: number): CheckpointId {
  const random = randomBytes(7);
  let value = (BigInt(nowMs) << 52n) | (BigInt(`0x${random.toString('hex')}`) & ((1n << 52n) - 1n));
  let text = '';
  for (let i = 0; i < 20; i++) {
    text = alphabet.charAt(Number(value & 31n)) + text;
    value >>= 5n;
  }
  return text as CheckpointId;
}

export function newLineageId(): LineageId {
  return randomBytes(16).toString('hex') as LineageId;
}

export function newOperationId(): OperationId {
  return randomBytes(10).toString('hex') as OperationId;
}

function parser<T extends string>(name: string, pattern: RegExp, expected: string): (text: string) => T {
  return (text) => {
    if (!pattern.test(text)) {
      throw new StasisError('USAGE', `${JSON.stringify(text.slice(0, 80))} is not a valid ${name}`, { hint: `expected ${expected}` });
    }
    return text as T;
  };
}

export const parseCheckpointId = parser<CheckpointId>('checkpoint id', /^[0-9a-hjkmnp-tv-z]{20}$/, '20 characters as printed by stasis list');
export const parseLineageId = parser<LineageId>('lineage id', /^[0-9a-f]{32}$/, '32 hexadecimal digits');
export const parseOperationId = parser<OperationId>('operation id', /^(?!\.)[A-Za-z0-9_.-]{1,64}$/, '1 to 64 letters, digits, "_", "." or "-", not beginning with "."');
export const parseContainerId = parser<ContainerId>('container id', /^(?!\.{1,2}$)[A-Za-z0-9_+.-]{1,255}$/, '1 to 255 letters, digits, "_", "+", "." or "-"');
