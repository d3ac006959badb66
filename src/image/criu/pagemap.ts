/** pagemap-PID.img and pagemap-shmem-ID.img: which pages of an address space lie in pages-N.img, in its order (images/pagemap.proto). */
import { StasisError } from '../../core/errors.ts';
import { EntrySplitter, frame, imageHeader } from './framing.ts';
import { WireReader, WireWriter } from './wire.ts';

/** Flags of a run of pages (criu/include/pagemap.h). */
export const PE_PARENT = 1;
export const PE_LAZY = 2;
export const PE_PRESENT = 4;

export interface PageRun {
  /** Address of the first page; in a shared segment the offset from its start. */
  readonly address: number;
  readonly pages: number;
  readonly flags: number;
}

/** An address space ends below 2^57 (five-level paging), so a page count below this cannot overflow it. */
const MAX_ADDRESS = 2 ** 57;

/** "pagemap-12.img" → which pages of what. */
export function parsePagemapName(name: string): { readonly kind: 'task' | 'shmem'; readonly id: number } | undefined {
  const match = /^pagemap-(shmem-)?(\d{1,16})\.img$/.exec(name);
  if (match === null) return undefined;
  return { kind: match[1] === undefined ? 'task' : 'shmem', id: Number(match[2]) };
}

export const pagemapName = (kind: 'task' | 'shmem', id: number): string => `pagemap-${kind === 'shmem' ? 'shmem-' : ''}${id}.img`;
export const pagesName = (pagesId: number): string => `pages-${pagesId}.img`;

/** Reads a pagemap image block by block: the first message names the pages file, the others are runs. */
export class PagemapReader {
  #pagesId: number | undefined;
  readonly #splitter: EntrySplitter;
  readonly #what: string;

  constructor(what: string) {
    this.#what = what;
    this.#splitter = new EntrySplitter('pagemap', what);
  }

  *push(block: Uint8Array): Generator<PageRun> {
    for (const message of this.#splitter.push(block)) {
      if (this.#pagesId === undefined) this.#pagesId = decodeHead(message, this.#what);
      else yield decodeRun(message, this.#what);
    }
  }

  end(): void {
    this.#splitter.end();
    if (this.#pagesId === undefined) throw new StasisError('OBJECT_CORRUPT', `${this.#what} has no head`);
  }

  /** N of pages-N.img; undefined until the head has been read. */
  get pagesId(): number | undefined {
    return this.#pagesId;
  }
}

function decodeHead(message: Uint8Array, what: string): number {
  const reader = new WireReader(message, what);
  let pagesId: number | undefined;
  while (reader.next()) if (reader.field === 1) pagesId = reader.uint();
  if (pagesId === undefined) throw new StasisError('OBJECT_CORRUPT', `${what} does not say which pages file it belongs to`);
  return pagesId;
}

function decodeRun(message: Uint8Array, what: string): PageRun {
  const reader = new WireReader(message, what);
  let [address, pages, compatPages, flags, inParent] = [-1, 0, 0, -1, false];
  while (reader.next()) {
    if (reader.field === 1) address = reader.address();
    else if (reader.field === 2) compatPages = reader.uint();
    else if (reader.field === 3) inParent = reader.bool();
    else if (reader.field === 4) flags = reader.uint();
    else if (reader.field === 5) pages = reader.uint();
  }
  // CRIU 4.2 moved the count to field 5 and leaves 0 in field 2; images from before flags existed say only "in parent".
  pages = pages === 0 ? compatPages : pages;
  if (flags === -1) flags = inParent ? PE_PARENT : PE_PRESENT;
  if (address < 0 || pages === 0 || address + pages * 4096 > MAX_ADDRESS) {
    throw new StasisError('OBJECT_CORRUPT', `${what} has an impossible run of ${pages} pages at 0x${Math.max(0, address).toString(16)}`);
  }
  return { address, pages, flags };
}

/** Writes what PagemapReader reads. The count goes into both fields, so that every CRIU reads it. */
export class PagemapWriter {
  readonly #wire = new WireWriter();

  head(pagesId: number): Uint8Array {
    return Buffer.concat([imageHeader('pagemap'), frame(this.#wire.reset().uint(1, pagesId).result())]);
  }

  run({ address, pages, flags }: PageRun): Uint8Array {
    const compatPages = pages < 2 ** 32 ? pages : 0;
    return frame(this.#wire.reset().uint(1, address).uint(2, compatPages).uint(4, flags).uint(5, pages).result());
  }
}
