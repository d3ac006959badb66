/** Collects small blobs until there is a chunk's worth of them. */
import type { SegmentList } from './format/segments.ts';
import type { Batch } from './stage/batches.ts';
import type { SealedPiece } from './stage/messages.ts';
import { PIECE_BYTES } from './stage/port.ts';

export interface SmallGroup {
  readonly batch: Batch;
  /** Fills the blobs in, when the chunk that holds them is known. */
  readonly place: (piece: SealedPiece) => void;
}

export class SmallBlobs {
  #parts: { readonly segments: SegmentList; readonly bytes: Uint8Array }[] = [];
  #length = 0;

  /** True when the blob has to wait until {@link take} has made room. */
  isFull(length: number): boolean {
    return this.#length > 0 && this.#length + length > PIECE_BYTES;
  }

  /** Copies the bytes: the caller may reuse its buffer. */
  add(segments: SegmentList, bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#parts.push({ segments, bytes: Uint8Array.from(bytes) });
    this.#length += bytes.length;
  }

  take(): SmallGroup | undefined {
    const parts = this.#parts;
    const bytes = new Uint8Array(this.#length);
    if (bytes.length === 0) return undefined;
    [this.#parts, this.#length] = [[], 0];
    let at = 0;
    for (const part of parts) {
      bytes.set(part.bytes, at);
      at += part.bytes.length;
    }
    const source = { kind: 'bytes', bytes, length: bytes.length } as const;
    return {
      batch: { pieces: [{ source, zeroPages: false }], transfer: [bytes.buffer], bytes: bytes.length },
      place: (piece) => {
        let offset = 0;
        for (const part of parts) {
          part.segments.data(piece.chunk, offset, part.bytes.length);
          offset += part.bytes.length;
        }
      },
    };
  }
}
