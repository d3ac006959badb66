/**
 * Saves one directory into a repository, in a process of its own as the agent is one, and prints what it took. The clock
 * runs from the beginning of the checkpoint to the end of its commit: all packs and the manifest are durable then.
 */
import { closeSync, openSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/core/clock.ts';
import { newCheckpointId } from '../../src/core/ids.ts';
import { TreeSaver } from '../../src/image/tree/index.ts';
import { fileKeyProvider, openDirectoryStore, openRepository, openS3Store, PIECE_BYTES } from '../../src/repository/index.ts';
import type { CheckpointWriter, ClosableStore, Piece } from '../../src/repository/index.ts';
import type { SaveRequest, Saved } from './repository/save-request.ts';

const signal = undefined;
const request = JSON.parse(process.argv[2] ?? '{}') as SaveRequest;

function openStore({ store }: SaveRequest): Promise<ClosableStore> {
  if (store.kind === 'directory') return openDirectoryStore(store.path);
  return openS3Store({
    bucket: store.bucket, prefix: 'stasis', endpoint: store.endpoint, region: undefined, pathStyle: true, storageClass: undefined,
    encryption: { kind: 'bucket' }, caFile: store.caFile, parallel: 8, bandwidth: 0, patienceMs: 30_000, clock: systemClock,
  });
}

/** As the agent saves a directory that CRIU wrote: memory page by page, the rest whole. */
async function saveImages(writer: CheckpointWriter, directory: string): Promise<void> {
  for (const name of readdirSync(directory)) {
    const path = join(directory, name);
    if (!name.startsWith('pages-')) {
      await writer.putSmall(`images/${name}`, readFileSync(path), { signal });
      continue;
    }
    const fd = openSync(path, 'r');
    try {
      await writer.append(`images/${name}`, piecesOf(fd, statSync(path).size), { signal });
    } finally {
      closeSync(fd);
    }
  }
}

function* piecesOf(fd: number, size: number): Iterable<Piece> {
  for (let offset = 0; offset < size; offset += PIECE_BYTES) yield { source: { kind: 'fd', fd, offset, length: Math.min(PIECE_BYTES, size - offset) }, zeroPages: true };
}

async function saveTree(writer: CheckpointWriter, root: string): Promise<void> {
  await using saver = new TreeSaver({ writer, prefix: 'tree/', root, kind: 'overlay-upper' });
  await saver.readAhead({ signal });
  await saver.delta({ signal });
  await saver.finish({ signal });
}

const store = await openStore(request);
const keys = await fileKeyProvider(request.keyFile, { create: true });
const repository = await openRepository({ store, keys, clock: systemClock, workers: cpus().length });
const from = performance.now();
const before = process.cpuUsage();
const writer = await repository.begin({ id: newCheckpointId(Date.now()), lineage: undefined, ...(request.plaintext ? { cipher: 'null' } : {}) }, { signal });
await (request.kind === 'images' ? saveImages(writer, request.source) : saveTree(writer, request.source));
const { bytes } = await writer.commit({}, { signal });
const ms = performance.now() - from;
const { user, system } = process.cpuUsage(before);
const peakKiB = Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0);
const saved: Saved = { ms, processorMs: (user + system) / 1000, raw: bytes.raw, stored: bytes.stored, peakMiB: Math.round(peakKiB / 1024) };
await repository.close();
await store.close();
process.stdout.write(`${JSON.stringify(saved)}\n`);
