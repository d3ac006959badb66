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
    const ends = [sink.files[0]?.path, sink.files.at(-1)?.path];
    for (const path of ends) if (path !== undefined && path.length > 0) this.#create(sink.root, path);
    const create = Uint8Array.from(sink.files, ({ path }, i) => {
      // Dropped bytes have no file, and the parts of a sparse file follow each other.
      const made = [sink.files[i - 1]?.path, ...ends].some((other) => other !== undefined && Buffer.compare(path, other) === 0);
      return path.length === 0 || made ? 0 : 1;
    });
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
