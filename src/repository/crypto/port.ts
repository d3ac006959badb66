/**
 * The primitives, from libsodium. `native` is the bulk path, `portable` (WebAssembly) runs anywhere;
 * both are the same library and give the same bytes, test/repository/crypto.test.ts holds them to it.
 */
export const NONCE_BYTES = 24;
export const TAG_BYTES = 16;
export const KEY_BYTES = 32;
export const SIGNATURE_BYTES = 64;
/** crypto_box_seal of a 32-byte key. */
export const SEALED_KEY_BYTES = 80;

export interface KeyPair {
  readonly publicKey: Uint8Array;
  readonly secretKey: Uint8Array;
}

export interface Sodium {
  readonly name: 'bulk' | 'sodium-native' | 'libsodium-wrappers';
  /** XChaCha20-Poly1305: writes nonce, ciphertext and tag to `out`, which is 40 bytes longer than `message`. */
  seal(out: Uint8Array, nonce: Uint8Array, message: Uint8Array, associated: Uint8Array, key: Uint8Array): void;
  /** False, and `out` (40 bytes shorter than `sealed`) without meaning, when a byte or the key is wrong. */
  open(out: Uint8Array, sealed: Uint8Array, associated: Uint8Array, key: Uint8Array): boolean;
  /** crypto_kdf_derive_from_key with the context "stasis-1", 32 bytes. */
  subkey(key: Uint8Array, id: number): Buffer;
  /** X25519 pair of a secret; random when absent. */
  boxPair(secretKey?: Uint8Array): KeyPair;
  boxSeal(message: Uint8Array, publicKey: Uint8Array): Buffer;
  boxSealOpen(sealed: Uint8Array, pair: KeyPair): Buffer | undefined;
  /** Ed25519 pair of a 32-byte seed. */
  signPair(seed: Uint8Array): KeyPair;
  sign(message: Uint8Array, secretKey: Uint8Array): Buffer;
  verify(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean;
}
