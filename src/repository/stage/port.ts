/**
 * Where the bytes of a chunk come from and where they go. Sources are read and sinks are written
 * inside a stage worker (worker_threads share the descriptor table of the process, so a descriptor
 * is passed as its number and must stay open until the call resolves).
 */

/** The most that one piece, and so one chunk, may hold: a reader allocates this much for a stranger's chunk. */
export const MAX_CHUNK_BYTES = 4 * 1024 * 1024;

/** What callers should cut bulk data into: large enough for the ciphers, small enough to share the work evenly. */
export const PIECE_BYTES = 1024 * 1024;

/** One contiguous part of a file below a directory descriptor. Paths are bytes, relative, without "..". */
export interface FileSlice {
  readonly path: Uint8Array;
  readonly offset: number;
  readonly length: number;
}

export type Source =
  | { readonly kind: 'fd'; readonly fd: number; readonly offset: number; readonly length: number }
  | { readonly kind: 'memory'; readonly buffer: SharedArrayBuffer; readonly offset: number; readonly length: number }
  /**
   * Files below `root`, opened with openat2(RESOLVE_BENEATH | NO_SYMLINKS | NO_MAGICLINKS), O_NOFOLLOW, O_NONBLOCK,
   * concatenated. A file that is shorter than asked, gone, or not a regular file any more
   * is padded with zeros and reported as `torn`: the caller reads it again later.
   */
  | { readonly kind: 'files'; readonly root: number; readonly files: readonly FileSlice[] };

/** What a `files` source saw of each slice: fstat after the read, so a later stat can tell whether it changed. */
export interface SliceStat {
  readonly torn: boolean;
  readonly inode: bigint;
  readonly size: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
}

/** One piece becomes at most one chunk (none if all of it is zero). At most MAX_CHUNK_BYTES long. */
export interface Piece {
  readonly source: Source;
  /** Look for zero pages of 4096 bytes and leave them out: they become marks in the blob's map. */
  readonly zeroPages: boolean;
}

export interface PieceResult {
  readonly length: number;
  readonly slices?: readonly SliceStat[];
}

/** A file that a sink creates (O_EXCL) below a root, and its part in the bytes delivered. */
export interface FileTarget {
  /** Relative, one to many components. Empty: these bytes belong to no file (they were superseded) and are dropped. */
  readonly path: Uint8Array;
  /** Offset in the file at which the bytes go; a file of several targets is created by the first to come. */
  readonly offset: number;
  readonly length: number;
}

export type Sink =
  | { readonly kind: 'fd'; readonly fd: number; readonly offset: number }
  | { readonly kind: 'memory'; readonly buffer: SharedArrayBuffer; readonly offset: number }
  | { readonly kind: 'files'; readonly root: number; readonly files: readonly FileTarget[] };
