/** Where the pages of a task lie in its pages file, by address: what a lazy restore looks up for every request of criu. */
import type { PageRun } from '../criu/pagemap.ts';
import { PE_LAZY } from '../criu/pagemap.ts';

/** Pages of 4 KiB; a lazy restore of others is refused. */
export const PAGE = 4096;

/** Runs of pages that are neighbours in the address space and in the pages file. Columns, as there can be millions. */
export class LazyTask {
  /** Inside the container's pid namespace; criu names it so in its requests. */
  readonly pid: number;
  readonly blob: string;
  #addresses = new Float64Array(64);
  #pages = new Float64Array(64);
  /** Byte offset in the pages file. */
  #offsets = new Float64Array(64);
  #count = 0;
  #length = 0;
  lazyBytes = 0;

  constructor(pid: number, blob: string) {
    this.pid = pid;
    this.blob = blob;
  }

  /** Runs come in the order of the pagemap, only those whose pages are in the file. */
  add({ address, pages, flags }: PageRun): void {
    if ((flags & PE_LAZY) !== 0) this.#push(address, pages);
    this.#length += pages * PAGE;
  }

  #push(address: number, pages: number): void {
    if (this.#count === this.#addresses.length) {
      this.#addresses = doubled(this.#addresses);
      this.#pages = doubled(this.#pages);
      this.#offsets = doubled(this.#offsets);
    }
    this.#addresses[this.#count] = address;
    this.#pages[this.#count] = pages;
    this.#offsets[this.#count] = this.#length;
    this.#count += 1;
    this.lazyBytes += pages * PAGE;
  }

  /** The place of a lazy page, and how many lazy pages follow it without a gap, itself included. */
  find(address: number): { readonly offset: number; readonly pages: number } | undefined {
    let [low, high] = [0, this.#count - 1];
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if ((this.#addresses[middle] ?? 0) <= address) low = middle;
      else high = middle - 1;
    }
    const before = (address - (this.#addresses[low] ?? Number.POSITIVE_INFINITY)) / PAGE;
    const left = (this.#pages[low] ?? 0) - before;
    if (!Number.isInteger(before) || before < 0 || left <= 0) return undefined;
    return { offset: (this.#offsets[low] ?? 0) + before * PAGE, pages: left };
  }

  /** The lazy byte ranges of the pages file, ascending. */
  *ranges(): Generator<{ readonly offset: number; readonly length: number }> {
    for (let i = 0; i < this.#count; i += 1) yield { offset: this.#offsets[i] ?? 0, length: (this.#pages[i] ?? 0) * PAGE };
  }
}

function doubled(column: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(column.length * 2);
  larger.set(column);
  return larger;
}
