/**
 * Walks a tree that somebody may be changing at the same time, and that may belong to an enemy: every directory is opened
 * below the root without following any link, and its entries are looked at through its descriptor only.
 */
import { constants } from 'node:fs';
import { StasisError } from '../../core/errors.ts';
import { DirectoryScanner, StatBuffer, closeFd, isGone, openConfined, statAt } from '../../host/tree-calls.ts';
import type { Table } from './table.ts';

export interface Found {
  /** Number of the directory in the table, its descriptor and its path below the root. */
  readonly directory: number;
  readonly dirfd: number;
  readonly directoryPath: Buffer;
}

export interface WalkOptions {
  readonly root: number;
  /** Nobody should be changing the tree: a directory that cannot be opened any more is an error. */
  readonly frozen: boolean;
  /** Looked at between directories; throws. */
  readonly checkCancelled: () => void;
  /** `name` ends with a NUL and is valid during the call; so is `stat`. Adds directories to the table to have them walked. */
  readonly visit: (found: Found, name: Buffer, length: number, stat: StatBuffer) => void;
}

/** Goes on one directory at each step. The table must hold the root. */
export function* walk(table: Table, options: WalkOptions): Generator<void, void, void> {
  const scanner = new DirectoryScanner();
  const stat = new StatBuffer();
  for (let directory = 0; directory < table.directories; directory++) {
    options.checkCancelled();
    table.childrenFrom[directory] = table.count;
    const directoryPath = table.directoryPath(directory);
    const dirfd = openDirectory(options, directoryPath);
    if (dirfd !== undefined) {
      const found = { directory, dirfd, directoryPath };
      try {
        scanner.scan(dirfd, (name, length) => {
          if (statAt(dirfd, name, stat)) options.visit(found, name, length, stat);
        });
      } finally {
        closeFd(dirfd);
      }
    }
    table.childrenTo[directory] = table.count;
    yield;
  }
}

function openDirectory(options: WalkOptions, path: Buffer): number | undefined {
  try {
    return openConfined(options.root, path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW, 0);
  } catch (error) {
    if (!isGone(error)) throw error;
    // Another mount: its mount point is kept, what is mounted there is not part of this tree.
    const mounted = (error as { code?: string }).code === 'EXDEV';
    if (mounted || !options.frozen) return undefined;
    throw new StasisError('DUMP_FAILED', `the directory ${JSON.stringify(path.toString())} disappeared while the container was frozen`, {
      cause: error,
      hint: 'something outside the container changes its files; stop that and try again',
    });
  }
}
