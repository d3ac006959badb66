/** What test/bench/save-once.ts is asked and answers. */
export type StorePlace =
  | { readonly kind: 'directory'; readonly path: string }
  | { readonly kind: 's3'; readonly endpoint: string; readonly bucket: string; readonly caFile: string };

export interface SaveRequest {
  readonly source: string;
  /** A directory that CRIU wrote, or a tree of files. */
  readonly kind: 'images' | 'tree';
  readonly store: StorePlace;
  readonly keyFile: string;
  /** Without encryption. */
  readonly plaintext: boolean;
}

export interface Saved {
  readonly ms: number;
  /** Processor time of all threads. */
  readonly processorMs: number;
  /** Bytes handed in, and bytes in the store. */
  readonly raw: number;
  readonly stored: number;
  /** Resident memory at its highest. */
  readonly peakMiB: number;
}
