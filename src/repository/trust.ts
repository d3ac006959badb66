/** Whose signatures count. */
import { StasisError } from '../core/errors.ts';
import type { Sodium } from './crypto/port.ts';

export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

export class Trust {
  readonly #sodium: Sodium;
  readonly #signers: ReadonlySet<string>;

  /** Hexadecimal Ed25519 public keys: the node's own and those that the administrator lists. */
  constructor(sodium: Sodium, signers: readonly string[]) {
    this.#sodium = sodium;
    this.#signers = new Set(signers.map((signer) => signer.toLowerCase()));
  }

  check(object: string, signer: Uint8Array, signed: Uint8Array, signature: Uint8Array): void {
    if (!this.#sodium.verify(signature, signed, signer)) {
      throw new StasisError('SIGNATURE_INVALID', `${object} does not carry a valid signature: it was changed after it was signed`, {
        hint: 'the object is damaged or forged; restore it from a copy',
        details: { object },
      });
    }
    if (!this.#signers.has(hex(signer))) {
      throw new StasisError('SIGNER_UNTRUSTED', `${object} is signed by ${hex(signer)}, which this node does not trust`, {
        hint: 'if that is another node of yours, add its public key to the trusted signers',
        details: { object, signer: hex(signer) },
      });
    }
  }
}
