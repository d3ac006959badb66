/**
 * The page server: `runc checkpoint --page-server 127.0.0.1:PORT` sends the memory of a dump here, and it goes on to the
 * repository without touching a disk. When staging is full the socket is not read, and criu waits.
 * criu also waits for the answer to its last message: that is the moment at which the owner decides (`onClose`).
 */
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { StasisError } from '../../core/errors.ts';
import type { CheckpointWriter } from '../../repository/types.ts';
import type { KeptMemory } from '../criu/kept-memory.ts';
import type { MemoryLayers } from '../criu/layers.ts';
import type { ReceivedMemory } from '../types.ts';
import { acceptOne, type MayConnect } from './accept.ts';
import { Connection } from './connection.ts';
import type { SlabPool } from './slab-pool.ts';

export interface PageServerOptions {
  readonly writer: CheckpointWriter;
  /** Blob prefix of the container's images, the same as for saveImages. */
  readonly prefix: string;
  readonly pool: SlabPool;
  /** Tells the criu of this dump from everybody else. */
  readonly mayConnect: MayConnect;
  /** Version of the criu that is going to dump; it decides the size of the headers. */
  readonly criu: readonly [number, number, number];
  /** The rounds before this dump; looked at when criu connects. `round`: this dump is one of them, not the last. */
  readonly rounds?: { readonly layers: MemoryLayers; readonly round: boolean };
  /** Gets what a rehearsal of this dump needs. */
  readonly kept?: KeptMemory | undefined;
  /** Bytes of a page on this machine; 4096 unless told. */
  readonly pageSize?: number;
  /** Aborting it fails the dump; criu then lets the container go on. */
  readonly signal: AbortSignal | undefined;
  /** Bytes of memory taken by the writer. */
  readonly onBytes?: (count: number) => void;
  /**
   * All memory is in staging or beyond; criu and the container wait for the answer. Return at once to thaw early,
   * await `saved` to thaw after the writer has taken all. Rejecting fails the dump. Without it: awaits `saved`.
   */
  readonly onClose?: (memory: ReceivedMemory, saved: Promise<void>) => Promise<void>;
}

export interface PageServer extends AsyncDisposable {
  /** For `--page-server`: "127.0.0.1:PORT". */
  readonly address: string;
  /**
   * Resolves when the dump was complete, answered with success, and the writer has taken all of it: pass the result to
   * saveImages. Rejects with DUMP_FAILED when the connection ends before that, or with what failed.
   */
  readonly received: Promise<ReceivedMemory>;
}

/** Listens on a free port of 127.0.0.1 for the one connection of its criu. Disposing it fails a dump that is not complete. */
export async function startPageServer(options: PageServerOptions): Promise<PageServer> {
  options.signal?.throwIfAborted();
  const server = createServer({ pauseOnConnect: true, noDelay: true });
  const outcome = Promise.withResolvers<ReceivedMemory>();
  // The owner may not look before the dump has ended on its own.
  outcome.promise.catch(() => {});
  const ending = new AbortController();
  const onAbort = (): void => ending.abort(options.signal?.reason);
  options.signal?.addEventListener('abort', onAbort, { once: true });
  acceptOne(server, options.mayConnect, ending.signal)
    .then((socket) => new Connection(socket, options, ending.signal).run())
    .finally(() => {
      options.signal?.removeEventListener('abort', onAbort);
      server.close();
    })
    .then(outcome.resolve, outcome.reject);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    address: `127.0.0.1:${port}`,
    received: outcome.promise,
    [Symbol.asyncDispose]: async () => {
      ending.abort(new StasisError('CANCELLED', 'the page server was closed before the dump was complete'));
      await outcome.promise.catch(() => {});
    },
  };
}
