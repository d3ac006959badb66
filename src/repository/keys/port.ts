/** Where a node's own keys are: in a file, in a folder of files, behind a command. */
import type { LineageId } from '../../core/ids.ts';

export interface KeyProvider {
  /** For messages: "key file /var/lib/stasis/key". Never a secret. */
  readonly description: string;
  /** The keys as they are now. They may be others a moment later: whoever does two things with one key asks once. */
  keys(): Promise<NodeKeys>;
}

/** The keys of a node at one moment. */
export interface NodeKeys {
  readonly description: string;
  /** Ed25519 public key that signs. */
  readonly signer: Uint8Array;
  /** Ed25519 public keys that signed before it and are still at hand: what they signed counts like our own. */
  readonly formerSigners: readonly Uint8Array[];
  /** X25519 public keys that data keys are wrapped to. Need not include one that this node can open. */
  readonly recipients: readonly Uint8Array[];
  /** X25519 public keys that this node can open, the current one first. */
  readonly own: readonly Uint8Array[];
  sign(message: Uint8Array): Promise<Uint8Array>;
  /** The data key of a lineage, or undefined when no recipient is ours. Throws KEY_WRONG when one is ours but does not open, KEY_UNAVAILABLE. */
  unwrap(recipients: readonly WrappedKey[], lineage: LineageId): Promise<Uint8Array | undefined>;
}

export interface WrappedKey {
  readonly recipient: Uint8Array;
  /** crypto_box_seal of the data key. */
  readonly sealed: Uint8Array;
}

/** Keys that never change. */
export function fixedKeys<T extends NodeKeys>(keys: T): T & KeyProvider {
  return {
    ...keys,
    keys() {
      return Promise.resolve(this);
    },
  };
}
