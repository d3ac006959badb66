/** One connection of a dumping criu, from its first byte to the answer to its last message. */
import { Socket } from 'node:net';
import type { SocketConstructorOpts } from 'node:net';
import { asStasisError } from '../../core/errors.ts';
import type { ReceivedMemory } from '../types.ts';
import { pagemapName } from '../criu/pagemap.ts';
import { MemoryReceiver } from './memory-receiver.ts';
import { PageStream } from './page-stream.ts';
import { headerSizeOf, protocolError } from './protocol.ts';
import type { PageServerOptions } from './server.ts';

const STATUS_OK = 0;
const STATUS_FAILED = 1;

export class Connection {
  readonly #options: PageServerOptions;
  readonly #receiver: MemoryReceiver;
  readonly #stream: PageStream;
  readonly #socket: Socket;
  readonly #signal: AbortSignal;
  readonly #result = Promise.withResolvers<ReceivedMemory>();
  #over = false;

  /** `socket` must be paused and untouched. `signal` fails the dump. */
  constructor(socket: Socket, options: PageServerOptions, signal: AbortSignal) {
    this.#options = options;
    this.#signal = signal;
    const { writer, prefix, pool, rounds, kept, pageSize = 4096, onBytes = () => {} } = options;
    const layers = rounds !== undefined && (rounds.round || rounds.layers.depth > 0) ? rounds.layers : undefined;
    this.#receiver = new MemoryReceiver({
      writer, pool, kept, pageSize, onBytes, signal: rounds?.round === true ? options.signal : signal,
      prefix: layers?.begin() ?? prefix, layered: layers !== undefined, round: rounds?.round === true,
      onFailure: (error) => this.#fail(error),
    });
    const receiver = this.#receiver;
    this.#stream = new PageStream(
      {
        open: (image) => receiver.open(image),
        run: (image, address, pages, flags) => receiver.run(image, address, pages, flags),
        room: () => receiver.room(),
        wrote: (count) => receiver.wrote(count),
        close: () => void this.#finish(),
        hasParent: ({ kind, id }) => layers?.has(pagemapName(kind, id)) ?? false,
        reply: (bytes) => this.#socket.write(bytes),
      },
      headerSizeOf(options.criu),
    );
    this.#socket = readInto(socket, () => this.#stream.buffer(), (count) => this.#read(count));
  }

  /** Resolves when the whole dump is with the writer. */
  async run(): Promise<ReceivedMemory> {
    const onAbort = (): void => this.#fail(this.#signal.reason as Error);
    this.#signal.addEventListener('abort', onAbort, { once: true });
    this.#socket.on('error', (error) => this.#fail(asStasisError(error, 'the connection of the page server')));
    this.#socket.on('close', () => this.#fail(protocolError('criu went away before its dump was complete')));
    if (this.#signal.aborted) onAbort();
    else this.#socket.resume();
    try {
      return await this.#result.promise;
    } finally {
      this.#signal.removeEventListener('abort', onAbort);
    }
  }

  /** False stops the reading of the socket. */
  #read(count: number): boolean {
    return this.#guard(() => this.#stream.advance(count));
  }

  #guard(work: () => boolean): boolean {
    if (this.#over) return false;
    try {
      const more = work();
      if (!more) this.#receiver.whenRoom(() => this.#goOn());
      return more;
    } catch (error) {
      this.#fail(asStasisError(error, 'the page server'));
      return false;
    }
  }

  #goOn(): void {
    if (this.#guard(() => this.#stream.resume())) this.#socket.resume();
  }

  /** The last message: everything is staged. The owner decides when criu may go on, and whether. */
  async #finish(): Promise<void> {
    try {
      this.#receiver.endImage();
      const memory = this.#receiver.memory();
      const saved = this.#receiver.saved();
      saved.catch(() => {});
      await (this.#options.onClose?.(memory, saved) ?? saved);
      this.#answer(STATUS_OK);
      await saved;
      this.#result.resolve(memory);
    } catch (error) {
      if (this.#over) this.#result.reject(error);
      else this.#fail(asStasisError(error, 'the page server'));
    }
  }

  /** Only the first answer counts. From here on criu may close the connection. */
  #answer(status: number): void {
    if (this.#over) return;
    this.#over = true;
    const bytes = Buffer.alloc(4);
    bytes.writeInt32LE(status);
    this.#socket.end(bytes);
  }

  #fail(reason: Error): void {
    if (this.#over) return;
    if (this.#stream.closed) this.#answer(STATUS_FAILED);
    else this.#socket.destroy();
    this.#over = true;
    this.#receiver.fail(reason);
    void this.#reject(reason);
  }

  /** The slabs are back in the pool when the outcome is known. */
  async #reject(reason: Error): Promise<void> {
    await Promise.allSettled([this.#receiver.saved()]);
    this.#result.reject(reason);
  }
}

/**
 * Reads the socket into buffers of our own: the pages go straight into staging. Node.js offers this (`onread`) only for
 * sockets that are constructed, not for those of a server; so a new one is made around the connection.
 */
function readInto(socket: Socket, buffer: () => Uint8Array, read: (count: number) => boolean): Socket {
  const accepted = socket as unknown as { _handle: unknown };
  const options = { handle: accepted._handle, onread: { buffer, callback: read }, pauseOnCreate: true, readable: true, writable: true };
  const own = new Socket(options as unknown as SocketConstructorOpts);
  accepted._handle = null;
  return own;
}
