/**
 * The port to whatever holds objects. Names are ASCII paths made by the repository
 * ("packs/…", "manifests/…", "lineages/…", "writers/…"): [a-z0-9/._-], no "..", no leading "/".
 *
 * Contract, checked by test/repository/store-suite.ts for every implementation:
 * - `put` is atomic and durable: when it resolves, the whole object survives power loss, and no reader
 *   ever sees a part of it. The repository never puts two different contents under one name.
 * - `get` returns exactly the range asked for, or throws OBJECT_MISSING / OBJECT_CORRUPT (too short).
 * - `delete` of a missing object succeeds.
 * - `list` sees every object whose put resolved before the call; order is by name.
 * - Errors are StasisErrors: STORE_UNAVAILABLE (may be retried), STORE_READ_ONLY, NO_SPACE,
 *   PERMISSION_DENIED, OBJECT_MISSING.
 */
export interface ObjectInfo {
  readonly name: string;
  readonly size: number;
  readonly modifiedMs: number;
}

export interface Store {
  /** For messages and metrics: "directory:/var/lib/stasis/repository", "s3:bucket/prefix". */
  readonly description: string;
  put(name: string, parts: readonly Uint8Array[], options: { signal: AbortSignal | undefined }): Promise<void>;
  /** With `into` (at least as long as the range) the bytes are placed there and the answer is a view of it: reused memory is warm memory. */
  get(name: string, range: { offset: number; length: number } | undefined, options: { signal: AbortSignal | undefined; into?: Uint8Array }): Promise<Uint8Array>;
  head(name: string, options: { signal: AbortSignal | undefined }): Promise<ObjectInfo | undefined>;
  list(prefix: string, options: { signal: AbortSignal | undefined }): AsyncIterable<ObjectInfo>;
  delete(name: string, options: { signal: AbortSignal | undefined }): Promise<void>;
  /** Bytes that can still be written, undefined where the store cannot tell. */
  freeBytes(): Promise<number | undefined>;
}

/** A store that holds something open: a lock, connections. */
export interface ClosableStore extends Store {
  close(): Promise<void>;
}
