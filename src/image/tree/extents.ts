/** Contents of files: which parts of a file hold data, and where in the data blob they lie. The rest are holes. */
import { Columns } from './columns.ts';
import { MAX_CONTENTS, MAX_EXTENTS } from './limits.ts';

export class Extents {
  readonly #contents = new Columns(MAX_CONTENTS, 'contents of files');
  /** By content: the file's size, its first extent, and how many. */
  readonly size = this.#contents.f64();
  readonly first = this.#contents.u32();
  readonly extents = this.#contents.u32();
  readonly #parts = new Columns(MAX_EXTENTS, 'data extents');
  /** By extent. */
  readonly fileAt = this.#parts.f64();
  readonly length = this.#parts.f64();
  readonly dataAt = this.#parts.f64();
  /** Number of contents, and of all their extents. */
  contents = 0;
  count = 0;

  /** A new content, still without extents. Its extents are added before the next content is begun. */
  begin(size: number): number {
    const content = this.contents;
    this.#contents.reach(content);
    this.size[content] = size;
    this.first[content] = this.count;
    this.extents[content] = 0;
    this.contents += 1;
    return content;
  }

  add(fileAt: number, length: number, dataAt: number): void {
    const extent = this.count;
    this.#parts.reach(extent);
    this.fileAt[extent] = fileAt;
    this.length[extent] = length;
    this.dataAt[extent] = dataAt;
    this.count += 1;
    this.extents[this.contents - 1] = (this.extents[this.contents - 1] as number) + 1;
  }

  /** Bytes of data of one content. */
  bytes(content: number): number {
    const first = this.first[content] as number;
    let sum = 0;
    for (let i = first; i < first + (this.extents[content] as number); i++) sum += this.length[i] as number;
    return sum;
  }

  /** All extents in the order of their data. */
  byData(): Uint32Array<ArrayBuffer> {
    const { dataAt } = this;
    return Uint32Array.from({ length: this.count }, (_, extent) => extent).sort((x, y) => (dataAt[x] as number) - (dataAt[y] as number));
  }
}
