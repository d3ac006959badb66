import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { StasisError } from '../../../src/core/errors.ts';
import { MemoryReceiver } from '../../../src/image/page-server/memory-receiver.ts';
import { PageStream } from '../../../src/image/page-server/page-stream.ts';
import { SlabPool } from '../../../src/image/page-server/slab-pool.ts';
import { MemoryWriter } from '../../support/memory-repository.ts';
import { header, op, task } from '../../support/fake-dumper.ts';

const signal = undefined;
const numbers = fc.oneof(fc.integer({ min: 0, max: 5 }), fc.integer({ min: 0, max: 20 }).map((n) => n * 4096), fc.maxSafeNat());
const message = fc
  .record({ size: fc.constantFrom(24 as const, 32 as const), command: fc.constantFrom(...Object.values(op), 99), flags: fc.integer({ min: 0, max: 15 }), pages: numbers, address: numbers, destination: fc.oneof(fc.constantFrom(task(1), task(2)), numbers) }, { noNullPrototype: true })
  .map(({ size, command, ...fields }) => header(size, command, size === 24 ? { ...fields, pages: fields.pages % 2 ** 32 } : fields));
const bytes = fc.array(fc.oneof({ weight: 4, arbitrary: message }, fc.uint8Array({ maxLength: 5000 })), { maxLength: 12 }).map((parts) => Buffer.concat(parts));

void test('whatever comes over the connection is taken or refused with a reason, and staging comes back', async () => {
  const pool = await SlabPool.create(16 * 1024 * 1024, { signal });
  await fc.assert(
    fc.asyncProperty(bytes, fc.constantFrom(24 as const, 32 as const), fc.integer({ min: 1, max: 4000 }), fc.boolean(), async (input, size, portion, layered) => {
      const receiver = new MemoryReceiver({ writer: new MemoryWriter(), prefix: '', pool, pageSize: 4096, signal, layered, round: layered, onBytes: () => {}, onFailure: () => {} });
      const sink = {
        open: (image: { kind: 'task' | 'shmem'; id: number }) => receiver.open(image),
        run: (image: { kind: 'task' | 'shmem'; id: number }, address: number, pages: number, flags: number) => receiver.run(image, address, pages, flags),
        room: () => receiver.room(),
        wrote: (count: number) => receiver.wrote(count),
        close: () => receiver.endImage(),
        reply: () => {},
        hasParent: () => layered,
      };
      const stream = new PageStream(sink, size);
      try {
        for (let at = 0; at < input.length; ) {
          const buffer = stream.buffer();
          const count = Math.min(portion, buffer.length, input.length - at);
          buffer.set(input.subarray(at, at + count));
          at += count;
          assert.ok(stream.advance(count), 'so little always finds room');
        }
      } catch (error) {
        assert.ok(error instanceof StasisError, String(error));
      }
      receiver.fail(new Error('over'));
      await receiver.saved().catch(() => {});
      assert.equal(pool.freeSlabs * pool.slabBytes, pool.totalBytes);
    }),
    { numRuns: 400 },
  );
});
