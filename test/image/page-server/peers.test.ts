/** A page server serves the criu that is meant, and no other process of root's that can reach its port. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { loopbackPeerInode, treeHoldsSocket } from '../../../src/host/tcp-peer.ts';
import { startLazyServer } from '../../../src/image/lazy/index.ts';
import type { PageSource } from '../../../src/image/lazy/index.ts';
import { SlabPool, startPageServer } from '../../../src/image/page-server/index.ts';
import { MemoryWriter } from '../../support/memory-repository.ts';

const SECRET = Buffer.alloc(4096, 'AWS_SECRET_ACCESS_KEY=the-memory-of-another-container ');
const source = { failed: new Promise(() => {}), expect: () => {}, take: async () => ({ pages: 1, parts: [SECRET], sent: () => {} }) } as unknown as PageSource;

/**
 * A process that connects when it reads a line, asks for a page, and says what it got: "refused" when the connection ended
 * without a byte, else "served". `capabilities`: as root has them, or none, as in a container on the node's network.
 */
class Peer implements Disposable {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(port: number, capabilities: boolean) {
    const program = `
      const net = require('node:net');
      process.stdin.on('data', () => {
        const header = Buffer.alloc(32); header.writeUInt32LE(7, 0); header.writeBigUInt64LE(1n, 8); header.writeBigUInt64LE(4096n, 16); header.writeBigUInt64LE(257n, 24);
        let got = 0;
        const socket = net.connect(${port}, '127.0.0.1', () => socket.write(header));
        socket.on('data', (bytes) => { got += bytes.length; if (got > 32) console.log('served'); });
        socket.on('error', () => {});
        socket.on('close', () => { if (got === 0) console.log('refused'); });
      });
      console.log('ready');`;
    const without = ['--bounding-set=-all', '--inh-caps=-all', '--ambient-caps=-all', '--no-new-privs'];
    const [file, ...args] = capabilities ? [process.execPath, '-e', program] : ['setpriv', ...without, process.execPath, '-e', program];
    this.#child = spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#lines = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]();
  }

  get pid(): number {
    return this.#child.pid!;
  }

  async line(): Promise<string> {
    return String((await this.#lines.next()).value);
  }

  async connect(): Promise<string> {
    this.#child.stdin!.write('\n');
    return this.line();
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL');
  }
}

void describe('peers of a page server', () => {
  for (const capabilities of [true, false]) {
    it(`lazy: a stranger of uid 0 ${capabilities ? 'with' : 'without'} capabilities gets nothing and takes nobody's place`, async () => {
      let right = 0;
      const stop = new AbortController();
      await using server = await startLazyServer({ source, criu: [4, 2, 1], signal: stop.signal, mayConnect: (inode) => treeHoldsSocket(right, inode) });
      server.finished.catch(() => undefined);
      using thief = new Peer(server.port, capabilities);
      using criu = new Peer(server.port, true);
      await Promise.all([thief.line(), criu.line()]);
      right = criu.pid;
      for (let i = 0; i < 20; i += 1) assert.equal(await thief.connect(), 'refused');
      assert.equal(await criu.connect(), 'served');
      await server.connected;
    });
  }

  it('a flood of strangers does not keep the right one out', async () => {
    let right = 0;
    const stop = new AbortController();
    await using server = await startLazyServer({ source, criu: [4, 2, 1], signal: stop.signal, mayConnect: (inode) => treeHoldsSocket(right, inode) });
    server.finished.catch(() => undefined);
    using criu = new Peer(server.port, true);
    await criu.line();
    right = criu.pid;
    const strangers = await Promise.all(Array.from({ length: 1000 }, async () => {
      const socket = connect(server.port, '127.0.0.1').on('error', () => undefined);
      const bytes = { count: 0 };
      socket.on('data', (data) => { bytes.count += data.length; });
      await new Promise((resolve) => { socket.on('close', resolve); });
      return bytes.count;
    }));
    assert.deepEqual(new Set(strangers), new Set([0]));
    assert.equal(await criu.connect(), 'served');
  });

  it('dump: a stranger cannot put pages into a checkpoint', async () => {
    const pool = await SlabPool.create(16 * 1024 * 1024, { signal: undefined });
    const server = await startPageServer({ writer: new MemoryWriter(), prefix: 'containers/0/criu/', pool, criu: [4, 2, 1], signal: undefined, mayConnect: () => false });
    using thief = new Peer(Number(server.address.split(':')[1]), true);
    await thief.line();
    assert.equal(await thief.connect(), 'refused');
    // Still there for its criu.
    assert.equal(await thief.connect(), 'refused');
    await server[Symbol.asyncDispose]();
    await assert.rejects(server.received, { code: 'CANCELLED' });
  });

  it('the socket of a connection is found by its addresses, and who has it', async () => {
    const { createServer } = await import('node:net');
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    const client = connect(port, '127.0.0.1');
    const [accepted] = (await once(server, 'connection')) as [typeof client];
    const inode = loopbackPeerInode(accepted.remotePort!, port);
    assert.ok(inode !== undefined && treeHoldsSocket(process.pid, inode));
    using other = new Peer(port, true);
    await other.line();
    assert.ok(!treeHoldsSocket(other.pid, inode));
    // Nobody: not even the listener, which the kernel offers instead.
    assert.equal(loopbackPeerInode(port, 1), undefined);
    assert.equal(loopbackPeerInode(1, port), undefined);
    accepted.destroy();
    client.destroy();
    server.close();
  });
});
