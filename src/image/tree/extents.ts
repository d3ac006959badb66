/** Contents of files: which parts of a file hold data, and where in the data blob they lie. The rest are holes. */
import { StasisError } from '../../core/errors.ts';
import { MAX_EXTENTS } from './limits.ts';

export class Extents {
  /** By content: the file's size, its first extent, and how many. */
  readonly size: number[] = [];
  readonly first: number[] = [];
  readonly extents: number[] = [];
  /** By extent. */
  readonly fileAt: number[] = [];
  readonly length: number[] = [];
  readonly dataAt: number[] = [];

  /** A new content, still without extents. Its extents are added before the next content is begun. */
  begin(size: number): number {
    this.size.push(size);
    this.first.push(this.fileAt.length);
    this.extents.push(0);
    return this.size.length - 1;
  }

  add(fileAt: number, length: number, dataAt: number): void {
    if (this.fileAt.length >= MAX_EXTENTS) throw new StasisError('LIMIT_EXCEEDED', `the files of this tree have more than ${MAX_EXTENTS} data extents`);
    this.fileAt.push(fileAt);
    this.length.push(length);
    this.dataAt.push(dataAt);
    this.extents[this.extents.length - 1] = (this.extents.at(-1) as number) + 1;
  }

  /** Bytes of data of one content. */
  bytes(content: number): number {
    const first = this.first[content] as number;
    let sum = 0;
    for (let i = first; i < first + (this.extents[content] as number); i++) sum += this.length[i] as number;
    return sum;
  }
}
