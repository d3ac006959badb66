/**
 * A checkpoint in memory with `files` sources and sinks, zero pages and small reads: what src/repository/types.ts promises,
 * without sealing, in one thread. For tests of trees.
 */
import { closeSync, constants, fstatSync, readSync, writeSync } from 'node:fs';
import { newCheckpointId, newLineageId } from '../../src/core/ids.ts';
import { RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2 } from '../../src/host/libc.ts';
import type { FileSlice, Piece, PieceResult, Sink, SliceStat } from '../../src/repository/stage/port.ts';
import type { ByteCounts, CheckpointReader, CheckpointSummary, CheckpointWriter, ExtractJob } from '../../src/repository/types.ts';

const PAGE = 4096;
const CONFINED = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;

export class MemoryCheckpoint implements CheckpointWriter, CheckpointReader {
  readonly id = newCheckpointId(0);
  readonly lineage = newLineageId();
  readonly pieces = new Map<string, { bytes: Buffer; zeroPages: boolean }[]>();
  /** Called before a piece is read; a test changes files here. */
  onTake: (piece: Piece) => void = () => {};

  async append(blob: string, pieces: Iterable<Piece> | AsyncIterable<Piece>, options: { signal: AbortSignal | undefined; onPiece?: (result: PieceResult, index: number) => void }): Promise<void> {
    let index = 0;
    for await (const piece of pieces) {
      options.signal?.throwIfAborted();
      this.onTake(piece);
      const { bytes, slices } = readPiece(piece);
      this.#list(blob).push({ bytes, zeroPages: piece.zeroPages });
      options.onPiece?.({ length: bytes.length, ...(slices === undefined ? {} : { slices }) }, index);
      index += 1;
    }
  }

  readonly ancestor = undefined;
  reuse(): boolean {
    return false;
  }

  splice(blob: string, from: string, offset: number, length: number): void {
    this.#list(blob).push({ bytes: this.blob(from).subarray(offset, offset + length), zeroPages: true });
  }

  drop(prefix: string): void {
    for (const blob of this.pieces.keys()) if (blob.startsWith(prefix)) this.pieces.delete(blob);
  }

  appendZeros(blob: string, length: number): void {
    this.#list(blob).push({ bytes: Buffer.alloc(length), zeroPages: true });
  }

  async putSmall(blob: string, bytes: Uint8Array): Promise<void> {
    this.pieces.set(blob, [{ bytes: Buffer.from(bytes), zeroPages: false }]);
  }

  bytes(): ByteCounts {
    return { raw: 0, zero: 0, reused: 0, stored: 0 };
  }

  async commit(description: Readonly<Record<string, unknown>>): Promise<CheckpointSummary> {
    return { ...this.summary, description };
  }

  async abort(): Promise<boolean> { return true; }

  get summary(): CheckpointSummary {
    return { id: this.id, lineage: this.lineage, createdMs: 0, cipher: 'null', signer: '', description: {}, bytes: this.bytes() };
  }

  get blobs(): ReadonlyMap<string, number> {
    return new Map([...this.pieces].map(([name, pieces]) => [name, pieces.reduce((sum, piece) => sum + piece.bytes.length, 0)]));
  }

  blob(name: string): Buffer {
    return Buffer.concat((this.pieces.get(name) ?? []).map((piece) => piece.bytes));
  }

  async read(blob: string, range: { offset: number; length: number } | undefined): Promise<Uint8Array> {
    const all = this.blob(blob);
    return range === undefined ? all : all.subarray(range.offset, range.offset + range.length);
  }

  *segments(blob: string): Iterable<{ offset: number; length: number; zero: boolean }> {
    let at = 0;
    for (const { bytes, zeroPages } of this.pieces.get(blob) ?? []) {
      for (const run of runs(bytes, zeroPages)) yield { offset: at + run.offset, length: run.length, zero: run.zero };
      at += bytes.length;
    }
  }

  async extract(jobs: readonly ExtractJob[], options: { signal: AbortSignal | undefined; onBytes?: (count: number) => void }): Promise<void> {
    const made = new Set<string>();
    for (const job of jobs) {
      const all = this.blob(job.blob);
      for (const segment of this.segments(job.blob)) {
        options.signal?.throwIfAborted();
        if (segment.zero) continue;
        writeSink(job.sink(segment), all.subarray(segment.offset, segment.offset + segment.length), made);
        options.onBytes?.(segment.length);
      }
    }
  }

  #list(blob: string): { bytes: Buffer; zeroPages: boolean }[] {
    const list = this.pieces.get(blob) ?? [];
    this.pieces.set(blob, list);
    return list;
  }
}

function* runs(bytes: Buffer, zeroPages: boolean): Iterable<{ offset: number; length: number; zero: boolean }> {
  if (!zeroPages) {
    yield { offset: 0, length: bytes.length, zero: false };
    return;
  }
  for (let at = 0; at < bytes.length; at += PAGE) {
    const page = bytes.subarray(at, at + PAGE);
    yield { offset: at, length: page.length, zero: page.every((byte) => byte === 0) };
  }
}

function readPiece({ source }: Piece): { bytes: Buffer; slices?: SliceStat[] } {
  if (source.kind === 'memory') return { bytes: Buffer.from(Buffer.from(source.buffer, source.offset, source.length)) };
  if (source.kind === 'fd') {
    const bytes = Buffer.alloc(source.length);
    readSync(source.fd, bytes, 0, source.length, source.offset);
    return { bytes };
  }
  const read = source.files.map((file) => readSlice(source.root, file));
  return { bytes: Buffer.concat(read.map((slice) => slice.bytes)), slices: read.map((slice) => slice.stat) };
}

function readSlice(root: number, file: FileSlice): { bytes: Buffer; stat: SliceStat } {
  const bytes = Buffer.alloc(file.length);
  try {
    const fd = openat2(root, Buffer.from(file.path), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK, 0, CONFINED);
    try {
      const regular = fstatSync(fd).isFile();
      const count = regular ? readSync(fd, bytes, 0, file.length, file.offset) : 0;
      const stat = fstatSync(fd, { bigint: true });
      return { bytes, stat: { torn: count < file.length, inode: stat.ino, size: stat.size, mtimeNs: stat.mtimeNs, ctimeNs: stat.ctimeNs } };
    } finally {
      closeSync(fd);
    }
  } catch {
    return { bytes, stat: { torn: true, inode: 0n, size: 0n, mtimeNs: 0n, ctimeNs: 0n } };
  }
}

function writeSink(sink: Sink, bytes: Buffer, made: Set<string>): void {
  if (sink.kind === 'memory') Buffer.from(sink.buffer).set(bytes, sink.offset);
  else if (sink.kind === 'fd') writeSync(sink.fd, bytes, 0, bytes.length, sink.offset);
  else {
    let at = 0;
    for (const file of sink.files) {
      const part = bytes.subarray(at, at + file.length);
      at += file.length;
      if (file.path.length === 0) continue;
      const path = Buffer.from(file.path);
      const first = !made.has(path.toString('latin1'));
      made.add(path.toString('latin1'));
      const fd = openat2(sink.root, path, constants.O_WRONLY | constants.O_NOFOLLOW | (first ? constants.O_CREAT | constants.O_EXCL : 0), first ? 0o600 : 0, CONFINED);
      try {
        writeSync(fd, part, 0, part.length, file.offset);
      } finally {
        closeSync(fd);
      }
    }
  }
}
