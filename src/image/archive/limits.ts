/** Bounds of an archive that comes from a stranger, each with its reason. */
import { StasisError } from '../../core/errors.ts';
import { GiB, KiB, MiB, formatBytes } from '../../core/units.ts';

/** After decompression: a container's memory and files. What a bomb unfolds to is counted, not kept. */
export const MAX_ARCHIVE_BYTES = 512 * GiB;
/** Beside CRIU's images an archive has a dozen members; a root file system within it has its own limit. */
export const MAX_MEMBERS = 500_000;
/** Names of members and targets of links that are kept, together: 10^6 of 60 bytes each. A stranger's may have 4 KiB each, which a few MB of gzip unfold to gigabytes. */
export const MAX_NAME_BYTES_KEPT = 64 * MiB;
/** podman, CRI-O and containerd put about ten files beside the images. */
export const MAX_UNKNOWN_MEMBERS = 300;
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

/** Counts what is kept of names, over everything in one archive. */
export class NameBudget {
  #bytes = 0;

  /** Throws LIMIT_EXCEEDED. */
  take(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes <= MAX_NAME_BYTES_KEPT) return;
    throw new StasisError('LIMIT_EXCEEDED', `the archive has names and targets of links of more than ${formatBytes(MAX_NAME_BYTES_KEPT)} together`);
  }
}
