/** Bounds of an archive that comes from a stranger, each with its reason. */
import { GiB, KiB, MiB } from '../../core/units.ts';

/** After decompression: a container's memory and files. What a bomb unfolds to is counted, not kept. */
export const MAX_ARCHIVE_BYTES = 512 * GiB;
/** Beside CRIU's images an archive has a dozen members; a root file system within it has its own limit. */
export const MAX_MEMBERS = 500_000;
/** Of a root file system's changes: some 400 bytes of memory each, and put in order at once in the agent's main thread. An image has 10^4 to 10^5 files in all. */
export const MAX_TREE_ENTRIES = 400_000;
/** config.dump and spec.dump have some ten kilobytes, with long environments and seccomp profiles some more. */
export const MAX_JSON_BYTES = 8 * MiB;
/** 10^6 deleted paths of 60 bytes. */
export const MAX_DELETED_BYTES = 64 * MiB;
/** Nobody writes JSON by hand this deep, and the parser's stack is finite. */
export const MAX_JSON_DEPTH = 64;
/** PATH_MAX of Linux. */
export const MAX_PATH_BYTES = 4096;
export const MAX_NAME_BYTES = 255;
/** Pieces in which files become chunks. */
export const PIECE_BYTES = MiB;
/** What is read of a document at once. */
export const STEP_BYTES = 64 * KiB;
