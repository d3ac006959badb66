/** The algorithms that an object may name, by the id that is written. Ids are never reused. */
import { StasisError } from '../../core/errors.ts';

export const ciphers = { null: 0, 'xchacha20-poly1305': 1 } as const;
export const codecs = { raw: 0, zstd: 1 } as const;
/** Added to a codec: the chunk's id is made of the digests of its pages. */
export const PAGED = 2;
export const chunkIds = { 'hmac-sha256': 1 } as const;

export const isCodec = (codec: number): boolean => codec <= (codecs.zstd | PAGED);
export const isCompressed = (codec: number): boolean => (codec & codecs.zstd) !== 0;
export const isPaged = (codec: number): boolean => (codec & PAGED) !== 0;

export type CipherName = keyof typeof ciphers;
export type CipherId = (typeof ciphers)[CipherName];

/** Nonce and tag that surround what is sealed. */
export const sealOverhead: Readonly<Record<CipherId, number>> = { 0: 0, 1: 40 };

export function cipherName(id: CipherId): CipherName {
  return id === ciphers.null ? 'null' : 'xchacha20-poly1305';
}

export function cipherByName(name: string): CipherId {
  if (!Object.hasOwn(ciphers, name)) {
    throw new StasisError('USAGE', `unknown cipher ${JSON.stringify(name)}`, { hint: `known ciphers: ${Object.keys(ciphers).join(', ')}` });
  }
  return ciphers[name as CipherName];
}

export function parseCipherId(id: number, object: string): CipherId {
  if (id !== ciphers.null && id !== ciphers['xchacha20-poly1305']) throw unsupported(object, `cipher ${id}`);
  return id;
}

export function unsupported(object: string, what: string): StasisError {
  return new StasisError('FORMAT_UNSUPPORTED', `${object} uses ${what}, which this release does not know`, {
    hint: 'a newer Stasis wrote it; upgrade this node',
    details: { object },
  });
}
