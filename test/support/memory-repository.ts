/** A checkpoint in memory: the writer and the reader of src/repository/types.ts without sealing, for tests of rooms above the repository. */
import { randomBytes } from 'node:crypto';
import { readSync, writeSync } from 'node:fs';
import { newCheckpointId, newLineageId } from '../../src/core/ids.ts';
import type { CheckpointReader, CheckpointSummary, CheckpointWriter } from '../../src/repository/types.ts';
import type { Piece, PieceResult, Sink } from '../../src/repository/stage/port.ts';

const PAGE = 4096;

export interface SavedPiece {
  readonly bytes: Buffer;
}

/** Takes pieces of `fd` and `memory` sources. Pieces are kept apart, so that a test can look at the cuts. */
export class MemoryWriter implements CheckpointWriter {
  readonly id = newCheckpointId(0);
  readonly lineage = newLineageId();
  readonly blobs = new Map<string, Buffer[]>();
  /** Called before each piece is taken; lets a test slow the writer down or fail it. */
  onTake: (blob: string) => Promise<void> = async () => {};
  aborted = false;

  async append(blob: string, pieces: Iterable<Piece> | AsyncIterable<Piece>, options: { signal: AbortSignal | undefined; onPiece?: (result: PieceResult, index: number) => void }): Promise<void> {
    let index = 0;
    for await (const piece of pieces) {
      options.signal?.throwIfAborted();
      await this.onTake(blob);
      const bytes = readPiece(piece);
      this.#list(blob).push(bytes);
      options.onPiece?.({ length: bytes.length }, index);
      index += 1;
    }
    this.#list(blob);
  }

  readonly ancestor = undefined;
  reuse(): boolean {
    return false;
  }

  splice(blob: string, from: string, offset: number, length: number): void {
    this.#list(blob).push(this.blob(from).subarray(offset, offset + length));
  }

  drop(prefix: string): void {
    for (const blob of this.blobs.keys()) if (blob.startsWith(prefix)) this.blobs.delete(blob);
  }

  appendZeros(blob: string, length: number): void {
    this.#list(blob).push(Buffer.alloc(length));
  }

  async putSmall(blob: string, bytes: Uint8Array): Promise<void> {
    if (this.blobs.has(blob)) throw new Error(`blob ${blob} exists`);
    if (bytes.length > 1024 * 1024) throw new Error(`blob ${blob} is not small`);
    this.blobs.set(blob, [Buffer.from(bytes)]);
  }

  bytes(): { raw: number; zero: number; reused: number; stored: number } {
    const raw = [...this.blobs.values()].flat().reduce((sum, piece) => sum + piece.length, 0);
    return { raw, zero: 0, reused: 0, stored: raw };
  }

  async commit(description: Readonly<Record<string, unknown>>): Promise<CheckpointSummary> {
    return { id: this.id, lineage: this.lineage, createdMs: 0, cipher: 'null', signer: randomBytes(32).toString('hex'), description, bytes: this.bytes() };
  }

  async abort(): Promise<boolean> {
    this.aborted = true;
    return true;
  }

  blob(name: string): Buffer {
    return Buffer.concat(this.blobs.get(name) ?? []);
  }

  async reader(): Promise<CheckpointReader> {
    return new MemoryReader(await this.commit({}), new Map([...this.blobs].map(([name, pieces]) => [name, Buffer.concat(pieces)])));
  }

  #list(blob: string): Buffer[] {
    const list = this.blobs.get(blob) ?? [];
    this.blobs.set(blob, list);
    return list;
  }
}

function readPiece({ source }: Piece): Buffer {
  if (source.kind === 'memory') return Buffer.from(Buffer.from(source.buffer, source.offset, source.length));
  if (source.kind !== 'fd') throw new Error('files sources are not for this double');
  const bytes = Buffer.alloc(source.length);
  for (let at = 0; at < bytes.length; ) {
    const count = readSync(source.fd, bytes, at, bytes.length - at, source.offset + at);
    if (count === 0) throw new Error('short read');
    at += count;
  }
  return bytes;
}

export class MemoryReader implements CheckpointReader {
  readonly blobs: ReadonlyMap<string, number>;
  readonly summary: CheckpointSummary;
  readonly #contents: ReadonlyMap<string, Buffer>;

  constructor(summary: CheckpointSummary, contents: ReadonlyMap<string, Buffer>) {
    this.summary = summary;
    this.#contents = contents;
    this.blobs = new Map([...contents].map(([name, bytes]) => [name, bytes.length]));
  }

  async read(blob: string, range: { offset: number; length: number } | undefined): Promise<Uint8Array> {
    const bytes = this.#contents.get(blob) ?? Buffer.alloc(0);
    return range === undefined ? bytes : bytes.subarray(range.offset, range.offset + range.length);
  }

  *segments(blob: string): Generator<{ offset: number; length: number; zero: boolean }> {
    const bytes = this.#contents.get(blob) ?? Buffer.alloc(0);
    const zeros = Buffer.alloc(PAGE);
    let segment: { offset: number; length: number; zero: boolean } | undefined;
    for (let offset = 0; offset < bytes.length; offset += PAGE) {
      const page = bytes.subarray(offset, offset + PAGE);
      const zero = zeros.subarray(0, page.length).equals(page);
      if (segment !== undefined && segment.zero === zero) segment.length += page.length;
      else {
        if (segment !== undefined) yield segment;
        segment = { offset, length: page.length, zero };
      }
    }
    if (segment !== undefined) yield segment;
  }

  async extract(jobs: readonly { blob: string; sink: (segment: { offset: number; length: number }) => Sink }[], options: { signal: AbortSignal | undefined; onBytes?: (count: number) => void }): Promise<void> {
    for (const { blob, sink } of jobs) {
      for (const { offset, length, zero } of this.segments(blob)) {
        options.signal?.throwIfAborted();
        options.onBytes?.(length);
        if (zero) continue;
        const target = sink({ offset, length });
        if (target.kind !== 'fd') throw new Error('only fd sinks here');
        writeSync(target.fd, this.#contents.get(blob) ?? Buffer.alloc(0), offset, length, target.offset);
      }
    }
  }
}
