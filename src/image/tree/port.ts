/** What the main thread and the worker of a tree say to each other. */
import type { DeviceRule } from '../../core/devices.ts';
import type { Origin } from './memory.ts';
import type { PlannedPiece } from './planner.ts';
import type { TreeKind } from './table.ts';

export interface SaveSetup {
  readonly role: 'save';
  readonly root: number;
  readonly kind: TreeKind;
  readonly userxattr: boolean;
}

export interface LoadSetup {
  readonly role: 'load';
  readonly prefix: string;
}

/** `cancel[0]` becomes 1 when the worker is to stop where it is. */
export type WorkerSetup = (SaveSetup | LoadSetup) & { readonly cancel: Int32Array<SharedArrayBuffer> };

export interface Batch {
  readonly pieces: readonly PlannedPiece[];
  readonly done: boolean;
}

export interface ReadCounts {
  readonly files: number;
  readonly bytes: number;
}

export interface Finished {
  readonly chunks: readonly SharedArrayBuffer[];
  readonly length: number;
  readonly entries: number;
  readonly files: number;
  readonly dataBytes: number;
  readonly supersededBytes: number;
  readonly warnings: readonly string[];
  /** For the next checkpoint of this directory. */
  readonly memory: Uint8Array | undefined;
}

/** An entry of a saved tree, for `inspect` and for archives. */
export interface TreeEntry {
  /** Path below the root as bytes, empty for the root. */
  readonly path: Uint8Array;
  readonly kind: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
  readonly opaque: boolean;
  readonly target: Uint8Array | undefined;
  readonly device: readonly [number, number] | undefined;
  readonly link: Uint8Array | undefined;
  /** Names of the attributes, and the attributes themselves. */
  readonly xattrs: readonly string[];
  readonly attributes: readonly { readonly name: Uint8Array; readonly value: Uint8Array }[];
  /** For each data extent of a file: its place in the file, its length, its place in the data blob. The rest are holes. */
  readonly extents: Float64Array;
}

export interface DecodedCounts {
  readonly kind: TreeKind;
  readonly entries: number;
  readonly files: number;
  readonly dataBytes: number;
}

export interface CreateOptions {
  readonly root: number;
  /** Through the merged view of an overlay, over what is there. */
  readonly merge: boolean;
  /** Which device nodes are made. */
  readonly devices: readonly DeviceRule[];
  readonly userxattr: boolean;
  /** Runs of zeros in the data blob, which nobody delivers: offset, length, … */
  readonly zeroRuns: Float64Array;
}

/** Which bytes of the data blob go where, in ascending order of the blob. */
export interface ExtractionPlan {
  readonly dataAt: Float64Array;
  readonly length: Float64Array;
  readonly fileAt: Float64Array;
  readonly pathAt: Uint32Array;
  readonly pathLength: Uint32Array;
  readonly paths: Uint8Array;
  /** Indexes of the parts whose path is too long for one system call. */
  readonly deep: Uint32Array;
}

export interface Calls {
  // Saving.
  /** Undefined: the memory is of no use for this directory. Otherwise which parts of the last data blob it refers to, and that blob's length. */
  remember: { args: { memory: Uint8Array; origin: Origin }; result: { used: Float64Array; dataLength: number } | undefined };
  /** The parts of the blob that could not be had again. */
  recall: { args: { lost: Float64Array }; result: { files: number; bytes: number } };
  readAhead: { args: { nowMs: number }; result: void };
  delta: { args: { nowMs: number; distrust: readonly Uint8Array[] }; result: void };
  /** Plans what changed under the reading. */
  again: { args: undefined; result: void };
  next: { args: undefined; result: Batch };
  /** Inode, size, mtime and ctime in ns, torn (0 or 1) of each slice of a piece. */
  read: { args: { number: number; slices: BigInt64Array }; result: void };
  counts: { args: undefined; result: ReadCounts };
  finish: { args: { origin: Origin | undefined }; result: Finished };
  // Loading.
  decode: { args: { index: SharedArrayBuffer; dataLength: number }; result: DecodedCounts };
  page: { args: { from: number; count: number }; result: readonly TreeEntry[] };
  create: { args: CreateOptions; result: ExtractionPlan };
  complete: { args: undefined; result: { warnings: readonly string[] } };
}

export interface Request<K extends keyof Calls = keyof Calls> {
  readonly id: number;
  readonly name: K;
  readonly args: Calls[K]['args'];
}

export interface PortableError {
  readonly code: string;
  readonly message: string;
  readonly hint: string | undefined;
  readonly details: Readonly<Record<string, string | number | boolean>>;
}

/** `ended`: the thread waits for its next setup. */
export type Reply = { readonly ended: true } | Answer;

export type Answer =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: PortableError };
