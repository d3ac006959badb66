/** A store that answers without end, or in circles: it is told apart early, in little memory, and what waits for it fails with a reason. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import type { StasisError } from '../../../src/core/errors.ts';
import type { S3Options, S3Store } from '../../../src/repository/store/s3/s3.ts';
import { anySignal } from '../support.ts';
import { quick, testStore, useTestCredentials } from './setup.ts';

const MiB = 1 << 20;
const digits = '0123456789abcdefghjkmnpqrstvwxyz';

interface Flood {
  readonly store: S3Store;
  readonly requests: number;
  /** Bytes that the server could hand to the kernel. */
  readonly sent: number;
}

type Answer = (request: IncomingMessage, response: ServerResponse, count: number, flood: (block: Buffer, most: number) => Promise<void>) => void;

async function hostile(answer: Answer, use: (flood: Flood) => Promise<void>, more: Partial<S3Options> = {}): Promise<void> {
  useTestCredentials();
  const flood = { requests: 0, sent: 0 };
  const server = createServer((request, response) => {
    flood.requests += 1;
    request.resume();
    response.on('error', () => undefined);
    answer(request, response, flood.requests, async (block, most) => {
      for (let sent = 0; sent < most && !response.destroyed; sent += block.length, flood.sent += block.length) {
        if (!response.write(block)) await Promise.race([once(response, 'drain'), once(response, 'close')]);
      }
      response.end();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const store = await testStore(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, { prefix: '', region: 'us-east-1', patienceMs: 1000, tuning: { ...quick, pace: { ...quick.pace, stallMs: 60_000 } }, ...more });
  try {
    await use({ store, get requests() { return flood.requests; }, get sent() { return flood.sent; } });
  } finally {
    await store.close();
    server.closeAllConnections();
    server.close();
  }
}

function name(count: number): string {
  return Array.from({ length: 20 }, (_, k) => digits[Math.floor(count / 32 ** (19 - k)) % 32]).join('');
}

function page(token: string | undefined, names: readonly string[]): string {
  const rows = names.map((key) => `<Contents><Key>manifests/${key}</Key><Size>100</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"x"</ETag></Contents>`).join('');
  const next = token === undefined ? '' : `<NextContinuationToken>${token}</NextContinuationToken>`;
  return `<?xml version="1.0"?><ListBucketResult><IsTruncated>${token !== undefined}</IsTruncated>${next}${rows}</ListBucketResult>`;
}

const list = (store: S3Store): Promise<unknown[]> => Array.fromAsync(store.list('manifests/', anySignal));
const failure = (promise: Promise<unknown>): Promise<StasisError> => promise.then(() => assert.fail('it succeeded'), (error: unknown) => error as StasisError);
const block = Buffer.alloc(MiB, 0x20);

void describe('a store that answers without end', () => {
  it('a page without end is given up after 2 MiB', () => hostile((_request, response, _count, flood) => {
    response.writeHead(200, { 'content-type': 'application/xml' });
    response.write('<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>');
    void flood(block, 2000 * MiB);
  }, async (flood) => {
    const before = process.memoryUsage().rss;
    const error = await failure(list(flood.store));
    assert.equal(error.code, 'STORE_UNFIT', error.message);
    assert.match(error.message, /longer than 2097152 bytes/);
    assert.equal(flood.requests, 1, 'it is not asked again');
    // What lies in the buffers of two sockets is sent, too.
    assert.ok(flood.sent < 64 * MiB, `${flood.sent} bytes were taken`);
    assert.ok(process.memoryUsage().rss - before < 256 * MiB);
  }));

  // Keys have at most 1024 bytes.
  const deep = 'p'.repeat(990);
  it('the largest page that S3 can send is taken', () => hostile((_request, response) => {
    const rows = Array.from({ length: 1000 }, (_, i) => `<Contents><Key>${deep}/manifests/${name(i)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;0123456789abcdef0123456789abcdef-10000&quot;</ETag><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType><Size>1234567890123</Size><StorageClass>INTELLIGENT_TIERING</StorageClass><Owner><ID>${'0'.repeat(64)}</ID><DisplayName>somebody</DisplayName></Owner></Contents>`);
    response.end(`<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>${rows.join('')}</ListBucketResult>`);
  }, async ({ store }) => assert.equal((await list(store)).length, 1000), { prefix: deep }));

  for (const [status, code] of [[403, 'PERMISSION_DENIED'], [404, 'CONFIG_INVALID'], [503, 'STORE_UNAVAILABLE']] as const) {
    it(`an error ${status} without end is known by its status`, () => hostile((_request, response, _count, flood) => {
      response.writeHead(status, { 'content-type': 'application/xml' });
      response.write('<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>');
      void flood(block, 500 * MiB);
    }, async (flood) => {
      for (const call of [() => list(flood.store), () => flood.store.get('manifests/a', undefined, anySignal), () => flood.store.put('packs/a', [Buffer.from('x')], anySignal), () => flood.store.delete('packs/a', anySignal)]) {
        const [asked, taken] = [flood.requests, flood.sent];
        const error = await failure(call());
        assert.equal(error.code, code, error.message);
        assert.match(error.message, /longer than 65536 bytes/);
        assert.ok((flood.sent - taken) / (flood.requests - asked) < 64 * MiB);
      }
    }));
  }

  it('a success without end is no success', () => hostile((_request, response, _count, flood) => {
    response.writeHead(200, { etag: '"x"' });
    void flood(block, 500 * MiB);
  }, async (flood) => {
    assert.equal((await failure(flood.store.put('packs/a', [Buffer.from('x')], anySignal))).code, 'STORE_UNFIT');
    assert.ok(flood.sent < 64 * MiB);
  }));

  it('an object that is longer than asked for, or than it says, is not read', () => hostile(({ url = '' }, response) => {
    if (url.includes('packs/a')) response.writeHead(206, { etag: '"x"', 'content-range': 'bytes 0-9/100', 'content-length': '100' }).end(Buffer.alloc(100));
    // No length: as many chunks as the server likes.
    else if (url.includes('packs/b')) response.writeHead(206, { etag: '"x"', 'content-range': 'bytes 0-9/100' }).end(Buffer.alloc(100));
    else response.writeHead(200, { etag: '"x"', 'content-length': String(2 ** 40) }).write(block);
  }, async ({ store }) => {
    const into = new Uint8Array(100).fill(7);
    for (const pack of ['packs/a', 'packs/b']) assert.equal((await failure(store.get(pack, { offset: 0, length: 10 }, { signal: undefined, into }))).code, 'STORE_UNAVAILABLE');
    assert.ok(into.every((byte) => byte === 7), 'nothing is written into memory that is not its own');
    assert.equal((await failure(store.get('manifests/a', undefined, anySignal))).code, 'LIMIT_EXCEEDED');
  }, { patienceMs: 0 }));

  it('a document type is not parsed', () => hostile((_request, response) => {
    response.end(`${'<!doctype x>'.repeat(1000)}${page(undefined, [])}`);
  }, async ({ store }) => assert.match((await failure(list(store))).message, /document type/)));
});

void describe('a list without end', () => {
  it('ends with more names than a repository can have', () => hostile((_request, response, count) => {
    response.end(page(`t${count}`, Array.from({ length: 1000 }, (_, k) => name(count * 1000 + k))));
  }, async (flood) => {
    const error = await failure(list(flood.store));
    assert.equal(error.code, 'LIMIT_EXCEEDED', error.message);
    assert.match(error.message, /manifests\/ in bucket stasis-test has more than 20000 names/);
    assert.equal(flood.requests, 21);
  }, { tuning: { ...quick, listedNames: 20_000 } }));

  it('ends with more pages than it needs, also when they name nothing', () => hostile((_request, response, count) => {
    response.end(page(`t${count}`, []));
  }, async (flood) => {
    assert.equal((await failure(list(flood.store))).code, 'LIMIT_EXCEEDED');
    assert.equal(flood.requests, 50);
  }, { tuning: { ...quick, listedPages: 50 } }));

  it('ends where it comes back to a page that it had', () => hostile((_request, response, count) => {
    response.end(page(`t${count % 3}`, [name(count)]));
  }, async (flood) => {
    const error = await failure(list(flood.store));
    assert.equal(error.code, 'STORE_UNFIT', error.message);
    assert.match(error.message, /would never end/);
    assert.equal(flood.requests, 4);
  }));

  it('is not continued by a token that is no token', () => hostile((_request, response) => {
    response.end(page('t'.repeat(100_000), []));
  }, async (flood) => assert.equal((await failure(list(flood.store))).code, 'STORE_UNFIT')));
});
