/**
 * The other side of the page server: `criu lazy-pages --page-server` asks for pages of a container that runs already
 * (criu/page-xfer.c, criu/uffd.c), and gets them out of the repository. Requests are answered strictly in their order, and
 * no answer says that there are no pages: a request whose pages cannot be had waits. The owner must freeze and kill the
 * container before this connection is closed early: criu would let go of its memory, and the kernel hand out zeros.
 */
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { StasisError } from '../../core/errors.ts';
import { PE_PRESENT } from '../criu/pagemap.ts';
import { acceptOne, type MayConnect } from '../page-server/accept.ts';
import { OP_ADD_F, OP_CLOSE, OP_FORCE_CLOSE, OP_GET, SHORT_HEADER, decodeMessage, encodeMessage, headerSizeOf } from '../page-server/protocol.ts';
import type { HeaderSize, Message } from '../page-server/protocol.ts';
import type { PageSource } from './page-source.ts';
import { PAGE } from './tasks.ts';

export interface LazyServerOptions {
  readonly source: PageSource;
  /** Tells the criu of this restore from everybody else. */
  readonly mayConnect: MayConnect;
  /** Version of the criu that asks; it decides the size of the headers. */
  readonly criu: readonly [number, number, number];
  readonly signal: AbortSignal;
  /** A request for one page is a fault: a program waits for it. */
  readonly onFault?: (pid: number, address: number) => void;
  readonly onBytes?: (count: number) => void;
  /** Before each answer; what it waits for, all wait for. */
  readonly beforeAnswer?: () => Promise<void>;
  /** The pages cannot be had any more; the connection is closed when this has resolved. */
  readonly beforeClose?: (error: unknown) => Promise<void>;
}

export interface LazyServer extends AsyncDisposable {
  readonly port: number;
  /** Resolves when criu is there: it has the descriptors of all tasks then. */
  readonly connected: Promise<void>;
  /** Resolves when criu has taken all pages and said so; rejects when the connection or the source ends before. */
  readonly finished: Promise<void>;
}

/** Listens on a free port of 127.0.0.1 for the one connection of its criu. */
export async function startLazyServer(options: LazyServerOptions): Promise<LazyServer> {
  const server = createServer({ pauseOnConnect: true, noDelay: true });
  const ending = new AbortController();
  const signal = AbortSignal.any([options.signal, ending.signal]);
  const connected = Promise.withResolvers<void>();
  const finished = acceptOne(server, options.mayConnect, signal).then((socket) => {
    connected.resolve();
    return new LazyConnection(socket, options, signal).run();
  }).finally(() => server.close());
  finished.catch(connected.reject);
  connected.promise.catch(() => {});
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    connected: connected.promise,
    finished,
    [Symbol.asyncDispose]: async () => {
      ending.abort(new StasisError('CANCELLED', 'the page source was closed'));
      await finished.catch(() => {});
    },
  };
}

/** More requests than this are never outstanding: one for each thread that waits for a page. */
const MAX_REQUESTS = 65_536;
/** criu asks for 4 MiB at most. */
const MAX_PAGES = 65_536;

class LazyConnection {
  readonly #socket: Socket;
  readonly #options: LazyServerOptions;
  readonly #signal: AbortSignal;
  readonly #size: HeaderSize;
  readonly #requests: Message[] = [];
  readonly #over = Promise.withResolvers<void>();
  #rest: Buffer = Buffer.alloc(0);
  #answering = false;
  #closed = false;

  constructor(socket: Socket, options: LazyServerOptions, signal: AbortSignal) {
    this.#socket = socket;
    this.#options = options;
    this.#signal = signal;
    this.#size = headerSizeOf(options.criu);
  }

  async run(): Promise<void> {
    const fail = (error: Error): void => this.#over.reject(error);
    const onAbort = (): void => fail(this.#signal.reason as Error);
    this.#signal.addEventListener('abort', onAbort, { once: true });
    if (this.#signal.aborted) onAbort();
    this.#options.source.failed.catch(fail);
    this.#socket.on('error', fail);
    this.#socket.on('data', (data: Buffer) => this.#read(data));
    this.#socket.on('close', () => {
      if (this.#closed) this.#over.resolve();
      else fail(new StasisError('RESTORE_FAILED', 'criu lazy-pages went away before it had taken all pages'));
    });
    this.#socket.resume();
    try {
      await this.#over.promise;
    } catch (error) {
      await this.#options.beforeClose?.(error);
      throw error;
    } finally {
      this.#signal.removeEventListener('abort', onAbort);
      this.#socket.destroy();
    }
  }

  #read(data: Buffer): void {
    try {
      const bytes = this.#rest.length === 0 ? data : Buffer.concat([this.#rest, data]);
      let at = 0;
      // The last message may come without the padding of the longer header.
      for (; !this.#closed && bytes.length - at >= SHORT_HEADER; at += this.#size) {
        const view = new DataView(bytes.buffer, bytes.byteOffset + at, bytes.length - at);
        const op = view.getUint32(0, true) & 0xffff;
        if (op !== OP_CLOSE && op !== OP_FORCE_CLOSE && bytes.length - at < this.#size) break;
        this.#request(op === OP_CLOSE || op === OP_FORCE_CLOSE ? { op, flags: 0, pages: 0, address: 0, destination: 0 } : decodeMessage(view, this.#size));
      }
      this.#rest = this.#closed ? Buffer.alloc(0) : Buffer.from(bytes.subarray(at));
      if (!this.#answering) void this.#answer();
    } catch (error) {
      this.#over.reject(error);
    }
  }

  #request(message: Message): void {
    if (message.op === OP_CLOSE || message.op === OP_FORCE_CLOSE) this.#closed = true;
    else {
      if (message.op !== OP_GET) throw new StasisError('RESTORE_FAILED', `criu lazy-pages sends the unknown request ${message.op}`, { hint: 'is criu of another version than the agent found at its start? restart the agent' });
      if (message.pages < 1 || message.pages > MAX_PAGES || this.#requests.length >= MAX_REQUESTS) throw new StasisError('RESTORE_FAILED', `criu lazy-pages asks for ${message.pages} pages behind ${this.#requests.length} requests`);
      if (message.pages === 1) this.#options.onFault?.(message.destination, message.address);
      this.#options.source.expect(message.destination, message.address, message.pages);
    }
    this.#requests.push(message);
  }

  async #answer(): Promise<void> {
    this.#answering = true;
    try {
      for (let request = this.#requests.shift(); request !== undefined; request = this.#requests.shift()) {
        if (request.op === OP_GET) await this.#pages(request);
        else this.#socket.write(Buffer.alloc(4));
      }
    } catch (error) {
      this.#over.reject(error);
    }
    this.#answering = false;
  }

  /** Fewer pages than asked for are a full answer: criu asks for the rest again. */
  async #pages({ address, pages, destination }: Message): Promise<void> {
    await this.#options.beforeAnswer?.();
    const taken = await this.#options.source.take(destination, address, pages);
    if (this.#socket.destroyed) return;
    this.#socket.cork();
    this.#socket.write(encodeMessage({ op: OP_ADD_F, flags: PE_PRESENT, pages: taken.pages, address, destination }, this.#size));
    const last = taken.parts.length - 1;
    taken.parts.forEach((part, index) => this.#socket.write(part, index === last ? () => taken.sent() : undefined));
    this.#socket.uncork();
    this.#options.onBytes?.(taken.pages * PAGE);
  }
}
