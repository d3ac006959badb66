/** libsodium through the native addon. */
import sodium from 'sodium-native';
import { KEY_BYTES, NONCE_BYTES, SEALED_KEY_BYTES, SIGNATURE_BYTES, TAG_BYTES } from './port.ts';
import type { KeyPair, Sodium } from './port.ts';

const context = Buffer.from('stasis-1');

function open(out: Uint8Array, sealed: Uint8Array, associated: Uint8Array, key: Uint8Array): boolean {
  if (sealed.length < NONCE_BYTES + TAG_BYTES) return false;
  try {
    sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(out, null, sealed.subarray(NONCE_BYTES), associated, sealed.subarray(0, NONCE_BYTES), key);
    return true;
  } catch (error) {
    // The addon has no code for this; everything else it throws is about arguments, a bug of ours.
    if (error instanceof Error && error.message === 'could not verify data') return false;
    throw error;
  }
}

function boxPair(secretKey?: Uint8Array): KeyPair {
  const pair = { publicKey: Buffer.alloc(KEY_BYTES), secretKey: Buffer.alloc(KEY_BYTES) };
  if (secretKey === undefined) {
    sodium.crypto_box_keypair(pair.publicKey, pair.secretKey);
  } else {
    pair.secretKey.set(secretKey);
    sodium.crypto_scalarmult_base(pair.publicKey, pair.secretKey);
  }
  return pair;
}

export const nativeSodium: Sodium = {
  name: 'sodium-native',
  seal: (out, nonce, message, associated, key) => {
    out.set(nonce, 0);
    sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(out.subarray(NONCE_BYTES), message, associated, null, nonce, key);
  },
  open,
  subkey: (key, id) => {
    const subkey = Buffer.alloc(KEY_BYTES);
    sodium.crypto_kdf_derive_from_key(subkey, id, context, key);
    return subkey;
  },
  boxPair,
  boxSeal: (message, publicKey) => {
    const sealed = Buffer.alloc(SEALED_KEY_BYTES - KEY_BYTES + message.length);
    sodium.crypto_box_seal(sealed, message, publicKey);
    return sealed;
  },
  boxSealOpen: (sealed, pair) => {
    const message = Buffer.alloc(Math.max(0, sealed.length - SEALED_KEY_BYTES + KEY_BYTES));
    return sodium.crypto_box_seal_open(message, sealed, pair.publicKey, pair.secretKey) ? message : undefined;
  },
  signPair: (seed) => {
    const pair = { publicKey: Buffer.alloc(32), secretKey: Buffer.alloc(64) };
    sodium.crypto_sign_seed_keypair(pair.publicKey, pair.secretKey, seed);
    return pair;
  },
  sign: (message, secretKey) => {
    const signature = Buffer.alloc(SIGNATURE_BYTES);
    sodium.crypto_sign_detached(signature, message, secretKey);
    return signature;
  },
  verify: (signature, message, publicKey) => sodium.crypto_sign_verify_detached(signature, message, publicKey),
};
