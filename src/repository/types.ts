/** The repository as the rest of Stasis sees it. It knows bytes, names and keys; nothing of containers. */
import type { CheckpointId, LineageId } from '../core/ids.ts';
import type { Piece, PieceResult, Sink } from './stage/port.ts';

/** JSON that the caller stores sealed in the manifest; the repository does not look into it. */
export type Description = Readonly<Record<string, unknown>>;

export interface ByteCounts {
  /** Bytes handed in, zero pages and holes included. */
  readonly raw: number;
  /** Bytes that were all zero and are only marked. */
  readonly zero: number;
  /** Bytes found again in the lineage and not stored twice. */
  readonly reused: number;
  /** Bytes written to the store, seals and headers included. */
  readonly stored: number;
}

export interface CheckpointSummary {
  readonly id: CheckpointId;
  readonly lineage: LineageId;
  readonly createdMs: number;
  readonly cipher: string;
  /** Hexadecimal Ed25519 public key that signed the manifest. */
  readonly signer: string;
  readonly description: Description;
  readonly bytes: ByteCounts;
}

/**
 * Writes one checkpoint. Blobs are named byte strings ("containers/0/criu/pages-1.img").
 * Nothing is visible before commit() resolves; after abort(), or when the process dies, what was
 * written is garbage under packs/<id>- and Repository.discard(id) removes it.
 */
export interface CheckpointWriter {
  readonly id: CheckpointId;
  readonly lineage: LineageId;
  /**
   * Appends pieces to a blob, in order, many in flight at once (bounded). Resolves when every piece has been
   * read from its source (hashed, compressed and sealed); the packs may still be on their way to the store.
   * May be called again for the same blob; `onPiece` sees the results in order.
   * After a failed or cancelled append no source is touched any more, and the writer can only be aborted:
   * what it has is less than what was asked for.
   */
  append(blob: string, pieces: Iterable<Piece> | AsyncIterable<Piece>, options: {
    signal: AbortSignal | undefined;
    onPiece?: (result: PieceResult, index: number) => void;
  }): Promise<void>;
  /** Appends a run of zero bytes (a hole). */
  appendZeros(blob: string, length: number): void;
  /** A whole small blob (at most 1 MiB); neighbours share a chunk. */
  putSmall(blob: string, bytes: Uint8Array, options: { signal: AbortSignal | undefined }): Promise<void>;
  /** The checkpoint before in the lineage, of the same cipher, if there is one. */
  readonly ancestor: CheckpointId | undefined;
  /** Appends a part of the ancestor's blob of the same name, by reference. False, and nothing is done, where it cannot be referred to: read it again. */
  reuse(blob: string, offset: number, length: number): boolean;
  /** Appends a part of another blob of this checkpoint, by reference. */
  splice(blob: string, from: string, offset: number, length: number): void;
  /** Leaves out of the checkpoint all blobs whose names begin so. What others have of them stays theirs. */
  drop(prefix: string): void;
  bytes(): ByteCounts;
  /** Waits until all packs are durable, then writes the manifest. The checkpoint exists when this resolves. */
  commit(description: Description, options: { signal: AbortSignal | undefined }): Promise<CheckpointSummary>;
  /** Stops what is in flight and deletes what was written. Never throws for what it could not delete. */
  /** False when something of it stays behind, because the store did not let go of it: discard() it later. */
  abort(): Promise<boolean>;
}

export interface ExtractJob {
  readonly blob: string;
  /** Part of the blob; whole when absent. */
  readonly offset?: number;
  readonly length?: number;
  /**
   * Called once per stored segment in ascending order (zero runs are not delivered: the target must be zero there).
   * `offset` is relative to the start of the blob. Returns where the bytes go.
   */
  readonly sink: (segment: { offset: number; length: number }) => Sink;
}

export interface CheckpointReader {
  readonly summary: CheckpointSummary;
  /** Every blob and its length, by name. */
  readonly blobs: ReadonlyMap<string, number>;
  /** A whole small blob or a part of any blob, verified. */
  read(blob: string, range: { offset: number; length: number } | undefined, options: { signal: AbortSignal | undefined }): Promise<Uint8Array>;
  /**
   * The segments of a blob in order: what is stored and what is zero. Segments of one chunk are read and opened together;
   * chunks are numbered in the order in which they lie in the packs.
   */
  segments(blob: string): Iterable<{ offset: number; length: number; zero: boolean; chunk?: number }>;
  /** Ranged reads, opened and verified in the workers, written to the sinks. Fails on the first bad byte. `urgent`: a chunk or two that somebody waits for, and that shall not wait for the rest. */
  extract(jobs: readonly ExtractJob[], options: { signal: AbortSignal | undefined; onBytes?: (count: number) => void; urgent?: boolean }): Promise<void>;
}

export interface VerifyReport {
  readonly id: CheckpointId;
  readonly objects: number;
  readonly chunks: number;
  readonly bytes: number;
  /** Empty when all is well. */
  readonly problems: readonly { readonly object: string; readonly code: string; readonly message: string }[];
}

export interface PruneReport {
  /** Packs without a checkpoint that were removed (with dryRun: would be looked at), and their bytes. */
  readonly packs: number;
  readonly bytes: number;
  /** Lineage keys that were removed because their last checkpoint is gone. */
  readonly keys: number;
  /** Agents that seem dead and were fenced; what they left goes with a prune that comes `grace` later. */
  readonly fenced: number;
  /** Marks of the dead that were removed. */
  readonly marks: number;
  /** Manifests of writers that woke up too late and died before they took them back. */
  readonly manifests: number;
  /** What seems to be garbage and had to stay: somebody is at work there, or it cannot be read with the keys at hand. */
  readonly kept: readonly { readonly lineage: string; readonly packs: number; readonly bytes: number; readonly reason: 'in use' | 'unreadable' }[];
}

export interface RepositoryStats {
  readonly checkpoints: number;
  readonly lineages: number;
  readonly pins: number;
  readonly packs: number;
  /** Of all objects. */
  readonly bytes: number;
  readonly packBytes: number;
  /** Of packs whose writer has no manifest: of writers at work, or garbage. */
  readonly loose: { readonly packs: number; readonly bytes: number };
  /** Sums over the checkpoints that can be read here. */
  readonly saved: ByteCounts;
  /** Checkpoints that cannot be read here: damaged, or for other keys. */
  readonly unreadable: number;
}

export interface CheckReport {
  readonly checkpoints: number;
  /** Checkpoints whose seal this node has no key for: only signature and names were checked. */
  readonly sealed: number;
  readonly objects: number;
  readonly bytes: number;
  /** Each damaged or missing object once; the message names checkpoints that need it. */
  readonly problems: readonly { readonly object: string; readonly code: string; readonly message: string }[];
  /** Packs that no manifest names: of writers at work, or garbage. */
  readonly loose: { readonly packs: number; readonly bytes: number };
}

export interface Footprint {
  readonly summary: CheckpointSummary;
  readonly packs: readonly { readonly name: string; readonly size: number }[];
}

export interface Pin {
  readonly checkpoint: CheckpointId;
  readonly by: string;
  readonly reason: string;
  readonly atMs: number;
}

/** Care for the repository as a whole. */
export interface Maintenance {
  /** Removes what nobody needs; safe beside writers and readers, see docs/FORMAT.md, "Marks". */
  prune(options: { signal: AbortSignal | undefined; dryRun: boolean; onLineage?: (done: number, total: number) => void }): Promise<PruneReport>;
  /** What each checkpoint is and which packs it needs, oldest first; of a `known` one only the id. Those that cannot be read are told to onProblem. */
  footprints(options: { signal: AbortSignal | undefined; known: (id: CheckpointId) => boolean; onProblem: (object: string, error: Error) => void }): AsyncIterable<{ readonly id: CheckpointId; readonly footprint: Footprint | undefined }>;
  /** What writers at work, of all agents, may still put into the store. */
  reserved(options: { signal: AbortSignal | undefined }): Promise<ReadonlyMap<CheckpointId, number>>;
  /** Bytes of all objects. */
  usedBytes(options: { signal: AbortSignal | undefined }): Promise<number>;
  stats(options: { signal: AbortSignal | undefined }): Promise<RepositoryStats>;
  /** Is everything there that the manifests name, and as long as it should be? With readData every byte is read. */
  check(options: { signal: AbortSignal | undefined; readData: boolean; onCheckpoint?: (done: number, total: number) => void }): Promise<CheckReport>;
  /** Keeps the packs of a lineage while a checkpoint is read, whoever deletes it. Throws CHECKPOINT_NOT_FOUND. */
  hold(id: CheckpointId, options: { signal: AbortSignal | undefined }): Promise<AsyncDisposable>;
  /** Durable, beside the manifest. Throws CHECKPOINT_NOT_FOUND. */
  pin(pin: Pin, options: { signal: AbortSignal | undefined }): Promise<void>;
  unpin(id: CheckpointId, options: { signal: AbortSignal | undefined }): Promise<void>;
  pins(options: { signal: AbortSignal | undefined }): Promise<Pin[]>;
  /** At the start, before anything else: removes the marks that this owner's former life left on readers and sweepers. */
  releaseOwn(options: { signal: AbortSignal | undefined }): Promise<void>;
}

/** What can be changed about the key of a lineage. */
export interface KeyState {
  /** Hexadecimal X25519 public keys. */
  readonly recipients: readonly string[];
  /** No checkpoint goes on in this lineage: who was a recipient may have kept the data key. */
  readonly ended: boolean;
}

export type KeyChange = (state: KeyState) => KeyState;

export interface LineageKeyInfo extends KeyState {
  readonly lineage: LineageId;
  /** Counts the changes. */
  readonly epoch: number;
  readonly signer: string;
  /** This node is among the recipients. */
  readonly openable: boolean;
  /** Of this lineage, as their manifests claim; oldest first. */
  readonly checkpoints: readonly CheckpointId[];
}

export interface KeyChangeReport {
  /** With dryRun: would be changed. */
  readonly changed: readonly LineageId[];
  /** They were as wanted already. */
  readonly unchanged: number;
  /** Wrapped to others only: somebody else has to do it. */
  readonly sealed: readonly LineageId[];
  readonly problems: readonly { readonly object: string; readonly code: string; readonly message: string }[];
}

export interface Keyring {
  /** Looks at signatures only: no secret is needed. */
  list(options: { signal: AbortSignal | undefined; onProblem?: (object: string, error: Error) => void }): Promise<LineageKeyInfo[]>;
  checkpoints(options: { signal: AbortSignal | undefined }): Promise<ReadonlyMap<LineageId, readonly CheckpointId[]>>;
  /** Wraps the data key to other recipients, in the next epoch. Packs and manifests stay. Does nothing where nothing is to change. Throws KEY_WRONG when this node cannot read it. */
  rewrap(lineage: LineageId, change: KeyChange, options: { signal: AbortSignal | undefined }): Promise<{ readonly epoch: number; readonly changed: boolean }>;
  /** The same for many, or for all. It can be ended at any time and done again. */
  rewrapAll(lineages: readonly LineageId[] | undefined, change: KeyChange, options: {
    signal: AbortSignal | undefined;
    dryRun: boolean;
    onLineage?: (done: number, total: number) => void;
    onChanged?: (lineage: LineageId, epoch: number) => void;
  }): Promise<KeyChangeReport>;
  /** Deletes the wrapped key: nobody will ever read the checkpoints of this lineage again. Throws CHECKPOINT_IN_USE while one is being written. */
  shred(lineage: LineageId, options: { signal: AbortSignal | undefined }): Promise<void>;
}

export interface Repository {
  readonly maintenance: Maintenance;
  readonly keyring: Keyring;
  begin(options: {
    id: CheckpointId;
    /** Continue this lineage (its key is unwrapped); a new one is made when absent. */
    lineage: LineageId | undefined;
    /** Cipher by name, "xchacha20-poly1305" unless told; "null" only where an administrator opted out. */
    cipher?: string;
    /** What the checkpoint may put into the store: told to other agents, which count with it. */
    reservedBytes?: number;
  }, options2: { signal: AbortSignal | undefined }): Promise<CheckpointWriter>;
  list(options: { signal: AbortSignal | undefined; onProblem?: (object: string, error: Error) => void }): AsyncIterable<CheckpointSummary>;
  /** Checks the manifest's seal and signature. Throws CHECKPOINT_NOT_FOUND, SIGNER_UNTRUSTED, OBJECT_CORRUPT, KEY_WRONG, … */
  open(id: CheckpointId, options: { signal: AbortSignal | undefined }): Promise<CheckpointReader>;
  /** Reads everything back. Problems are listed, not thrown; throws only when it cannot go on at all. */
  verify(id: CheckpointId, options: { signal: AbortSignal | undefined; onBytes?: (count: number, total: number) => void }): Promise<VerifyReport>;
  /** Manifest first, then the packs that no other checkpoint of the lineage uses. */
  delete(id: CheckpointId, options: { signal: AbortSignal | undefined }): Promise<void>;
  /** Whether the manifest is there (and so the checkpoint). */
  exists(id: CheckpointId, options: { signal: AbortSignal | undefined }): Promise<boolean>;
  /** Removes what an aborted or dead writer of this id left. Refuses (CHECKPOINT_IN_USE) when the manifest exists. */
  discard(id: CheckpointId, options: { signal: AbortSignal | undefined }): Promise<void>;
  freeBytes(): Promise<number | undefined>;
  close(): Promise<void>;
}
