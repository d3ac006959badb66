/** Sinks as they are sent to a worker; decides who creates which file. */
import { closeSync } from 'node:fs';
import { packFiles, transferables } from './file-list.ts';
import type { WireSink } from './messages.ts';
import type { Sink } from './port.ts';
import { createBeneath } from './sink.ts';

/**
 * One per extraction. Files lie in a blob one after the other, so only the first and the last file of a sink
 * can have parts in other sinks, which other workers may write at the same time: those are created here, once,
 * and the workers only open them. All others are created by the worker that writes them.
 */
export class SinkEncoder {
  readonly #created = new Set<string>();

  encode(sink: Sink): { sink: WireSink; transfer: ArrayBuffer[] } {
    if (sink.kind !== 'files') return { sink, transfer: [] };
    const list = packFiles(sink.files);
    const create = new Uint8Array(sink.files.length).fill(1);
    sink.files.forEach(({ path }, i) => {
      const before = sink.files[i - 1]?.path;
      // Dropped bytes have no file, and the parts of a sparse file follow each other.
      if (path.length === 0 || (before !== undefined && Buffer.compare(path, before) === 0)) create[i] = 0;
    });
    for (const i of new Set([0, sink.files.length - 1])) {
      const path = sink.files[i]?.path;
      if (path === undefined || path.length === 0) continue;
      this.#create(sink.root, path);
      create[i] = 0;
    }
    return { sink: { kind: 'files', root: sink.root, list, create }, transfer: [...transferables(list), create.buffer] };
  }

  #create(root: number, path: Uint8Array): void {
    const bytes = Buffer.from(path);
    const key = `${root}:${bytes.toString('latin1')}`;
    if (this.#created.has(key)) return;
    closeSync(createBeneath(root, bytes));
    this.#created.add(key);
  }
}
