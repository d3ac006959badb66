import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { isStasisError } from '../../../src/core/errors.ts';
import { TreeSaver } from '../../../src/image/tree/index.ts';
import { MemoryCheckpoint } from '../../support/memory-checkpoint.ts';

/** Swaps directories and files of the tree for symlinks to the outside, for fifos and back, as quickly as it can. */
const swapper = `
  const fs = require('node:fs'); const { workerData: { root, outside } } = require('node:worker_threads');
  for (;;) for (let i = 0; i < 20; i++) {
    const d = root + '/d' + i;
    try { fs.renameSync(d, d + '-away'); fs.symlinkSync(outside, d); } catch {}
    try { fs.renameSync(root + '/s/f' + i, root + '/s/away'); fs.symlinkSync(outside + '/secret', root + '/s/f' + i); } catch {}
    try { fs.unlinkSync(d); fs.renameSync(d + '-away', d); } catch {}
    try { fs.unlinkSync(root + '/s/f' + i); fs.renameSync(root + '/s/away', root + '/s/f' + i); } catch {}
  }`;

void describe('a container that swaps its files while they are read', () => {
  void it('never gets anything read from outside of its tree', async () => {
    const base = mkdtempSync('/srv/race-');
    const [root, outside] = [join(base, 'root'), join(base, 'outside')];
    mkdirSync(join(root, 's'), { recursive: true });
    mkdirSync(outside);
    for (let i = 0; i < 20; i++) {
      mkdirSync(join(root, `d${i}`));
      for (const name of ['secret', 'x', 'y']) writeFileSync(join(root, `d${i}`, name), `inside ${name} ${i}`);
      writeFileSync(join(root, 's', `f${i}`), `inside f ${i}`);
    }
    for (const name of ['secret', 'x', 'y', 'only-outside']) writeFileSync(join(outside, name), `TOP SECRET ${name}`);
    const worker = new Worker(swapper, { eval: true, workerData: { root, outside } });
    try {
      await sleep(100);
      const until = performance.now() + 2000;
      let [walks, read] = [0, 0];
      while (performance.now() < until || walks <= 40 || read <= 10_000) {
        const checkpoint = new MemoryCheckpoint();
        await using saver = new TreeSaver({ writer: checkpoint, prefix: '', root, kind: 'plain' });
        for (let i = 0; i < 20; i++) await saver.readAhead({ signal: undefined });
        // Not frozen at all: it may fail, but then with a reason.
        await saver.delta({ signal: undefined }).then(async () => saver.finish({ signal: undefined })).catch((error: unknown) => assert.ok(isStasisError(error, 'DUMP_FAILED'), String(error)));
        for (const blob of checkpoint.pieces.keys()) {
          const bytes = checkpoint.blob(blob);
          assert.equal(bytes.includes('TOP SECRET'), false);
          assert.equal(bytes.includes('only-outside'), false);
          read += bytes.length;
        }
        walks += 21;
      }
    } finally {
      await worker.terminate();
      rmSync(base, { recursive: true });
    }
  });
});
