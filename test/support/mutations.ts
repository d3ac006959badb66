/** Good bytes made bad: seeded, so that a run can be repeated. */

export type Random = (below: number) => number;

/** mulberry32: small, good enough, the same everywhere. */
export function generator(seed: number): Random {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

/** Values at which parsers stumble, as bytes. */
const edges = ['00', 'ff', '7f', '80', 'ffff', '0000', 'ffffffff', '00000080', 'ffffff7f', 'ffffffffffffffff', '0000000000000080', 'ffffffffffffffff01', '8080808080808000', 'ffffffffffffff0f', '5b', '7b7d', '6e756c6c', '2d31', '3165343030']
  .map((hex) => Buffer.from(hex, 'hex'));

type Change = (bytes: Buffer, random: Random, others: readonly Buffer[]) => Buffer;

const at = (bytes: Buffer, random: Random): number => random(bytes.length + 1);
const join = (bytes: Buffer, from: number, to: number, middle: Buffer): Buffer => Buffer.concat([bytes.subarray(0, from), middle, bytes.subarray(Math.min(to, bytes.length))]);

const changes: readonly Change[] = [
  (bytes, random) => { const copy = Buffer.from(bytes); const place = random(copy.length || 1); if (copy.length > 0) copy[place] = (copy[place] ?? 0) ^ (1 << random(8)); return copy; },
  (bytes, random) => { const place = at(bytes, random); return join(bytes, place, place + 1, Buffer.from([random(256)])); },
  (bytes, random) => { const edge = edges[random(edges.length)] ?? Buffer.alloc(1); const place = at(bytes, random); return join(bytes, place, place + edge.length, edge); },
  (bytes, random) => { const edge = edges[random(edges.length)] ?? Buffer.alloc(1); const place = at(bytes, random); return join(bytes, place, place, edge); },
  (bytes, random) => bytes.subarray(0, at(bytes, random)),
  (bytes, random) => { const place = at(bytes, random); return join(bytes, place, place + random(9), Buffer.alloc(0)); },
  (bytes, random) => { const [from, length] = [at(bytes, random), random(40)]; return join(bytes, from, from, bytes.subarray(from, from + length)); },
  (bytes, random) => { const [from, to] = [at(bytes, random), at(bytes, random)]; return join(bytes, from, from + 8, bytes.subarray(to, to + 8)); },
  (bytes, random, others) => { const other = others[random(others.length)] ?? bytes; return Buffer.concat([bytes.subarray(0, at(bytes, random)), other.subarray(at(other, random))]); },
  (bytes, random) => Buffer.concat([bytes, Buffer.alloc(random(64), random(256))]),
];

/** One to four changes of one of the good inputs. */
export function mutated(good: readonly Buffer[], random: Random): Buffer {
  let bytes = good[random(good.length)] ?? Buffer.alloc(0);
  for (let count = 1 + random(4); count > 0; count -= 1) bytes = changes[random(changes.length)]?.(bytes, random, good) ?? bytes;
  return Buffer.from(bytes);
}
