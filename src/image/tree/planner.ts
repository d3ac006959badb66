/**
 * Cuts the contents of files into pieces: small files share one, large files get their own, so that what did not
 * change is cut alike the next time and found again in the repository.
 */
import { openat2 } from '../../host/libc.ts';
import { CONFINED, O_PATH } from '../../host/tree-calls.ts';
import { MAX_PIECE_FILES, PIECE_BYTES } from './limits.ts';
import type { Readings } from './readings.ts';

/** One piece as it travels to the thread that appends it. */
export interface PlannedPiece {
  readonly number: number;
  /** A descriptor of the directory that `paths` start from, closed by the receiver after the reading; -1 for the tree's root. */
  readonly root: number;
  /** The paths of the files, one after the other. */
  readonly paths: Uint8Array<ArrayBuffer>;
  /** For each file: length of its path, offset and length of its part. */
  readonly numbers: Float64Array<ArrayBuffer>;
  readonly zeroPages: boolean;
}

/** Longest path that a piece names from the root of the tree; below PATH_MAX. */
const MAX_DIRECT_PATH = 4000;

export class Planner {
  readonly #readings: Readings;
  readonly #contents = new Map<number, number[]>();
  readonly ready: PlannedPiece[] = [];
  /** Length of the data blob with everything that is planned. */
  dataBytes = 0;
  #next = 0;
  #groupBytes = 0;
  #paths: Buffer[] = [];
  #numbers: number[] = [];
  #ids: number[] = [];

  constructor(readings: Readings) {
    this.#readings = readings;
  }

  /** Plans the reading of a content that {@link Readings.begin} has just made. `islands` are its data extents. */
  add(content: number, where: { dirfd: number; path: Buffer; name: Buffer }, islands: readonly (readonly [number, number])[]): void {
    for (const [at, length] of islands) {
      if (length === 0) continue;
      const deep = where.path.length > MAX_DIRECT_PATH;
      if (length > PIECE_BYTES || deep) {
        // What is collected goes first: the order of pieces is the order of bytes in the blob.
        this.flush();
        this.#readings.extents.add(at, length, this.dataBytes);
        this.#large(content, where, at, length, deep);
      } else {
        if (this.#groupBytes + length > PIECE_BYTES || this.#ids.length >= MAX_PIECE_FILES) this.flush();
        this.#readings.extents.add(at, length, this.dataBytes);
        this.#slice(content, where.path, at, length);
      }
    }
  }

  #large(content: number, where: { dirfd: number; path: Buffer; name: Buffer }, at: number, length: number, deep: boolean): void {
    for (let from = at; from < at + length; ) {
      const rest = at + length - from;
      const size = rest < 2 * PIECE_BYTES ? rest : PIECE_BYTES;
      this.#slice(content, deep ? where.name : where.path, from, size);
      this.#emit(deep ? openat2(where.dirfd, '.', O_PATH, 0, CONFINED) : -1, true);
      from += size;
    }
  }

  #slice(content: number, path: Buffer, at: number, length: number): void {
    this.#paths.push(path);
    this.#numbers.push(path.length, at, length);
    this.#ids.push(content);
    this.#groupBytes += length;
    this.dataBytes += length;
    this.#readings.expect(content, length);
  }

  /** Ends the piece that is being collected. */
  flush(): void {
    if (this.#ids.length > 0) this.#emit(-1, false);
  }

  #emit(root: number, zeroPages: boolean): void {
    const number = this.#next++;
    const bytes = new Uint8Array(this.#paths.reduce((sum, path) => sum + path.length, 0));
    let at = 0;
    for (const path of this.#paths) {
      bytes.set(path, at);
      at += path.length;
    }
    this.#contents.set(number, this.#ids);
    this.ready.push({ number, root, paths: bytes, numbers: Float64Array.from(this.#numbers), zeroPages });
    this.#groupBytes = 0;
    this.#paths = [];
    this.#numbers = [];
    this.#ids = [];
  }

  /** The contents of a piece's slices, in order; asked once, when the piece has been read. */
  taken(number: number): readonly number[] {
    const ids = this.#contents.get(number) ?? [];
    this.#contents.delete(number);
    return ids;
  }
}
