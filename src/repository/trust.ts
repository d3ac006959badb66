/** Whose signatures count. */
import { StasisError } from '../core/errors.ts';
import type { Sodium } from './crypto/port.ts';
import type { KeyProvider } from './keys/port.ts';

export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

export class Trust {
  readonly #sodium: Sodium;
  readonly #provider: KeyProvider;
  readonly #signers: ReadonlySet<string>;

  /** Beside the node's own keys: hexadecimal Ed25519 public keys that the administrator lists. */
  constructor(sodium: Sodium, provider: KeyProvider, signers: readonly string[]) {
    this.#sodium = sodium;
    this.#provider = provider;
    this.#signers = new Set(signers.map((signer) => signer.toLowerCase()));
  }

  async check(object: string, signer: Uint8Array, signed: Uint8Array, signature: Uint8Array): Promise<void> {
    if (!this.#sodium.verify(signature, signed, signer)) {
      throw new StasisError('SIGNATURE_INVALID', `${object} does not carry a valid signature: it was changed after it was signed`, {
        hint: 'the object is damaged or forged; restore it from a copy',
        details: { object },
      });
    }
    if (this.#signers.has(hex(signer))) return;
    const { signer: own, formerSigners } = await this.#provider.keys();
    if (![own, ...formerSigners].some((key) => Buffer.compare(key, signer) === 0)) {
      throw new StasisError('SIGNER_UNTRUSTED', `${object} is signed by ${hex(signer)}, which this node does not trust`, {
        hint: 'if that is another node of yours, add its public key to the trusted signers',
        details: { object, signer: hex(signer) },
      });
    }
  }
}
