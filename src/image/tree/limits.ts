/** Bounds of a tree, each with its reason. A tree beyond them is refused when saved and when loaded. */
import { GiB, KiB, MiB } from '../../core/units.ts';

/** About 120 bytes of memory for each: 0.5 GiB at the very most; a container image has 10^4 to 10^5 entries. */
export const MAX_ENTRIES = 4 * 1024 * 1024;
/** A file that is read again while its container runs is another content. */
export const MAX_CONTENTS = 2 * MAX_ENTRIES;
/** An entry takes about 20 to 60 bytes. The index is held in memory as a whole while it is decoded. */
export const MAX_INDEX_BYTES = 256 * MiB;
/** NAME_MAX of Linux. */
export const MAX_NAME_BYTES = 255;
/** PATH_MAX less its NUL: the longest target that symlink(2) takes. */
export const MAX_TARGET_BYTES = 4095;
/** A path is rebuilt from its parents, so depth costs time. PATH_MAX allows 2,048 levels in one call. */
export const MAX_DEPTH = 8192;
/** XATTR_NAME_MAX and XATTR_SIZE_MAX of Linux; ext4 itself holds less than 64 KiB for one inode. */
export const MAX_XATTR_NAME_BYTES = 255;
export const MAX_XATTR_VALUE_BYTES = 64 * KiB;
export const MAX_XATTRS = 512;
/** All different attribute sets of a tree together. */
export const MAX_XATTR_BYTES = 64 * MiB;
/** Data extents of all files together: a sparse file of many islands has one for each. */
export const MAX_EXTENTS = 16 * 1024 * 1024;
/** Names and symlink targets together. */
export const MAX_TEXT_BYTES = 1 * GiB;

/** The paths of all files, written out for a restore: long names many levels deep would otherwise multiply. */
export const MAX_PATH_BYTES = 512 * MiB;

/** Small files share a piece up to this size; a piece of a large file is of this size, its last up to twice as large. */
export const PIECE_BYTES = 1 * MiB;
/** Files in one piece: bounds the message that describes it. */
export const MAX_PIECE_FILES = 1024;
/** Pieces planned ahead of their reading. */
export const BATCH_PIECES = 32;
/** Reads of a file that changes although its container is frozen: somebody outside writes to it. */
export const MAX_FROZEN_READS = 4;
/**
 * A file changed this shortly before the walk began can change again without a visible change of its times:
 * the kernel's clock for file times ticks every 1 to 10 ms, and every second or two on old file systems.
 */
export const CLOCK_TICK_MS = 100;
export const COARSE_CLOCK_TICK_MS = 2500;
/** Warnings that a report lists in full; the rest is counted. */
export const MAX_WARNINGS = 100;
