/** The keys that all work of one lineage comes from. */
import { createHmac } from 'node:crypto';
import type { LineageId } from '../../core/ids.ts';
import type { Sodium } from './port.ts';

export interface LineageKeys {
  readonly lineage: LineageId;
  readonly idKey: Uint8Array;
  readonly chunkKey: Uint8Array;
  readonly manifestKey: Uint8Array;
  /** For the digests of pages. */
  readonly pageKey: Uint8Array;
  /** Not a secret: written beside the wrapped key, to tell a wrong key from a damaged object. */
  readonly check: Uint8Array;
}

export function deriveLineageKeys(sodium: Sodium, lineage: LineageId, dataKey: Uint8Array): LineageKeys {
  return {
    lineage,
    idKey: sodium.subkey(dataKey, 1),
    chunkKey: sodium.subkey(dataKey, 2),
    manifestKey: sodium.subkey(dataKey, 3),
    pageKey: sodium.subkey(dataKey, 5),
    check: sodium.subkey(dataKey, 4),
  };
}

export function chunkId(idKey: Uint8Array, data: Uint8Array): Buffer {
  return createHmac('sha256', idKey).update(data).digest();
}
