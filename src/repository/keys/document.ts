/** The secrets of a node as text: JSON with an X25519 secret, an Ed25519 seed and a checksum. docs/FORMAT.md, "Key file". */
import { createHash, randomBytes } from 'node:crypto';
import type { LineageId } from '../../core/ids.ts';
import { StasisError } from '../../core/errors.ts';
import type { Sodium } from '../crypto/port.ts';
import type { NodeKeys, WrappedKey } from './port.ts';

export interface Secrets {
  readonly box: Buffer;
  readonly seed: Buffer;
}

const KIND = 'key file 1';
export const MAX_DOCUMENT_BYTES = 4096;

export function newSecrets(): Secrets {
  return { box: randomBytes(32), seed: randomBytes(32) };
}

export function encodeSecrets(secrets: Secrets): string {
  return `${JSON.stringify({ stasis: KIND, x25519: secrets.box.toString('base64'), ed25519: secrets.seed.toString('base64'), check: checksum(secrets) }, null, 1)}\n`;
}

/** `where`: what to call it in messages, which never hold any of it. Throws KEY_WRONG. */
export function parseSecrets(where: string, text: string): Secrets {
  let fields: Record<string, unknown>;
  try {
    fields = JSON.parse(text) as Record<string, unknown>;
  } catch {
    // The parser's own message would quote the secret.
    throw damaged(where, 'it is not JSON');
  }
  if (!isKeyDocument(fields)) throw damaged(where, 'it does not begin as a key file of version 1');
  const [box, seed] = [fields['x25519'], fields['ed25519']].map((value) => Buffer.from(typeof value === 'string' ? value : '', 'base64'));
  if (box?.length !== 32 || seed?.length !== 32) throw damaged(where, 'a key is not 32 bytes');
  if (fields['check'] !== checksum({ box, seed })) throw damaged(where, 'its checksum does not fit');
  return { box, seed };
}

export function isKeyDocument(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && (value as Record<string, unknown>)['stasis'] === KIND;
}

export function damaged(where: string, why: string): StasisError {
  return new StasisError('KEY_WRONG', `${where} is not a usable key file: ${why}`, { hint: 'put the right file back from your copy; without it the checkpoints made with it cannot be read' });
}

/** Notices a torn or edited file. Its own domain, so that it says nothing about the keys elsewhere. */
function checksum({ box, seed }: Secrets): string {
  return createHash('sha256').update('stasis key file 1').update(box).update(seed).digest('hex').slice(0, 16);
}

/** The public halves, hexadecimal: what others put into keys.recipients and keys.trustedSigners. */
export interface PublicKeys {
  readonly recipient: string;
  readonly signer: string;
}

export function publicKeys(sodium: Sodium, { box, seed }: Secrets): PublicKeys {
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
  return { recipient: hex(sodium.boxPair(box).publicKey), signer: hex(sodium.signPair(seed).publicKey) };
}

/** Keys out of secrets in memory; the first signs and is wrapped to, all of them open. */
export function keysOfSecrets(sodium: Sodium, description: string, secrets: readonly [Secrets, ...Secrets[]]): NodeKeys {
  const boxes = secrets.map(({ box }) => sodium.boxPair(box));
  const [signing, ...former] = secrets.map(({ seed }) => sodium.signPair(seed));
  if (signing === undefined || boxes[0] === undefined) throw damaged(description, 'it is empty');
  return {
    description,
    signer: signing.publicKey,
    formerSigners: former.map(({ publicKey }) => publicKey),
    recipients: [boxes[0].publicKey],
    own: boxes.map(({ publicKey }) => publicKey),
    sign: (message) => Promise.resolve(sodium.sign(message, signing.secretKey)),
    unwrap: (recipients: readonly WrappedKey[], lineage: LineageId) => {
      const mine = boxes.flatMap((box) => recipients.filter(({ recipient }) => Buffer.compare(recipient, box.publicKey) === 0).map((wrapped) => ({ box, wrapped })))[0];
      if (mine === undefined) return Promise.resolve(undefined);
      const dataKey = sodium.boxSealOpen(mine.wrapped.sealed, mine.box);
      if (dataKey !== undefined) return Promise.resolve(dataKey);
      return Promise.reject(new StasisError('KEY_WRONG', `the key of lineage ${lineage} is wrapped to this node but does not open with ${description}`));
    },
  };
}
