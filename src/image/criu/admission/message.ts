/**
 * Messages of CRIU's images, read strictly by a table of what may be in them. A field that no table names, of another
 * type, twice, or left out where CRIU wants it, ends in OBJECT_CORRUPT: what is judged must be what CRIU will read.
 */
import { StasisError } from '../../../core/errors.ts';
import { WireReader } from '../wire.ts';

export type Value = number | bigint | boolean | string | Uint8Array | Message;

/** How CRIU's protobuf definitions name them: sint is zigzag-coded, text has no NUL byte. */
const scalars = {
  u32: (reader: WireReader): Value => reader.uint32(),
  u64: (reader: WireReader): Value => reader.uint64(),
  i32: (reader: WireReader): Value => reader.int(),
  i64: (reader: WireReader): Value => reader.int64(),
  s32: (reader: WireReader): Value => zigzag(reader.uint32()),
  s64: (reader: WireReader): Value => reader.zigzag64(),
  f64: (reader: WireReader): Value => reader.fixed64(),
  bool: (reader: WireReader): Value => reader.bit(),
  bytes: (reader: WireReader): Value => reader.bytes(),
  text: (reader: WireReader, what: string): Value => cText(reader.bytes(), what),
} as const;

export type ScalarType = keyof typeof scalars;

export interface FieldRule {
  readonly number: number;
  readonly name: string;
  /** A scalar, or the name of a message. */
  readonly type: string;
  readonly required: boolean;
  readonly repeated: boolean;
  /** Why every value of it is taken; undefined for what a rule looks at. */
  readonly free: string | undefined;
}

export type MessageRule = ReadonlyMap<number, FieldRule>;

/** "1 id u32!, 5 wd watch*": number, name, type; "!" must be there, "*" any number of times. `free`: reason → names. */
export interface TableSource {
  readonly fields: string;
  readonly free?: Readonly<Record<string, string>>;
}

/** Deeper than anything CRIU writes: cgroups within cgroups. */
const MAX_DEPTH = 40;

export class Tables {
  readonly #rules = new Map<string, MessageRule>();

  constructor(sources: Readonly<Record<string, TableSource>>) {
    for (const [name, source] of Object.entries(sources)) this.#rules.set(name, parse(name, source));
    for (const rule of this.#rules.values()) for (const { type } of rule.values()) if (!(type in scalars) && !this.#rules.has(type)) throw new StasisError('INTERNAL', `no table for ${type}`);
  }

  rule(name: string): MessageRule {
    const rule = this.#rules.get(name);
    if (rule === undefined) throw new StasisError('INTERNAL', `no table for ${name}`);
    return rule;
  }

  has(name: string): boolean {
    return this.#rules.has(name);
  }

  get names(): string[] {
    return [...this.#rules.keys()];
  }

  /** `what`: the image, for errors. `complete`: fields that CRIU wants must be there. Throws OBJECT_CORRUPT. */
  read(name: string, bytes: Uint8Array, what: string, complete = true, depth = 0): Message {
    if (depth > MAX_DEPTH) throw corrupt(what, `is nested more than ${MAX_DEPTH} levels deep`);
    const rule = this.rule(name);
    const values = new Map<string, Value[]>();
    const reader = new WireReader(bytes, `${what} (${name})`);
    while (reader.next()) {
      const field = rule.get(reader.field);
      if (field === undefined) throw corrupt(what, `has field ${reader.field} in ${name}, which no container needs`);
      const there = values.get(field.name);
      if (there !== undefined && !field.repeated) throw corrupt(what, `has field ${reader.field} twice (${field.name} of ${name})`);
      const scalar = scalars[field.type as ScalarType] as ((reader: WireReader, what: string) => Value) | undefined;
      const value = scalar === undefined ? this.read(field.type, reader.bytes(), what, complete, depth + 1) : scalar(reader, what);
      if (there === undefined) values.set(field.name, [value]);
      else there.push(value);
    }
    for (const { name: wanted, required } of rule.values()) if (complete && required && !values.has(wanted)) throw corrupt(what, `has no ${wanted} in ${name}`);
    return new Message(name, rule, values);
  }
}

/** One message. Asking for a field that its table does not have is a mistake in the program, and throws. */
export class Message {
  readonly name: string;
  readonly #rule: MessageRule;
  readonly #values: ReadonlyMap<string, readonly Value[]>;

  constructor(name: string, rule: MessageRule, values: ReadonlyMap<string, readonly Value[]>) {
    this.name = name;
    this.#rule = rule;
    this.#values = values;
  }

  has(field: string): boolean {
    return this.all(field).length > 0;
  }

  all(field: string): readonly Value[] {
    const values = this.#values.get(field);
    if (values !== undefined) return values;
    for (const { name } of this.#rule.values()) if (name === field) return [];
    throw new StasisError('INTERNAL', `${this.name} has no field ${field}`);
  }

  /** 0 when it is not there, as CRIU takes it. */
  number(field: string): number {
    return (this.all(field)[0] ?? 0) as number;
  }

  big(field: string): bigint {
    return (this.all(field)[0] ?? 0n) as bigint;
  }

  flag(field: string): boolean {
    return (this.all(field)[0] ?? false) as boolean;
  }

  text(field: string): string {
    return (this.all(field)[0] ?? '') as string;
  }

  bytes(field: string): Uint8Array {
    return (this.all(field)[0] ?? new Uint8Array(0)) as Uint8Array;
  }

  message(field: string): Message | undefined {
    return this.all(field)[0] as Message | undefined;
  }

  messages(field: string): readonly Message[] {
    return this.all(field) as readonly Message[];
  }

  numbers(field: string): readonly number[] {
    return this.all(field) as readonly number[];
  }
}

function parse(message: string, { fields, free = {} }: TableSource): MessageRule {
  const reasons = new Map(Object.entries(free).flatMap(([reason, names]) => names.split(/\s+/).map((name) => [name, reason] as const)));
  const rule = new Map<number, FieldRule>();
  for (const text of fields.split(',')) {
    const [, number = '', name = '', type = '', mark = ''] = /^\s*(\d+) (\w+) (\w+)([!*]?)\s*$/.exec(text) ?? [];
    if (name === '') throw new StasisError('INTERNAL', `the table of ${message} cannot be read at ${text}`);
    rule.set(Number(number), { number: Number(number), name, type, required: mark === '!', repeated: mark === '*', free: reasons.get(name) });
    reasons.delete(name);
  }
  if (reasons.size > 0) throw new StasisError('INTERNAL', `the table of ${message} has no field ${[...reasons.keys()].join(', ')}`);
  return rule;
}

function zigzag(value: number): number {
  return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
}

/** Byte for byte as Latin-1; CRIU would read it up to a NUL. */
function cText(bytes: Uint8Array, what: string): string {
  if (bytes.includes(0)) throw corrupt(what, 'has a NUL byte in a text');
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
}

export function corrupt(what: string, problem: string): StasisError {
  return new StasisError('OBJECT_CORRUPT', `${what} ${problem}`);
}
