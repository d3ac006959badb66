/** The limits of format version 1; docs/FORMAT.md gives the reasons. */
export { MAX_CHUNK_BYTES } from '../stage/port.ts';

export const FORMAT_VERSION = 1;
export const MAX_PACK_BYTES = 64 * 1024 * 1024;
export const MAX_MANIFEST_BYTES = 64 * 1024 * 1024;
export const MAX_BODY_BYTES = 64 * 1024 * 1024;
export const MAX_JSON_BYTES = 8 * 1024 * 1024;
export const MAX_CHUNKS = 1 << 20;
export const MAX_PACKS = 1 << 17;
export const MAX_BLOBS = 1 << 17;
export const MAX_SEGMENTS = 1 << 23;
export const MAX_NAME_BYTES = 1024;
export const MAX_RECIPIENTS = 64;
/** The most that one read() answers with; more is extracted to a sink. Not part of the format. */
export const MAX_READ_BYTES = 64 * 1024 * 1024;
