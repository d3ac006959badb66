/** What every store must do. Run against each implementation. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import type { Store } from '../../src/repository/index.ts';
import { anySignal, codeOf, failure } from './support.ts';

export function storeSuite(name: string, withStore: (use: (store: Store) => Promise<void>) => Promise<void>): void {
  const names = async (store: Store, prefix: string): Promise<string[]> => (await Array.fromAsync(store.list(prefix, anySignal))).map((info) => info.name);
  const check = (title: string, use: (store: Store) => Promise<void>): void => void it(title, () => withStore(use));

  void describe(`a store: ${name}`, () => {
    check('returns what was put, in parts and whole', async (store) => {
      const bytes = randomBytes(300_000);
      await store.put('packs/a-1', [bytes.subarray(0, 100), bytes.subarray(100)], anySignal);
      assert.deepEqual(Buffer.from(await store.get('packs/a-1', undefined, anySignal)), bytes);
      assert.deepEqual(Buffer.from(await store.get('packs/a-1', { offset: 99, length: 1234 }, anySignal)), bytes.subarray(99, 99 + 1234));
      const into = new Uint8Array(2000);
      const view = await store.get('packs/a-1', { offset: 5, length: 1000 }, { signal: undefined, into });
      assert.equal(view.buffer, into.buffer);
      assert.deepEqual(Buffer.from(into.subarray(0, 1000)), bytes.subarray(5, 1005));
      assert.equal((await store.head('packs/a-1', anySignal))?.size, 300_000);
    });

    check('refuses a range beyond the end', async (store) => {
      await store.put('packs/a', [Buffer.from('12345')], anySignal);
      assert.equal(await failure(store.get('packs/a', { offset: 3, length: 3 }, anySignal)), 'OBJECT_CORRUPT');
      assert.equal(await failure(store.get('packs/a', { offset: 9, length: 1 }, anySignal)), 'OBJECT_CORRUPT');
    });

    check('says when something is not there', async (store) => {
      assert.equal(await failure(store.get('packs/none', undefined, anySignal)), 'OBJECT_MISSING');
      assert.equal(await store.head('packs/none', anySignal), undefined);
      await store.delete('packs/none', anySignal);
      assert.deepEqual(await names(store, 'packs/'), []);
    });

    check('lists by prefix, in the order of names', async (store) => {
      for (const key of ['packs/b-2', 'packs/a-1', 'packs/b-1', 'manifests/b']) await store.put(key, [Buffer.from(key)], anySignal);
      assert.deepEqual(await names(store, 'packs/'), ['packs/a-1', 'packs/b-1', 'packs/b-2']);
      assert.deepEqual(await names(store, 'packs/b-'), ['packs/b-1', 'packs/b-2']);
      await store.delete('packs/b-1', anySignal);
      assert.deepEqual(await names(store, 'packs/b-'), ['packs/b-2']);
    });

    check('takes many puts at once', async (store) => {
      await Promise.all(Array.from({ length: 40 }, (_, i) => store.put(`packs/p-${i}`, [Buffer.alloc(5000, i)], anySignal)));
      assert.equal((await names(store, 'packs/')).length, 40);
      assert.deepEqual(Buffer.from(await store.get('packs/p-17', undefined, anySignal)), Buffer.alloc(5000, 17));
    });

    check('refuses names that are not its own', async (store) => {
      const hostile = ['../x', 'packs/../x', '/etc/passwd', 'packs/', 'packs', 'packs/a/b', 'packs/.hidden', 'packs/A', 'other/a', 'packs/a\0', 'packs/ä', `packs/${'a'.repeat(300)}`, ''];
      for (const key of hostile) {
        assert.equal(await failure(store.put(key, [Buffer.of(1)], anySignal)), 'PATH_ESCAPES', key);
        assert.equal(await failure(store.get(key, undefined, anySignal)), 'PATH_ESCAPES', key);
        assert.equal(await failure(store.head(key, anySignal)), 'PATH_ESCAPES', key);
        assert.equal(await failure(store.delete(key, anySignal)), 'PATH_ESCAPES', key);
      }
    });

    check('stops when told to', async (store) => {
      const signal = AbortSignal.abort(new Error('enough'));
      await assert.rejects(store.put('packs/a', [Buffer.of(1)], { signal }), /enough/);
      await assert.rejects(store.get('packs/a', undefined, { signal }), /enough/);
      assert.equal(await store.head('packs/a', anySignal), undefined);
      assert.equal(codeOf(await store.get('packs/a', undefined, anySignal).catch((error: unknown) => error)), 'OBJECT_MISSING');
    });
  });
}
