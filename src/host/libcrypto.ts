/**
 * ChaCha20-Poly1305 (RFC 8439) of the system's OpenSSL, straight between the caller's buffers. node:crypto answers in buffers
 * of its own: they are copied, and the collector's work on them takes as long as the cipher does.
 */
import koffi from 'koffi';

export interface Aead {
  /** Writes the ciphertext, as long as `message`, and the tag of 16 bytes. */
  seal(ciphertext: Uint8Array, tag: Uint8Array, parts: AeadParts): void;
  /** False, and what is in `message` without meaning, when a byte or the key is wrong. */
  open(message: Uint8Array, tag: Uint8Array, parts: AeadParts): boolean;
}

export interface AeadParts {
  /** What is sealed or opened. */
  readonly data: Uint8Array;
  readonly associated: Uint8Array;
  /** 32 and 12 bytes. */
  readonly key: Uint8Array;
  readonly nonce: Uint8Array;
}

const LIBRARY = 'libcrypto.so.3';
/** EVP_CTRL_AEAD_GET_TAG and EVP_CTRL_AEAD_SET_TAG of openssl/evp.h. */
const GET_TAG = 0x10;
const SET_TAG = 0x11;

/** One for each thread: the context is not shared, and lives as long as it. Undefined where there is no such library with this cipher. */
export const systemAead: Aead | undefined = load();

function load(): Aead | undefined {
  try {
    // Deep: a Node.js with an OpenSSL of its own must not lend its functions to this one.
    return bind(koffi.load(LIBRARY, { deep: true }));
  } catch {
    return undefined;
  }
}

function bind(library: ReturnType<typeof koffi.load>): Aead | undefined {
  const cipher: unknown = library.func('const void* EVP_chacha20_poly1305()')();
  const context: unknown = library.func('void* EVP_CIPHER_CTX_new()')();
  if (cipher === null || context === null) return undefined;
  const call = {
    init: library.func('int EVP_CipherInit_ex(void* context, const void* cipher, void* engine, const void* key, const void* nonce, int seals)'),
    update: library.func('int EVP_CipherUpdate(void* context, void* out, void* length, const void* data, int size)'),
    final: library.func('int EVP_CipherFinal_ex(void* context, void* out, void* length)'),
    control: library.func('int EVP_CIPHER_CTX_ctrl(void* context, int type, int size, void* data)'),
  };
  const length = new Int32Array(1);
  const rest = Buffer.alloc(32);
  const done = (answer: unknown, what: string): void => {
    if (answer !== 1) throw new Error(`OpenSSL cannot ${what}`);
  };
  const run = (out: Uint8Array, { data, associated, key, nonce }: AeadParts, seals: 0 | 1): void => {
    done(call.init(context, cipher, null, key, nonce, seals), 'take the key');
    // Nothing at all has no address.
    if (associated.length > 0) done(call.update(context, null, length, associated, associated.length), 'take the associated data');
    if (data.length > 0) done(call.update(context, out, length, data, data.length), 'take the data');
  };
  return {
    seal: (ciphertext, tag, parts) => {
      run(ciphertext, parts, 1);
      done(call.final(context, rest, length), 'finish');
      done(call.control(context, GET_TAG, tag.length, tag), 'make the tag');
    },
    open: (message, tag, parts) => {
      run(message, parts, 0);
      done(call.control(context, SET_TAG, tag.length, tag), 'take the tag');
      return call.final(context, rest, length) === 1;
    },
  };
}
