/** A redis server in a container, a client of its protocol, and a writer that knows what was acknowledged. */
import { createCipheriv } from 'node:crypto';
import { createConnection, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { startContainer, type TestContainer } from '../containers.ts';

export const REDIS_PORT = 6379;

/** On the network of the box, so that a client outside the container keeps its connection. Nothing goes to a disk. */
export async function startRedis(id: string, port = REDIS_PORT): Promise<TestContainer> {
  const container = await startContainer({
    runtime: 'runc', id,
    args: ['/usr/bin/redis-server', '--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', '/tmp'],
    edit: (spec) => {
      spec['linux'].namespaces = spec['linux'].namespaces.filter((entry: { type: string }) => entry.type !== 'network');
    },
  });
  for (let tries = 0; ; tries++) {
    const client = await RedisClient.connect(port).catch(() => undefined);
    client?.close();
    if (client !== undefined) return container;
    if (tries === 200) throw new Error('redis did not listen within ten seconds');
    await delay(50);
  }
}

interface Waiting {
  readonly resolve: (reply: string | null) => void;
  readonly reject: (error: Error) => void;
}

/** RESP2 over one connection: commands may be sent before earlier ones are answered. */
export class RedisClient {
  readonly #socket: Socket;
  readonly #waiting: Waiting[] = [];
  #buffer: Buffer = Buffer.alloc(0);

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (data: Buffer) => { this.#take(data); });
    socket.on('error', (error) => { this.#fail(error); });
    socket.on('close', () => { this.#fail(new Error('redis closed the connection')); });
  }

  static async connect(port = REDIS_PORT): Promise<RedisClient> {
    const socket = createConnection({ host: '127.0.0.1', port });
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new RedisClient(socket);
  }

  /** The reply: a status, a bulk string, an integer as text, or null. */
  command(...words: readonly string[]): Promise<string | null> {
    const parts = [`*${words.length}\r\n`, ...words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`)];
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#socket.write(parts.join(''));
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(data: Buffer): void {
    this.#buffer = this.#buffer.length === 0 ? data : Buffer.concat([this.#buffer, data]);
    let at = 0;
    for (;;) {
      const end = this.#buffer.indexOf('\r\n', at);
      if (end < 0) break;
      const kind = this.#buffer.toString('latin1', at, at + 1);
      const head = this.#buffer.toString('utf8', at + 1, end);
      if (kind === '$' && head !== '-1') {
        const from = end + 2;
        const to = from + Number(head);
        if (this.#buffer.length < to + 2) break;
        this.#waiting.shift()?.resolve(this.#buffer.toString('utf8', from, to));
        at = to + 2;
        continue;
      }
      const waiting = this.#waiting.shift();
      if (kind === '-') waiting?.reject(new Error(`redis: ${head}`));
      else waiting?.resolve(kind === '$' ? null : head);
      at = end + 2;
    }
    this.#buffer = this.#buffer.subarray(at);
  }

  #fail(error: Error): void {
    for (const waiting of this.#waiting.splice(0)) waiting.reject(error);
  }
}

/** What key number n holds: the first half is random, so that it compresses to about two fifths. */
export function valueOf(n: number, bytes: number): string {
  const random = createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16, String(n))).update(Buffer.alloc(Math.ceil(bytes * 3 / 8)));
  return random.toString('base64').slice(0, bytes / 2).padEnd(bytes, `${n} `);
}

/** How long the writer rests when it is `ahead` keys ahead: about 10,000 keys a second at 32. */
const REST_MS = 2;

/** Writes key after key over one connection, a bounded number ahead of the answers, and remembers what was answered. */
export class RedisWriter {
  readonly #client: RedisClient;
  readonly #bytes: number;
  readonly #running: Promise<void>;
  #stop = false;
  #acknowledged: number;
  #lastMs = performance.now();
  #longestGapMs = 0;

  constructor(client: RedisClient, options: { readonly first: number; readonly bytes: number; readonly ahead: number }) {
    this.#client = client;
    this.#bytes = options.bytes;
    this.#acknowledged = options.first - 1;
    this.#running = this.#run(options.first, options.ahead);
    this.#running.catch(() => {});
  }

  /** Every key from 1 to this number is in redis, or something was lost. */
  get acknowledged(): number {
    return this.#acknowledged;
  }

  /** The longest time between two answers since the last call, in milliseconds. */
  takeLongestGapMs(): number {
    const gap = this.#longestGapMs;
    this.#longestGapMs = 0;
    return gap;
  }

  /** Ends after the answers to all that was sent. Rejects when the connection broke. */
  async stop(): Promise<number> {
    this.#stop = true;
    await this.#running;
    return this.#acknowledged;
  }

  async #run(first: number, ahead: number): Promise<void> {
    const open: Promise<void>[] = [];
    for (let n = first; !this.#stop; n++) {
      open.push(this.#client.command('SET', `key:${n}`, valueOf(n, this.#bytes)).then(() => { this.#answered(n); }));
      if (open.length < ahead) continue;
      await Promise.all(open.splice(0));
      await delay(REST_MS);
    }
    await Promise.all(open);
  }

  #answered(n: number): void {
    const now = performance.now();
    this.#longestGapMs = Math.max(this.#longestGapMs, now - this.#lastMs);
    this.#lastMs = now;
    this.#acknowledged = n;
  }
}

/** The numbers of the keys from 1 to `last` that are missing or wrong. */
export async function wrongKeys(client: RedisClient, last: number, bytes: number): Promise<number[]> {
  const wrong: number[] = [];
  for (let from = 1; from <= last; from += 1000) {
    const numbers = Array.from({ length: Math.min(1000, last - from + 1) }, (_, index) => from + index);
    const values = await Promise.all(numbers.map((n) => client.command('GET', `key:${n}`)));
    values.forEach((value, index) => {
      if (value !== valueOf(from + index, bytes)) wrong.push(from + index);
    });
  }
  return wrong;
}
