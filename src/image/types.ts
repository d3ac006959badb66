/**
 * What an image is: CRIU's files, a tree of files, and how both become blobs of a checkpoint and back.
 * This room knows CRIU's formats and overlayfs; it does not run CRIU and does not know containers' runtimes.
 */
import type { CheckpointReader, CheckpointWriter } from '../repository/types.ts';

/** Numbers about a set of CRIU images, for progress, tables and `inspect`. */
export interface CriuImageSummary {
  readonly files: number;
  readonly metadataBytes: number;
  readonly pagesBytes: number;
  /** Pages flagged LAZY and PRESENT in the pagemaps, and all present pages. */
  readonly lazyPages: number;
  readonly pages: number;
  readonly processes: number;
  readonly plugins: readonly string[];
  readonly tcpClose: boolean;
}

/** Saves a CRIU image directory under `prefix` ("containers/0/criu/"). Memory is cut at windows of the address space. */
export interface SaveImages {
  (writer: CheckpointWriter, prefix: string, imageDir: string, options: { signal: AbortSignal | undefined; onBytes?: (count: number) => void }): Promise<CriuImageSummary>;
}

/** Rebuilds the directory, byte for byte, files 0600, fresh (fails if not empty). Names are checked: no path separators. */
export interface LoadImages {
  (reader: CheckpointReader, prefix: string, imageDir: string, options: { signal: AbortSignal | undefined; onBytes?: (count: number) => void }): Promise<void>;
}

export interface TreeCounts {
  readonly entries: number;
  readonly files: number;
  readonly dataBytes: number;
}
