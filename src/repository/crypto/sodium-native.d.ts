/** The part of sodium-native that is used here; the package ships no types. */
declare module 'sodium-native' {
  interface SodiumNative {
    crypto_aead_xchacha20poly1305_ietf_encrypt(c: Uint8Array, m: Uint8Array, ad: Uint8Array, nsec: null, npub: Uint8Array, k: Uint8Array): number;
    crypto_aead_xchacha20poly1305_ietf_decrypt(m: Uint8Array, nsec: null, c: Uint8Array, ad: Uint8Array, npub: Uint8Array, k: Uint8Array): number;
    crypto_kdf_derive_from_key(subkey: Uint8Array, id: number, context: Uint8Array, key: Uint8Array): void;
    crypto_box_keypair(pk: Uint8Array, sk: Uint8Array): void;
    crypto_scalarmult_base(pk: Uint8Array, sk: Uint8Array): void;
    crypto_box_seal(c: Uint8Array, m: Uint8Array, pk: Uint8Array): void;
    crypto_box_seal_open(m: Uint8Array, c: Uint8Array, pk: Uint8Array, sk: Uint8Array): boolean;
    crypto_sign_seed_keypair(pk: Uint8Array, sk: Uint8Array, seed: Uint8Array): void;
    crypto_sign_detached(sig: Uint8Array, m: Uint8Array, sk: Uint8Array): void;
    crypto_sign_verify_detached(sig: Uint8Array, m: Uint8Array, pk: Uint8Array): boolean;
  }
  const sodium: SodiumNative;
  export default sodium;
}
