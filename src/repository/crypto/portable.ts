/** libsodium through WebAssembly: a quarter of the speed, on every machine. */
import sodium from 'libsodium-wrappers';
import { NONCE_BYTES } from './port.ts';
import type { KeyPair, Sodium } from './port.ts';

function open(out: Uint8Array, sealed: Uint8Array, associated: Uint8Array, key: Uint8Array): boolean {
  let message: Uint8Array;
  try {
    message = sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(null, sealed.subarray(NONCE_BYTES), associated, sealed.subarray(0, NONCE_BYTES), key);
  } catch {
    return false;
  }
  out.set(message);
  return true;
}

function boxPair(secretKey?: Uint8Array): KeyPair {
  if (secretKey === undefined) {
    const pair = sodium.crypto_box_keypair();
    return { publicKey: pair.publicKey, secretKey: pair.privateKey };
  }
  return { publicKey: sodium.crypto_scalarmult_base(secretKey), secretKey };
}

function boxSealOpen(sealed: Uint8Array, pair: KeyPair): Buffer | undefined {
  try {
    return Buffer.from(sodium.crypto_box_seal_open(sealed, pair.publicKey, pair.secretKey));
  } catch {
    return undefined;
  }
}

export async function loadPortableSodium(): Promise<Sodium> {
  await sodium.ready;
  return {
    name: 'libsodium-wrappers',
    seal: (out, nonce, message, associated, key) => {
      out.set(nonce, 0);
      out.set(sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(message, associated, null, nonce, key), NONCE_BYTES);
    },
    open,
    subkey: (key, id) => Buffer.from(sodium.crypto_kdf_derive_from_key(32, id, 'stasis-1', key)),
    boxPair,
    boxSeal: (message, publicKey) => Buffer.from(sodium.crypto_box_seal(message, publicKey)),
    boxSealOpen,
    signPair: (seed) => {
      const pair = sodium.crypto_sign_seed_keypair(seed);
      return { publicKey: pair.publicKey, secretKey: pair.privateKey };
    },
    sign: (message, secretKey) => Buffer.from(sodium.crypto_sign_detached(message, secretKey)),
    verify: (signature, message, publicKey) => sodium.crypto_sign_verify_detached(signature, message, publicKey),
  };
}
