/**
 * What a rehearsal needs of memory that is on its way to the repository and in no image: where all pages lie, and the
 * bytes of those that criu puts in place itself (the vDSO, private pages of files, locked memory). Shared segments come
 * back empty: nobody reads them in a rehearsal.
 */
import { closeSync, ftruncateSync, linkSync, mkdirSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { formatBytes } from '../../core/units.ts';
import type { MemoryLayer } from '../types.ts';
import { listImages, pagemapRuns, readMemoryImages } from './directory.ts';
import { runsOf, type MemoryLayers, type Place } from './layers.ts';
import { PE_LAZY, PE_PRESENT, PagemapReader, PagemapWriter, pagesName } from './pagemap.ts';
import type { PageRun } from './pagemap.ts';

/** Of address spaces together: 50 bytes each. */
const MAX_RUNS = 500_000;
const COPY_BYTES = 1024 * 1024;

export type KeptLayer = Omit<MemoryLayer, 'runs'>;

/** Bytes that criu wants at once, of a process. */
function isNeeded(kind: 'task' | 'shmem', flags: number): boolean {
  return kind === 'task' && (flags & PE_PRESENT) !== 0 && (flags & PE_LAZY) === 0;
}

export class KeptMemory {
  readonly #directory: string;
  readonly #maxBytes: number;
  readonly #pageSize: number;
  readonly #files = new Map<string, number>();
  #last: { layer: KeptLayer; runs: PageRun[] }[] = [];
  #bytes = 0;
  #runs = 0;
  #lost: string | undefined;

  /** Made in memory, mode 0700. At most `maxBytes` of pages are kept there. */
  constructor(
    directory: string, { maxBytes, pageSize = 4096 }: { readonly maxBytes: number; readonly pageSize?: number },
  ) {
    this.#directory = directory;
    this.#maxBytes = maxBytes;
    this.#pageSize = pageSize;
    mkdirSync(directory, { mode: 0o700 });
  }

  /** Why this is not enough for a rehearsal; undefined: it is. */
  get lost(): string | undefined {
    return this.#lost;
  }

  /** A dump begins: the last one that did is the one that is rehearsed. */
  begin(): void {
    this.#last = [];
  }

  /** An address space of this dump. */
  open(layer: KeptLayer): KeptImage {
    const runs: PageRun[] = [];
    this.#last.push({ layer, runs });
    let [offset, needed] = [0, false];
    return {
      run: (run) => {
        this.#runs += 1;
        if (this.#runs > MAX_RUNS) this.#lost ??= `the memory lies in more than ${MAX_RUNS} pieces`;
        else runs.push(run);
        needed = isNeeded(layer.kind, run.flags);
      },
      bytes: (chunk) => {
        if (needed) this.#keep(layer.blob, offset, chunk);
        offset += chunk.length;
      },
    };
  }

  /** Of images that were dumped into a directory and are about to be emptied. */
  keepFile(layer: MemoryLayer, path: string): void {
    const fd = openSync(path, 'r');
    try {
      let offset = 0;
      for (const { pages, flags } of layer.runs) {
        if ((flags & PE_PRESENT) === 0) continue;
        const length = pages * this.#pageSize;
        if (isNeeded(layer.kind, flags)) {
          for (const [at, chunk] of chunks(fd, offset, length)) this.#keep(layer.blob, at, chunk);
        }
        offset += length;
      }
    } finally {
      closeSync(fd);
    }
  }

  #keep(blob: string, offset: number, chunk: Uint8Array): void {
    this.#bytes += chunk.length;
    if (this.#bytes > this.#maxBytes) {
      this.#lost ??= `more than ${formatBytes(this.#maxBytes)} of its memory cannot be left out`;
    }
    if (this.#lost !== undefined) return;
    const fd = this.#files.get(blob) ?? openSync(this.#path(blob), 'w', 0o600);
    this.#files.set(blob, fd);
    writeSync(fd, chunk, 0, chunk.length, offset);
  }

  #path(blob: string): string {
    return join(this.#directory, blob.replaceAll('/', '_'));
  }

  /**
   * Writes images into `target`, which must not exist, as if everything had been dumped into one directory at once:
   * what is in `imageDir`, and memory of it, of `layers` and of what was kept. Lazy pages are holes.
   */
  async layOut(
    target: string, { imageDir, layers }: { readonly imageDir: string; readonly layers: MemoryLayers },
  ): Promise<void> {
    // The sealing may add the last round while this reads.
    const preview = layers.preview();
    const last = this.#last;
    mkdirSync(target, { mode: 0o700 });
    const files = await listImages(imageDir, { round: true });
    const local = await localLayers(imageDir, files);
    const ofMemory = new Set(local.flatMap(({ pagemap, pagesId }) => [pagemap, pagesName(pagesId)]));
    for (const { name } of files) if (!ofMemory.has(name)) linkSync(join(imageDir, name), join(target, name));
    for (const { image, places } of preview([...local, ...last.map(({ layer, runs }) => ({ ...layer, runs }))])) {
      const encoder = new PagemapWriter();
      const messages = [...runsOf(places, this.#pageSize)].map((run) => Buffer.from(encoder.run(run)));
      writeFileSync(
        join(target, image.pagemap), Buffer.concat([encoder.head(image.pagesId), ...messages]), { mode: 0o600 },
      );
      this.#layOutPages(join(target, pagesName(image.pagesId)), image.kind, places);
    }
  }

  #layOutPages(path: string, kind: 'task' | 'shmem', places: readonly Place[]): void {
    using held = new DisposableStack();
    const opened = (name: string, flags: string): number => held.adopt(openSync(name, flags, 0o600), closeSync);
    const to = opened(path, 'wx');
    const sources = new Map<string, number>();
    let at = 0;
    for (const { blob, offset, pages, flags } of places) {
      const length = pages * this.#pageSize;
      const from = sources.get(blob) ?? (
        blob.startsWith('/') ? opened(blob, 'r') : this.#files.has(blob) ? opened(this.#path(blob), 'r') : undefined
      );
      if (from !== undefined && isNeeded(kind, flags)) {
        sources.set(blob, from);
        for (const [position, chunk] of chunks(from, offset, length)) {
          writeSync(to, chunk, 0, chunk.length, at + position - offset);
        }
      }
      at += length;
    }
    ftruncateSync(to, at);
  }

  [Symbol.dispose](): void {
    for (const fd of this.#files.values()) closeSync(fd);
    this.#files.clear();
  }
}

export interface KeptImage {
  /** A run of pages follows, in the order of addresses. */
  readonly run: (run: PageRun) => void;
  /** Of the run that was announced last. */
  readonly bytes: (chunk: Uint8Array) => void;
}

/** Address spaces whose pages are in the directory; the path of the file stands for a blob. */
async function localLayers(imageDir: string, files: Awaited<ReturnType<typeof listImages>>): Promise<MemoryLayer[]> {
  const layers: MemoryLayer[] = [];
  for (const { pagemap, kind, id, pagesId } of await readMemoryImages(imageDir, files)) {
    const runs: PageRun[] = [];
    for await (const run of pagemapRuns(join(imageDir, pagemap), new PagemapReader(pagemap))) runs.push(run);
    layers.push({ pagemap, kind, id, pagesId, blob: join(imageDir, pagesName(pagesId)), runs });
  }
  return layers;
}

function* chunks(fd: number, offset: number, length: number): Generator<[number, Uint8Array]> {
  const buffer = Buffer.alloc(Math.min(length, COPY_BYTES));
  for (let done = 0; done < length;) {
    const count = readSync(fd, buffer, 0, Math.min(buffer.length, length - done), offset + done);
    if (count === 0) return;
    yield [offset + done, buffer.subarray(0, count)];
    done += count;
  }
}
