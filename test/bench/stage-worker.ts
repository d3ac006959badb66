/**
 * Times each stage of the repository by itself: the same code on the same pieces in the same kind of thread, and nothing
 * between the stages, no queue, no packs, no store. Several run at once, as the repository's workers do.
 */
import { randomBytes } from 'node:crypto';
import { parentPort, workerData } from 'node:worker_threads';
import { chunkId } from '../../src/repository/crypto/lineage-keys.ts';
import { HEADROOM_BYTES, pagedChunkId, PageHasher } from '../../src/repository/crypto/page-digests.ts';
import { NONCE_BYTES } from '../../src/repository/crypto/port.ts';
import { loadSodium } from '../../src/repository/crypto/sodium.ts';
import { MAX_CHUNK_BYTES } from '../../src/repository/stage/port.ts';
import { Collector } from '../../src/repository/stage/collector.ts';
import { Compressor } from '../../src/repository/stage/compress.ts';
import { readSource } from '../../src/repository/stage/source.ts';
import { stripZeroPages } from '../../src/repository/stage/zero-runs.ts';
import type { StageShare, StageTimes } from './repository/stage-times.ts';

const OVERHEAD_BYTES = 40;

async function timeStages({ pieces }: StageShare): Promise<StageTimes> {
  const sodium = await loadSodium('auto');
  const [idKey, pageKey, chunkKey, nonce, associated] = [randomBytes(32), randomBytes(32), randomBytes(32), randomBytes(NONCE_BYTES), randomBytes(64)];
  const hasher = new PageHasher(pageKey);
  const collector = new Collector();
  const compressor = new Compressor();
  const framed = Buffer.allocUnsafeSlow(HEADROOM_BYTES + MAX_CHUNK_BYTES);
  const scratch = framed.subarray(HEADROOM_BYTES);
  const sealed = Buffer.allocUnsafeSlow(MAX_CHUNK_BYTES + OVERHEAD_BYTES);
  const times: StageTimes = { read: 0, hash: 0, compress: 0, seal: 0, stored: 0 };
  let last = 0;
  const lap = (stage: 'read' | 'hash' | 'compress' | 'seal'): void => {
    const now = performance.now();
    times[stage] += now - last;
    last = now;
  };
  for (const { source, zeroPages } of pieces) {
    last = performance.now();
    readSource(source, scratch);
    const kept = zeroPages ? stripZeroPages(scratch, source.length).kept : source.length;
    lap('read');
    if (kept === 0) continue;
    const data = scratch.subarray(0, kept);
    if (zeroPages) pagedChunkId(idKey, hasher.digests(framed.subarray(0, HEADROOM_BYTES + kept)));
    else chunkId(idKey, data);
    lap('hash');
    const { payload } = compressor.compress(data);
    lap('compress');
    sodium.seal(sealed.subarray(0, payload.length + OVERHEAD_BYTES), nonce, payload, associated, chunkKey);
    lap('seal');
    times.stored += payload.length + OVERHEAD_BYTES;
    collector.note(source.length);
  }
  return times;
}

if (parentPort !== null) parentPort.postMessage(await timeStages(workerData as StageShare));
