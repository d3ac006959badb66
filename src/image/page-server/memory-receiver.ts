/** Hands the pages that come in to the writer, while the dump is going on: one pagemap and one pages file for each image. */
import { StasisError } from '../../core/errors.ts';
import type { CheckpointWriter } from '../../repository/types.ts';
import type { MemoryLayer, ReceivedMemory } from '../types.ts';
import type { KeptImage, KeptMemory } from '../criu/kept-memory.ts';
import { PE_LAZY, PE_PRESENT, pagemapName, pagesName } from '../criu/pagemap.ts';
import type { PageRun } from '../criu/pagemap.ts';
import { Channel } from './channel.ts';
import { PagemapBlob } from './pagemap-blob.ts';
import { protocolError } from './protocol.ts';
import type { ImageId } from './protocol.ts';
import type { SlabPool } from './slab-pool.ts';
import { Stage } from './stage.ts';
import type { StagedPiece } from './stage.ts';

/** CRIU's own server counts from here too: page ids of a server never meet those of files written locally. */
const FIRST_PAGES_ID = 0x10001;
/** One image per process and shared segment. */
const MAX_IMAGES = 2 ** 20;
const MAX_ADDRESS = 2 ** 57;

export interface ReceiverOptions {
  readonly writer: CheckpointWriter;
  /** Blob prefix of this container's images ("containers/0/criu/"). */
  readonly prefix: string;
  readonly pool: SlabPool;
  /** Pagemaps are not saved but told: this dump is one of several rounds (criu/layers.ts). */
  readonly layered: boolean;
  /** Not the last one: should it fail, the writer must not mind. */
  readonly round: boolean;
  /** Gets what a rehearsal needs of it. */
  readonly kept?: KeptMemory | undefined;
  /** Page size of this machine in bytes. */
  readonly pageSize: number;
  readonly signal: AbortSignal | undefined;
  readonly onBytes: (count: number) => void;
  /** Hears once of the first failure of the writer. */
  readonly onFailure: (error: Error) => void;
}

interface OpenImage {
  readonly id: ImageId;
  readonly name: string;
  readonly pagesId: number;
  readonly channel: Channel<StagedPiece>;
  readonly pagemap: PagemapBlob | undefined;
  readonly runs: PageRun[];
  readonly kept: KeptImage | undefined;
  pages: number;
  lazyPages: number;
  /** Where in the address space the next byte belongs, and where the current run ends. */
  address: number;
  reached: number;
}

export class MemoryReceiver {
  readonly #options: ReceiverOptions;
  readonly #stage: Stage;
  readonly #layers: MemoryLayer[] = [];
  readonly #images = new Map<string, ReceivedMemory['images'][number]>();
  /** What is on its way to the writer; done ones leave. */
  readonly #saving = new Set<Promise<void>>();
  #image: OpenImage | undefined;
  #failure: Error | undefined;
  #room: Uint8Array | undefined;

  constructor(options: ReceiverOptions) {
    this.#options = options;
    options.kept?.begin();
    this.#stage = new Stage(options.pool);
  }

  /** An image begins; the one before it is complete. */
  open(id: ImageId): void {
    this.endImage();
    const name = pagemapName(id.kind, id.id);
    if (this.#images.has(name)) throw protocolError(`${name} comes twice`);
    if (this.#images.size >= MAX_IMAGES) throw new StasisError('LIMIT_EXCEEDED', `the dump has more than ${MAX_IMAGES} memory images`);
    const { writer, prefix, layered, signal } = this.#options;
    const pagesId = FIRST_PAGES_ID + this.#images.size;
    const channel = new Channel<StagedPiece>();
    const pagemap = layered ? undefined : new PagemapBlob(writer, prefix + name, pagesId, signal);
    const kept = this.#options.kept?.open({ pagemap: name, ...id, pagesId, blob: prefix + pagesName(pagesId) });
    this.#image = {
      id, name, pagesId, channel, pagemap, kept, runs: [], pages: 0, lazyPages: 0, address: 0, reached: 0,
    };
    this.#record(this.#image);
    if (layered) this.#layers.push({ pagemap: name, ...id, pagesId, blob: prefix + pagesName(pagesId), runs: this.#image.runs });
    this.#save(this.#append(prefix + pagesName(pagesId), channel));
  }

  /** A run of pages begins. Returns how many bytes follow. */
  run(id: ImageId, address: number, pages: number, flags: number): number {
    const image = this.#image;
    const { pageSize } = this.#options;
    if (image === undefined || image.id.id !== id.id || image.id.kind !== id.kind) throw protocolError(`pages come for ${pagemapName(id.kind, id.id)}, which is not open`);
    const end = address + pages * pageSize;
    if (pages < 1 || address % pageSize !== 0 || address < image.reached || end > MAX_ADDRESS) {
      throw protocolError(`${pages} pages at 0x${address.toString(16)} of ${image.name}, where the last ones ended at 0x${image.reached.toString(16)}`);
    }
    if (image.pagemap !== undefined) image.pagemap.run({ address, pages, flags });
    else image.runs.push({ address, pages, flags });
    image.kept?.run({ address, pages, flags });
    image.reached = end;
    if ((flags & PE_PRESENT) === 0) return 0;
    image.pages += pages;
    if ((flags & PE_LAZY) !== 0) image.lazyPages += pages;
    image.address = address;
    return pages * pageSize;
  }

  room(): Uint8Array | undefined {
    this.#room = this.#stage.room();
    return this.#room;
  }

  whenRoom(wake: () => void): void {
    this.#stage.whenRoom(wake);
  }

  wrote(count: number): void {
    const image = this.#image;
    if (image === undefined) throw protocolError('pages come without an image');
    if (image.kept !== undefined && this.#room !== undefined) image.kept.bytes(this.#room.subarray(0, count));
    for (const piece of this.#stage.wrote(image.address, count)) image.channel.push(piece);
    image.address += count;
  }

  /** Completes the open image, if there is one. */
  endImage(): void {
    const image = this.#image;
    if (image === undefined) return;
    for (const piece of this.#stage.end()) image.channel.push(piece);
    image.channel.end();
    this.#image = undefined;
    this.#record(image);
    if (image.pagemap !== undefined) this.#save(image.pagemap.finish());
  }

  /** What has come in so far. */
  memory(): ReceivedMemory {
    const { pageSize, layered } = this.#options;
    return { pageSize, images: [...this.#images.values()], ...(layered ? { layers: this.#layers } : {}) };
  }

  /** Resolves when the writer has taken everything; rejects with the first failure. The slabs are back in the pool either way. */
  async saved(): Promise<void> {
    // Nothing may read a slab any more when somebody else gets it: wait for all, then look for failures.
    await Promise.allSettled(this.#saving);
    this.#stage.close();
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** The dump is not going to be complete: what is being appended ends with this error. */
  fail(error: Error): void {
    this.#failure ??= error;
    // What has come of a round is taken by the writer and left out in the end: a failed append would be the end of it.
    if (this.#options.round) this.#image?.channel.end();
    else this.#image?.channel.fail(error);
    this.#image = undefined;
  }

  async #append(blob: string, channel: Channel<StagedPiece>): Promise<void> {
    const staged: StagedPiece[] = [];
    await this.#options.writer.append(blob, piecesOf(channel, staged), {
      signal: this.#options.signal,
      onPiece: ({ length }) => {
        const taken = staged.shift();
        if (taken !== undefined) this.#stage.release(taken);
        this.#options.onBytes(length);
      },
    });
  }

  #record({ id, name, pagesId, pages, lazyPages }: OpenImage): void {
    this.#images.set(name, { pagemap: name, ...id, pagesId, pages, lazyPages });
  }

  #save(work: Promise<void>): void {
    const done = work.catch((error: unknown) => {
      if (this.#failure !== undefined) return;
      this.#failure = error as Error;
      this.#options.onFailure(this.#failure);
    }).finally(() => this.#saving.delete(done));
    this.#saving.add(done);
  }
}

/** Remembers in `staged` what has been handed out, in order. */
async function* piecesOf(channel: Channel<StagedPiece>, staged: StagedPiece[]): AsyncGenerator<StagedPiece['piece']> {
  for await (const item of channel) {
    staged.push(item);
    yield item.piece;
  }
}
