/**
 * The pages of the checkpoint before, by their digests, in memory shared by the main thread and the workers: a page
 * is found wherever it lies now. Filled by the main thread before the workers see it, and only read from then on.
 */
import { DIGEST_BYTES } from '../crypto/page-digests.ts';

export interface SharedPages {
  /** Open addressing: number of a page + 1. */
  readonly slots: SharedArrayBuffer;
  /** Digests lie anywhere in these bytes, at multiples of four. */
  readonly bytes: SharedArrayBuffer;
  /** By page: where in `bytes` its digest lies, in words; its chunk in the shared index; its number in the chunk's data. */
  readonly words: SharedArrayBuffer;
  readonly chunks: SharedArrayBuffer;
  readonly numbers: SharedArrayBuffer;
}

export class PageTable {
  readonly shared: SharedPages;
  readonly #slots: Int32Array;
  readonly #bytes: Uint32Array;
  readonly #words: Uint32Array;
  readonly #chunks: Uint32Array;
  readonly #numbers: Uint16Array;
  #count = 0;

  constructor(shared: SharedPages) {
    this.shared = shared;
    this.#slots = new Int32Array(shared.slots);
    this.#bytes = new Uint32Array(shared.bytes);
    this.#words = new Uint32Array(shared.words);
    this.#chunks = new Uint32Array(shared.chunks);
    this.#numbers = new Uint16Array(shared.numbers);
  }

  /** `bytes` holds the digests of at most so many pages as fit into it. */
  static over(bytes: SharedArrayBuffer): PageTable {
    const pages = Math.floor(bytes.byteLength / DIGEST_BYTES);
    const slots = 2 ** Math.ceil(Math.log2(Math.max(16, pages * 1.6)));
    return new PageTable({ slots: new SharedArrayBuffer(slots * 4), bytes, words: new SharedArrayBuffer(pages * 4), chunks: new SharedArrayBuffer(pages * 4), numbers: new SharedArrayBuffer(pages * 2) });
  }

  /** The page whose digest lies at byte `at`. Of pages that are alike find() knows the first. */
  add(at: number, chunk: number, number: number): void {
    const word = at / 4;
    const page = this.#count++;
    this.#words[page] = word;
    this.#chunks[page] = chunk;
    this.#numbers[page] = number;
    const mask = this.#slots.length - 1;
    for (let slot = (this.#bytes[word] as number) & mask; ; slot = (slot + 1) & mask) {
      const taken = this.#slots[slot] as number;
      if (taken !== 0) {
        if (this.#equals(taken - 1, this.#bytes, word)) return;
        continue;
      }
      this.#slots[slot] = page + 1;
      return;
    }
  }

  /** Whether this page has the digest that begins at `word` of `digests`. */
  is(page: number, digests: Uint32Array, word: number): boolean {
    return page < this.#words.length && this.#equals(page, digests, word);
  }

  /** The page with the digest that begins at `word` of `digests`, or -1. */
  find(digests: Uint32Array, word: number): number {
    const mask = this.#slots.length - 1;
    for (let slot = (digests[word] as number) & mask; ; slot = (slot + 1) & mask) {
      const taken = this.#slots[slot] as number;
      if (taken === 0) return -1;
      if (this.#equals(taken - 1, digests, word)) return taken - 1;
    }
  }

  chunk(page: number): number {
    return this.#chunks[page] as number;
  }

  number(page: number): number {
    return this.#numbers[page] as number;
  }

  #equals(page: number, digests: Uint32Array, at: number): boolean {
    const word = this.#words[page] as number;
    const bytes = this.#bytes;
    return bytes[word] === digests[at] && bytes[word + 1] === digests[at + 1] && bytes[word + 2] === digests[at + 2] && bytes[word + 3] === digests[at + 3];
  }
}
