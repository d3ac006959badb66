/** Reads the golden repositories: good ones give their contents, broken ones the error in their name, in every release. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { parseCheckpointId } from '../../src/core/ids.ts';
import { MemoryStore } from '../../src/repository/index.ts';
import type { Repository } from '../../src/repository/index.ts';
import { anySignal, codeOf, testKeys, withRepository } from '../repository/support.ts';
import { HOLE, memoryOf, smallBlobs } from './contents.ts';

/** Tests run compiled, somewhere below the repository; the golden files stay where they are. */
function goldenDirectory(version: string): string {
  for (let directory = import.meta.dirname; ; directory = dirname(directory)) {
    const golden = join(directory, 'test', 'golden', version);
    if (existsSync(join(golden, 'keys.json'))) return golden;
    assert.notEqual(directory, dirname(directory), 'the golden repositories are there');
  }
}

function loadStore(directory: string): MemoryStore {
  const store = new MemoryStore();
  for (const folder of readdirSync(directory)) {
    for (const name of readdirSync(join(directory, folder))) store.objects.set(`${folder}/${name}`, readFileSync(join(directory, folder, name)));
  }
  return store;
}

async function readAll(repository: Repository, name: string): Promise<void> {
  const id = parseCheckpointId(name.slice('manifests/'.length));
  const reader = await repository.open(id, anySignal);
  const expected = memoryOf(Number(reader.summary.description['generation']));
  assert.equal(reader.blobs.get('memory'), expected.length + HOLE);
  assert.ok(Buffer.from(await reader.read('memory', { offset: 0, length: expected.length }, anySignal)).equals(expected));
  assert.deepEqual([...reader.segments('memory')].map(({ length, zero }) => [length, zero]), [[4096, false], [8192, true], [4096, false], [4096, true], [1000, false], [HOLE, true]]);
  for (const [blob, bytes] of Object.entries(smallBlobs)) assert.ok(Buffer.from(await reader.read(blob, undefined, anySignal)).equals(bytes), blob);
  const buffer = new SharedArrayBuffer(expected.length);
  await reader.extract([{ blob: 'memory', sink: ({ offset }) => ({ kind: 'memory', buffer, offset }) }], anySignal);
  assert.ok(Buffer.from(buffer).equals(expected));
}

void describe('golden repositories of format version 1', () => {
  const golden = goldenDirectory('v1');
  const { own } = JSON.parse(readFileSync(join(golden, 'keys.json'), 'utf8')) as { own: string };
  const keys = testKeys(Buffer.from(own, 'hex'));
  const names = readdirSync(golden).filter((name) => /^(good|bad)-/.test(name));
  assert.ok(names.length >= 20, 'they are all there');
  for (const name of names) {
    void it(name, () =>
      withRepository({ store: loadStore(join(golden, name)), keys, workers: 1 }, async (repository, store) => {
        const code = /^bad-([A-Z_]+)-/.exec(name)?.[1] ?? 'none';
        for (const manifest of (store as MemoryStore).objects.keys()) {
          if (!manifest.startsWith('manifests/')) continue;
          const read = await readAll(repository, manifest).then(() => 'none', codeOf);
          assert.equal(read, code);
          const { problems } = await repository.verify(parseCheckpointId(manifest.slice('manifests/'.length)), anySignal);
          assert.deepEqual([...new Set(problems.map((problem) => problem.code))], code === 'none' ? [] : [code]);
        }
      }));
  }
});
