/**
 * HChaCha20 (draft-irtf-cfrg-xchacha-03, 2.2): the subkey that turns ChaCha20 into XChaCha20. Twenty rounds over
 * sixteen words, no tables and no branches on secrets; run once a chunk. Neither binding of libsodium exposes it.
 */
const CONSTANTS = [0x61707865, 0x3320646e, 0x79622d32, 0x6b206574] as const;

/** Words of each quarter round: four columns, then four diagonals. */
const ROUNDS = [
  [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
  [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14],
] as const;

/** `input`: the first 16 bytes of the 24-byte nonce. Returns 32 bytes. */
export function hchacha20(key: Uint8Array, input: Uint8Array): Buffer {
  const words = new DataView(new ArrayBuffer(64));
  CONSTANTS.forEach((word, i) => words.setUint32(i * 4, word, true));
  new Uint8Array(words.buffer).set(key, 16);
  new Uint8Array(words.buffer).set(input, 48);
  const state = Uint32Array.from({ length: 16 }, (_, i) => words.getUint32(i * 4, true));
  for (let double = 0; double < 10; double += 1) {
    for (const [a, b, c, d] of ROUNDS) quarterRound(state, a, b, c, d);
  }
  const subkey = Buffer.alloc(32);
  for (let i = 0; i < 4; i += 1) {
    subkey.writeUInt32LE(state[i] ?? 0, i * 4);
    subkey.writeUInt32LE(state[i + 12] ?? 0, i * 4 + 16);
  }
  return subkey;
}

function quarterRound(state: Uint32Array, a: number, b: number, c: number, d: number): void {
  step(state, a, b, d, 16);
  step(state, c, d, b, 12);
  step(state, a, b, d, 8);
  step(state, c, d, b, 7);
}

/** x += y; z = (z ^ x) <<< bits. */
function step(state: Uint32Array, x: number, y: number, z: number, bits: number): void {
  const sum = ((state[x] ?? 0) + (state[y] ?? 0)) >>> 0;
  const mixed = (state[z] ?? 0) ^ sum;
  state[x] = sum;
  state[z] = (mixed << bits) | (mixed >>> (32 - bits));
}
