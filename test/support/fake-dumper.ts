/** Speaks the page-server protocol as criu does when it dumps, with headers of either size and any split of the bytes. */
import { once } from 'node:events';
import { connect } from 'node:net';
import type { Socket } from 'node:net';

export const op = { ADD: 1, HOLE: 2, OPEN: 3, OPEN2: 4, PARENT: 5, ADD_F: 6, GET: 7, CLOSE: 0x1023, FORCE_CLOSE: 0x1024 };
export const task = (pid: number): number => pid * 256 + 1;
export const shmem = (id: number): number => id * 256 + 2;

export interface Fields {
  flags?: number;
  pages?: number;
  address?: number;
  destination?: number;
}

export function header(size: 24 | 32, command: number, { flags = 0, pages = 0, address = 0, destination = 0 }: Fields = {}): Buffer {
  const bytes = Buffer.alloc(size);
  const long = size === 32;
  bytes.writeUInt32LE(((flags << 16) | command) >>> 0, 0);
  if (long) {
    // Padding is whatever the compiler left there.
    bytes.writeUInt32LE(0xdeadbeef, 4);
    bytes.writeBigUInt64LE(BigInt(pages), 8);
  } else bytes.writeUInt32LE(pages, 4);
  bytes.writeBigUInt64LE(BigInt(address), long ? 16 : 8);
  bytes.writeBigUInt64LE(BigInt(destination), long ? 24 : 16);
  return bytes;
}

export class FakeDumper {
  readonly socket: Socket;
  readonly #size: 24 | 32;
  readonly #split: (length: number) => number;
  readonly #received: Buffer[] = [];
  closed = false;

  private constructor(socket: Socket, size: 24 | 32, split: (length: number) => number) {
    this.socket = socket;
    this.#size = size;
    this.#split = split;
    socket.on('data', (chunk: Buffer) => this.#received.push(chunk));
    socket.on('error', () => {});
    socket.on('close', () => (this.closed = true));
  }

  /** `split` says how many of the next bytes go out together. */
  static async connect(address: string, size: 24 | 32, split: (length: number) => number = (length) => length): Promise<FakeDumper> {
    const socket = connect({ host: '127.0.0.1', port: Number(address.split(':')[1]), noDelay: true });
    await once(socket, 'connect');
    return new FakeDumper(socket, size, split);
  }

  async send(command: number, fields: Fields = {}, payload: Uint8Array = new Uint8Array(0)): Promise<void> {
    await this.raw(Buffer.concat([header(this.#size, command, fields), payload]));
  }

  async raw(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length && !this.closed; ) {
      const count = Math.max(1, Math.min(bytes.length - at, this.#split(bytes.length - at)));
      if (!this.socket.write(bytes.subarray(at, at + count))) {
        await this.#either('drain');
      }
      at += count;
    }
  }

  /** The next `count` bytes of the server; shorter when it closes. */
  async receive(count: number): Promise<Buffer> {
    while (this.#received.reduce((sum, chunk) => sum + chunk.length, 0) < count && !this.closed) {
      await this.#either('data');
    }
    const all = Buffer.concat(this.#received);
    this.#received.splice(0, this.#received.length, all.subarray(count));
    return all.subarray(0, count);
  }

  #either(event: 'drain' | 'data'): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.socket.off(event, done).off('close', done);
        resolve();
      };
      this.socket.on(event, done).on('close', done);
    });
  }

  async open(destination: number): Promise<void> {
    await this.send(op.OPEN2, { destination });
    const answer = await this.receive(1);
    if (answer[0] !== 0) throw new Error('the server claims to have a parent');
  }

  /** Status of the dump; undefined when the server went away. */
  async close(command = op.CLOSE): Promise<number | undefined> {
    await this.send(command);
    const answer = await this.receive(4);
    this.socket.destroy();
    return answer.length === 4 ? answer.readInt32LE() : undefined;
  }
}
