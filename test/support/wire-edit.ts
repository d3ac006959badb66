/** CRIU's images taken apart into fields and put together again, with whatever was changed in between. */
import { readFileSync, writeFileSync } from 'node:fs';

/** Numbers as they stand in the message, or the bytes of a field that has a length. */
export type Field = [number: number, value: bigint | Buffer];

export function decode(message: Buffer): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): bigint => {
    let [value, shift] = [0n, 0n];
    for (;;) {
      const byte = message[at++];
      if (byte === undefined) throw new Error('cut off');
      value |= BigInt(byte & 127) << shift;
      shift += 7n;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const tag = Number(varint());
    if (tag % 8 === 0) fields.push([tag >>> 3, varint()]);
    else if (tag % 8 === 2) {
      const length = Number(varint());
      fields.push([tag >>> 3, message.subarray(at, (at += length))]);
    } else throw new Error(`wire type ${tag % 8}`);
  }
  return fields;
}

export function encode(fields: readonly Field[]): Buffer {
  return Buffer.concat(fields.flatMap(([number, value]) => (Buffer.isBuffer(value) ? [varint(BigInt(number * 8 + 2)), varint(BigInt(value.length)), value] : [varint(BigInt(number * 8)), varint(value)])));
}

function varint(value: bigint): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  return Buffer.from([...bytes, Number(rest)]);
}

export const text = (value: string): Buffer => Buffer.from(value);

/** Replaces the values of a field, or appends it; undefined removes it. */
export function set(fields: Field[], number: number, ...values: readonly (bigint | Buffer)[]): void {
  const at = fields.findIndex(([found]) => found === number);
  const rest = fields.filter(([found]) => found !== number);
  rest.splice(at < 0 ? rest.length : at, 0, ...values.map((value): Field => [number, value]));
  fields.splice(0, fields.length, ...rest);
}

/** Changes a message inside a message. */
export function within(fields: Field[], number: number, change: (inner: Field[]) => void): void {
  const found = fields.find(([field]) => field === number);
  const inner = found === undefined ? [] : decode(found[1] as Buffer);
  change(inner);
  set(fields, number, encode(inner));
}

/** Changes the messages of an image file. */
export function editImage(path: string, change: (messages: Field[][]) => void): void {
  const bytes = readFileSync(path);
  const head = path.endsWith('inventory.img') ? 4 : 8;
  const messages: Field[][] = [];
  for (let at = head; at < bytes.length; ) {
    const length = bytes.readUInt32LE(at);
    messages.push(decode(bytes.subarray(at + 4, at + 4 + length)));
    at += 4 + length;
  }
  change(messages);
  writeFileSync(path, makeImage(bytes.subarray(0, head), ...messages));
}

export function makeImage(head: Buffer, ...messages: readonly (readonly Field[])[]): Buffer {
  return Buffer.concat([head, ...messages.flatMap((fields) => {
    const message = encode(fields);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(message.length);
    return [length, message];
  })]);
}
