/** What the main thread and the stage workers say to each other. */
import type { ErrorCode } from '../../core/errors.ts';
import { asStasisError, StasisError } from '../../core/errors.ts';
import type { LineageId, CheckpointId } from '../../core/ids.ts';
import type { CipherId } from '../format/algorithms.ts';
import type { SharedIndex } from './chunk-index.ts';
import type { SharedPages } from './page-table.ts';
import type { FileList } from './file-list.ts';
import type { SodiumChoice } from '../crypto/sodium.ts';

export interface WorkerSettings {
  readonly sodium: SodiumChoice;
  readonly packBytes: number;
}

/** What is needed to seal or open the chunks of a lineage. */
export interface ChunkSecrets {
  readonly lineage: LineageId;
  readonly cipher: CipherId;
  readonly idKey: Uint8Array;
  readonly chunkKey: Uint8Array;
  readonly pageKey: Uint8Array;
}

export type WireSource =
  | { readonly kind: 'fd'; readonly fd: number; readonly offset: number; readonly length: number }
  | { readonly kind: 'memory'; readonly buffer: SharedArrayBuffer; readonly offset: number; readonly length: number }
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array<ArrayBuffer>; readonly length: number }
  | { readonly kind: 'files'; readonly root: number; readonly list: FileList; readonly length: number };

export interface WirePiece {
  readonly source: WireSource;
  readonly zeroPages: boolean;
}

export interface SealedPiece {
  readonly length: number;
  /** -1 when all of it is zero. */
  readonly chunk: number;
  /** Bytes of data in the chunk. */
  readonly raw: number;
  /** Bytes of data that were there before. */
  readonly reused: number;
  /** Instead of `chunk` and `runs`, where the data lies in several chunks: rows of chunk (ZERO for zeros), offset in it, length. */
  readonly segments?: Uint32Array<ArrayBuffer>;
  /** See ZeroRuns; absent when all of it is data. */
  readonly runs?: readonly number[];
  /** Of a `files` source: torn, inode, size, mtime, ctime per slice. */
  readonly stats?: BigInt64Array<ArrayBuffer>;
}

export interface ShippedPack {
  readonly digits: string;
  readonly buffer: SharedArrayBuffer;
  readonly used: number;
  /** Rows of index, offset, stored, raw, codec. */
  readonly chunks: Uint32Array<ArrayBuffer>;
}

/** What chunks hold, page by page. */
export interface ChunkPages {
  /** Rows of index and number of pages. */
  readonly chunks: Uint32Array<ArrayBuffer>;
  /** One after the other, in the order of `chunks`. */
  readonly digests: Uint8Array<ArrayBuffer>;
}

export type WireSink =
  | { readonly kind: 'fd'; readonly fd: number; readonly offset: number }
  | { readonly kind: 'memory'; readonly buffer: SharedArrayBuffer; readonly offset: number }
  | { readonly kind: 'files'; readonly root: number; readonly list: FileList; /** 1: create it, it must not be there. */ readonly create: Uint8Array<ArrayBuffer> };

export interface ChunkTask {
  readonly chunk: number;
  readonly id: Uint8Array;
  /** Offset in the fetched range. */
  readonly at: number;
  readonly stored: number;
  readonly raw: number;
  readonly codec: number;
  readonly parts: readonly { readonly offset: number; readonly length: number; readonly sink: WireSink }[];
}

export type ToWorker =
  | { readonly type: 'begin'; readonly session: number; readonly secrets: ChunkSecrets; readonly checkpoint: CheckpointId; readonly index: SharedIndex; readonly pages: SharedPages | undefined }
  | { readonly type: 'seal'; readonly session: number; readonly job: number; readonly pieces: readonly WirePiece[] }
  | { readonly type: 'grant'; readonly session: number; readonly buffer: SharedArrayBuffer }
  | { readonly type: 'flush'; readonly session: number; readonly job: number }
  | { readonly type: 'ship'; readonly session: number; readonly job: number }
  | { readonly type: 'end'; readonly session: number }
  | { readonly type: 'open'; readonly job: number; readonly secrets: ChunkSecrets; readonly pack: string; readonly base: number; readonly buffer: SharedArrayBuffer; readonly verify: boolean; readonly tasks: readonly ChunkTask[] };

export interface ChunkProblem {
  readonly chunk: number;
  readonly error: WireError;
}

export type FromWorker =
  | { readonly type: 'ready' }
  | { readonly type: 'sealed'; readonly job: number; readonly pieces: readonly SealedPiece[] }
  | { readonly type: 'failed'; readonly job: number; readonly error: WireError }
  | { readonly type: 'want'; readonly session: number }
  | { readonly type: 'unused'; readonly buffer: SharedArrayBuffer }
  | { readonly type: 'pack'; readonly session: number; readonly pack: ShippedPack }
  | { readonly type: 'flushed'; readonly job: number; readonly pages: ChunkPages }
  | { readonly type: 'shipped'; readonly job: number }
  | { readonly type: 'opened'; readonly job: number; readonly buffer: SharedArrayBuffer; readonly problems: readonly ChunkProblem[] };

export interface WireError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string | undefined;
  readonly details: Readonly<Record<string, string | number | boolean>>;
}

export function toWire(error: unknown, what: string): WireError {
  const { code, message, hint, details } = asStasisError(error, what);
  return { code, message, hint, details };
}

export function fromWire(error: WireError): StasisError {
  return new StasisError(error.code, error.message, { hint: error.hint, details: error.details });
}
