/** What the golden repositories hold, made anew from numbers so that it need not be stored twice. */

/** Bytes that do not compress, the same on every machine. */
export function noise(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed >>> 0 || 1;
  for (let i = 0; i < length; i += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[i] = state & 0xff;
  }
  return bytes;
}

export function memoryOf(generation: number): Buffer {
  return Buffer.concat([noise(1, 4096), Buffer.alloc(8192), noise(10 + generation, 100), Buffer.alloc(3996, 'golden '), Buffer.alloc(4096), noise(3, 1000)]);
}

export const smallBlobs: Readonly<Record<string, Buffer>> = {
  'inventory.img': Buffer.from('what an inventory would say'),
  'empty.img': Buffer.alloc(0),
  'größe/名前.img': noise(7, 300),
};

/** Length of the hole after the memory. */
export const HOLE = 5_000_000_000;
