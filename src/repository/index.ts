/**
 * The repository: bytes at rest, sealed. It knows blobs, chunks, packs, manifests and keys, and nothing of
 * containers, CRIU or networks. docs/FORMAT.md is its contract with the disk, types.ts with the rest of Stasis.
 */
export { fixedKeys } from './keys/port.ts';
export type { KeyProvider, NodeKeys, WrappedKey } from './keys/port.ts';
export { commandKeyProvider } from './keys/command.ts';
export { directoryKeyProvider } from './keys/directory.ts';
export type { PublicKeys } from './keys/document.ts';
export { fileKeyProvider, generateKeyFile } from './keys/file.ts';
export { KeyMemory } from './key-memory.ts';
export { withRecipients } from './keys/recipients.ts';
export { openRepository } from './repository.ts';
export type { RepositoryOptions } from './repository.ts';
export { openDirectoryStore } from './store/directory.ts';
export type { DirectoryStore } from './store/directory.ts';
export { openDirectoryProbe } from './store/directory-probe.ts';
export { probeStore } from './store/probe.ts';
export type { ProbeGround, StoreCheck, StoreReport } from './store/probe.ts';
export { openS3Probe, openS3Store } from './store/s3/open.ts';
export type { S3Encryption, S3Options } from './store/s3/open.ts';
export { MemoryStore } from './store/memory.ts';
export type { ClosableStore, ObjectInfo, Store } from './store/store.ts';
export * from './types.ts';
export { MAX_CHUNK_BYTES, PIECE_BYTES } from './stage/port.ts';
export type * from './stage/port.ts';
