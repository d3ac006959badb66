/** Groups pieces into jobs, so that the cost of a message vanishes, without holding back what is there. */
import { setImmediate as turn } from 'node:timers/promises';
import { invariant } from '../../core/assert.ts';
import { MiB } from '../../core/units.ts';
import { packFiles, transferables } from './file-list.ts';
import type { WirePiece, WireSource } from './messages.ts';
import type { Piece, Source } from './port.ts';
import { MAX_CHUNK_BYTES } from './port.ts';

const BATCH_BYTES = 4 * MiB;
const BATCH_PIECES = 16;

export interface Batch {
  readonly pieces: WirePiece[];
  readonly transfer: ArrayBuffer[];
  bytes: number;
}

const newBatch = (): Batch => ({ pieces: [], transfer: [], bytes: 0 });

/**
 * When the source has nothing more at once, what has come so far goes out: its owner may be waiting for
 * just these pieces to be read before it makes the next ones.
 */
export async function* batches(pieces: Iterable<Piece> | AsyncIterable<Piece>): AsyncIterable<Batch> {
  let batch = newBatch();
  for await (const piece of Symbol.asyncIterator in pieces ? orPause(pieces) : pieces) {
    if (piece !== undefined) add(batch, piece);
    if (batch.pieces.length === 0 || (piece !== undefined && batch.bytes < BATCH_BYTES && batch.pieces.length < BATCH_PIECES)) continue;
    yield batch;
    batch = newBatch();
  }
  if (batch.pieces.length > 0) yield batch;
}

/** The pieces, and an undefined where the next one is not there within a turn of the event loop. */
async function* orPause(pieces: AsyncIterable<Piece>): AsyncIterable<Piece | undefined> {
  const iterator = pieces[Symbol.asyncIterator]();
  let finished = false;
  try {
    for (;;) {
      const next = iterator.next();
      if ((await Promise.race([next, turn('late' as const)])) === 'late') {
        next.catch(() => undefined);
        yield undefined;
      }
      const result = await next;
      finished = result.done === true;
      if (finished) return;
      yield result.value;
    }
  } finally {
    if (!finished) await iterator.return?.();
  }
}

export function add(batch: Batch, piece: Piece): void {
  const { source, transfer } = toWire(piece.source);
  invariant(source.length <= MAX_CHUNK_BYTES, `a piece of ${source.length} bytes is larger than a chunk can be (${MAX_CHUNK_BYTES})`);
  batch.pieces.push({ source, zeroPages: piece.zeroPages });
  batch.transfer.push(...transfer);
  batch.bytes += source.length;
}

function toWire(source: Source): { source: WireSource; transfer: ArrayBuffer[] } {
  if (source.kind !== 'files') return { source, transfer: [] };
  const list = packFiles(source.files);
  const length = source.files.reduce((sum, file) => sum + file.length, 0);
  return { source: { kind: 'files', root: source.root, list, length }, transfer: transferables(list) };
}
