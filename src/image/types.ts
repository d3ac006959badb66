/**
 * What an image is: CRIU's files, a tree of files, and how both become blobs of a checkpoint and back.
 * This room knows CRIU's formats and overlayfs; it does not run CRIU and does not know containers' runtimes.
 */
import type { CheckpointReader, CheckpointWriter } from '../repository/types.ts';
import type { MemoryLayers } from './criu/layers.ts';

export type MemoryRounds = MemoryLayers;

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
  /** What `stasis inspect` shows; JSON, bounded, made while the images were at hand. */
  readonly report?: CriuReport;
}

export interface ReportedProcess {
  /** Pids as the container sees them. */
  readonly pid: number;
  readonly ppid: number;
  readonly threads: number;
  readonly comm: string;
  readonly state: 'alive' | 'dead' | 'stopped' | 'zombie' | 'unknown';
  /** Bytes of its pages in the images, and those of them that a lazy restore may fetch later. */
  readonly memoryBytes: number;
  readonly lazyBytes: number;
  /** Bytes of address space by kind, and the number of mappings. */
  readonly mapped?: { readonly count: number; readonly anonymous: number; readonly filePrivate: number; readonly fileShared: number; readonly shared: number; readonly other: number };
}

export interface CriuReport {
  readonly imageVersion: number;
  readonly lsm: string;
  readonly networkLock: number;
  /** The largest 100. */
  readonly processes: readonly ReportedProcess[];
  readonly memory: { readonly privateBytes: number; readonly sharedBytes: number; readonly lazyBytes: number };
  readonly tcp: { readonly established: number; readonly listening: readonly string[] };
  readonly ghostFiles: { readonly count: number; readonly bytes: number };
  /** What descriptors 0, 1 and 2 of the first process were ("pipe:[123]", "/dev/null"). */
  readonly stdio: readonly string[];
  readonly cpu: { readonly vendor: string; readonly family: number; readonly model: number; readonly stepping: number; readonly modelName: string; readonly xfeatures: string } | undefined;
}

/** Memory that came over a page server and is in the checkpoint already: one pagemap and its pages. */
export interface ReceivedMemory {
  readonly pageSize: number;
  /** Of a round of several: not yet under the names of a checkpoint. */
  readonly layers?: readonly MemoryLayer[];
  readonly images: readonly {
    readonly pagemap: string;
    readonly kind: 'task' | 'shmem';
    readonly id: number;
    readonly pagesId: number;
    readonly pages: number;
    readonly lazyPages: number;
  }[];
}

/** The memory of one address space out of one round of several (criu/layers.ts): its pages are in a blob of their own. */
export interface MemoryLayer {
  readonly pagemap: string;
  readonly kind: 'task' | 'shmem';
  readonly id: number;
  readonly pagesId: number;
  readonly blob: string;
  /** As in the pagemap: pages that are in the blob, one after the other, and pages that the round before has. */
  readonly runs: readonly { readonly address: number; readonly pages: number; readonly flags: number }[];
}

/**
 * Saves a CRIU image directory under `prefix` ("containers/0/criu/"). Memory is cut at windows of the address space.
 * `received`: the memory of this dump that a page server has saved under the same prefix.
 * `layers`: the rounds before this dump, which is the last one.
 */
export interface SaveImages {
  (writer: CheckpointWriter, prefix: string, imageDir: string, options: { signal: AbortSignal | undefined; onBytes?: (count: number) => void; received?: ReceivedMemory; layers?: MemoryRounds }): Promise<CriuImageSummary>;
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

/** An established connection of a saved container: addresses without brackets, ports. */
export interface TcpConnection {
  readonly local: string;
  readonly localPort: number;
  readonly remote: string;
  readonly remotePort: number;
}
