/** Lists of file parts as columns: a hundred thousand small objects are slow to send to a thread, four arrays are not. */
import type { FileSlice } from './port.ts';

export interface FileList {
  readonly paths: Uint8Array<ArrayBuffer>;
  /** Where each path ends in `paths`. */
  readonly ends: Uint32Array<ArrayBuffer>;
  /** Pairs: offset in the file, length. */
  readonly ranges: Float64Array<ArrayBuffer>;
}

/** Works for sources and for sinks: both are (path, offset, length). */
export function packFiles(files: readonly FileSlice[]): FileList {
  const paths = new Uint8Array(files.reduce((sum, file) => sum + file.path.length, 0));
  const ends = new Uint32Array(files.length);
  const ranges = new Float64Array(files.length * 2);
  let at = 0;
  files.forEach((file, i) => {
    paths.set(file.path, at);
    at += file.path.length;
    ends[i] = at;
    ranges[i * 2] = file.offset;
    ranges[i * 2 + 1] = file.length;
  });
  return { paths, ends, ranges };
}

/** Hands out the same object again and again with other values: do not keep it. */
export function* unpackFiles(list: FileList): Iterable<{ path: Buffer; offset: number; length: number; index: number }> {
  const paths = Buffer.from(list.paths.buffer, list.paths.byteOffset, list.paths.length);
  const file = { path: paths, offset: 0, length: 0, index: 0 };
  for (let start = 0; file.index < list.ends.length; file.index += 1) {
    const end = list.ends[file.index] ?? start;
    file.path = paths.subarray(start, end);
    file.offset = list.ranges[file.index * 2] ?? 0;
    file.length = list.ranges[file.index * 2 + 1] ?? 0;
    yield file;
    start = end;
  }
}

export function transferables(list: FileList): ArrayBuffer[] {
  return [list.paths.buffer, list.ends.buffer, list.ranges.buffer];
}
