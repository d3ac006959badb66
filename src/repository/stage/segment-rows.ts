/** Builds the segments of one piece: rows of chunk, offset and length, neighbours joined. */
import { ZERO } from '../format/segments.ts';

export const SEGMENT_COLUMNS = 3;

export class SegmentRows {
  readonly #rows: number[] = [];

  zeros(length: number): void {
    this.add(ZERO, 0, length);
  }

  add(chunk: number, offset: number, length: number): void {
    const rows = this.#rows;
    const last = rows.length - SEGMENT_COLUMNS;
    const continues = last >= 0 && rows[last] === chunk && (chunk === ZERO || (rows[last + 1] as number) + (rows[last + 2] as number) === offset);
    if (continues) rows[last + 2] = (rows[last + 2] as number) + length;
    else rows.push(chunk, offset, length);
  }

  finish(): Uint32Array<ArrayBuffer> {
    return Uint32Array.from(this.#rows);
  }
}
