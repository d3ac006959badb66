/** What the caller learns about a piece. */
import type { SealedPiece } from './messages.ts';
import type { PieceResult, SliceStat } from './port.ts';
import { STAT_COLUMNS } from './source.ts';

export function pieceResult(piece: SealedPiece): PieceResult {
  return piece.stats === undefined ? { length: piece.length } : { length: piece.length, slices: [...sliceStats(piece.stats)] };
}

function* sliceStats(stats: BigInt64Array): Iterable<SliceStat> {
  for (let i = 0; i < stats.length; i += STAT_COLUMNS) {
    const [torn, inode = 0n, size = 0n, mtimeNs = 0n, ctimeNs = 0n] = stats.subarray(i, i + STAT_COLUMNS);
    yield { torn: torn === 1n, inode, size, mtimeNs, ctimeNs };
  }
}
