/** Takes zero pages out of a buffer, in place. */

export const PAGE_BYTES = 4096;
const zeroPage = Buffer.alloc(PAGE_BYTES);

export interface ZeroRuns {
  /** Bytes that are left at the start of the buffer. */
  readonly kept: number;
  /** Lengths of runs, data and zeros in turn, beginning with data (which may be 0 long). */
  readonly runs: readonly number[];
}

/** A last, shorter page counts as zero when all of it is. */
export function stripZeroPages(buffer: Buffer, length: number): ZeroRuns {
  const runs: number[] = [];
  let [kept, runStart, runIsZero] = [0, 0, false];
  for (let at = 0; at < length; at += PAGE_BYTES) {
    const end = Math.min(at + PAGE_BYTES, length);
    // The first byte settles it for nearly every page that is not zero.
    const isZero = buffer[at] === 0 && zeroPage.compare(buffer, at, end, 0, end - at) === 0;
    if (isZero === runIsZero) continue;
    if (!runIsZero) kept = keep(buffer, kept, runStart, at);
    runs.push(at - runStart);
    [runStart, runIsZero] = [at, isZero];
  }
  if (!runIsZero) kept = keep(buffer, kept, runStart, length);
  runs.push(length - runStart);
  return { kept, runs };
}

function keep(buffer: Buffer, kept: number, start: number, end: number): number {
  if (kept !== start) buffer.copyWithin(kept, start, end);
  return kept + end - start;
}
