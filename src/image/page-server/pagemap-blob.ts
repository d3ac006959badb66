/** Writes a pagemap while its runs come in: a small blob as a rule, in pieces when memory is very fragmented. */
import { MiB } from '../../core/units.ts';
import type { CheckpointWriter } from '../../repository/types.ts';
import { PagemapWriter } from '../criu/pagemap.ts';
import type { PageRun } from '../criu/pagemap.ts';

const PIECE_BYTES = MiB;

export class PagemapBlob {
  readonly #writer: CheckpointWriter;
  readonly #blob: string;
  readonly #signal: AbortSignal | undefined;
  readonly #encoder = new PagemapWriter();
  #parts: Uint8Array[] = [];
  #length = 0;
  #saved: Promise<void> | undefined;

  constructor(writer: CheckpointWriter, blob: string, pagesId: number, signal: AbortSignal | undefined) {
    this.#writer = writer;
    this.#blob = blob;
    this.#signal = signal;
    this.#add(this.#encoder.head(pagesId));
  }

  run(run: PageRun): void {
    const message = this.#encoder.run(run);
    if (this.#length + message.length > PIECE_BYTES) void this.#flush();
    this.#add(message);
  }

  /** Resolves when the blob is with the writer. */
  finish(): Promise<void> {
    if (this.#saved === undefined) return this.#writer.putSmall(this.#blob, Buffer.concat(this.#parts), { signal: this.#signal });
    return this.#flush();
  }

  #add(bytes: Uint8Array): void {
    this.#parts.push(bytes);
    this.#length += bytes.length;
  }

  #flush(): Promise<void> {
    const bytes = new Uint8Array(new SharedArrayBuffer(this.#length));
    let offset = 0;
    for (const part of this.#parts) {
      bytes.set(part, offset);
      offset += part.length;
    }
    [this.#parts, this.#length] = [[], 0];
    const piece = { source: { kind: 'memory', buffer: bytes.buffer, offset: 0, length: bytes.length }, zeroPages: false } as const;
    const before = this.#saved ?? Promise.resolve();
    const saved = before.then(() => this.#writer.append(this.#blob, [piece], { signal: this.#signal }));
    saved.catch(() => {});
    this.#saved = saved;
    return saved;
  }
}
