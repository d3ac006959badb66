/** Compares one piece with the pages of the checkpoint before, and decides what of it is stored again (docs/adr/0020-pages-of-a-lineage.md). */
import { DIGEST_BYTES, DIGEST_PAGE_BYTES } from '../crypto/page-digests.ts';
import { MAX_CHUNK_BYTES } from './port.ts';
import { PageTable } from './page-table.ts';
import type { SharedPages } from './page-table.ts';

/** In the place of a chunk: the page is not known. */
export const FRESH = 0xffffffff;

/** Of the pages of a piece: with more fresh ones, or in more parts, it is stored whole and makes one segment again. */
const MOST_FRESH = 3 / 4;
const MOST_PARTS = 3 / 4;
/** Fewer parts than this are never too many. */
const FEW_PARTS = 16;

export class PageMatcher {
  readonly #table: PageTable;
  /** What follows the last page that was found, and where that run left another one. */
  #next = 0;
  #before = 0;
  /** By page of the piece that was matched last: chunk (or FRESH) and offset in it. */
  readonly chunks = new Uint32Array(MAX_CHUNK_BYTES / DIGEST_PAGE_BYTES);
  readonly offsets = new Uint32Array(MAX_CHUNK_BYTES / DIGEST_PAGE_BYTES);

  constructor(pages: SharedPages) {
    this.#table = new PageTable(pages);
  }

  /** False: store the piece whole. True: `chunks` and `offsets` say where its pages lie. */
  match(digests: Buffer): boolean {
    const count = digests.length / DIGEST_BYTES;
    const words = new Uint32Array(digests.buffer, digests.byteOffset, digests.length / 4);
    let [fresh, parts, lastChunk, lastOffset] = [0, 0, -1, 0];
    for (let i = 0; i < count; i += 1) {
      const page = this.#find(words, i * (DIGEST_BYTES / 4));
      const chunk = page < 0 ? FRESH : this.#table.chunk(page);
      const offset = page < 0 ? 0 : this.#table.number(page) * DIGEST_PAGE_BYTES;
      if (chunk === FRESH) fresh += 1;
      if (chunk !== lastChunk || (chunk !== FRESH && offset !== lastOffset + DIGEST_PAGE_BYTES)) parts += 1;
      [this.chunks[i], this.offsets[i], lastChunk, lastOffset] = [chunk, offset, chunk, offset];
    }
    return fresh <= count * MOST_FRESH && parts <= Math.max(FEW_PARTS, count * MOST_PARTS);
  }

  /** A page that many windows have should be found in its own chunk, or all windows would come to refer to one: so first where the pages before it were. */
  #find(words: Uint32Array, word: number): number {
    const [next, before] = [this.#next, this.#before];
    [this.#next, this.#before] = [next + 1, before + 1];
    if (this.#table.is(next, words, word)) return next;
    if (this.#table.is(before, words, word)) {
      [this.#next, this.#before] = [before + 1, next + 1];
      return before;
    }
    const page = this.#table.find(words, word);
    // Where nothing is found, the page that was there before has changed.
    if (page >= 0) [this.#next, this.#before] = [page + 1, next + 1];
    return page;
  }
}
