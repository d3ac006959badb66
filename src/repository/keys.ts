/** Where the node's own keys are. A file first; a Kubernetes Secret, the coordinator or a KMS later. */
export interface KeyProvider {
  /** For messages: "key file /var/lib/stasis/key". Never a secret. */
  readonly description: string;
  /** Ed25519 public key of this node. */
  readonly signer: Uint8Array;
  /** X25519 public keys that new data keys are wrapped to. Need not include one that this node can open. */
  readonly recipients: readonly Uint8Array[];
  sign(message: Uint8Array): Promise<Uint8Array>;
  /** The data key, or undefined when no recipient is ours. Throws KEY_WRONG when one is ours but does not open. */
  unwrap(recipients: readonly WrappedKey[]): Promise<Uint8Array | undefined>;
}

export interface WrappedKey {
  readonly recipient: Uint8Array;
  /** crypto_box_seal of the data key. */
  readonly sealed: Uint8Array;
}
