/** The file that a memory of a tree lies in: it comes back as it was stored, with the checkpoint that it goes with, or not at all. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { TreeMemories } from '../../src/agent/tree-memories.ts';
import { newCheckpointId, parseContainerId } from '../../src/core/ids.ts';
import type { Container } from '../../src/runtime/types.ts';

const directory = mkdtempSync('/srv/tree-memories-');
after(() => rmSync(directory, { recursive: true }));

const container: Container = {
  id: parseContainerId('web'), at: { runtime: 'runc', binary: 'runc', root: '/run/runc' }, status: 'running', pid: 1, pidStart: 1, bundle: '/srv/web', createdMs: 1000,
  spec: {}, manager: 'plain', name: 'web', freezer: undefined, rootfs: { kind: 'plain', path: '/srv/web/rootfs' },
};
const checkpoint = newCheckpointId(1);
const memory = Buffer.from('what was seen of the files of this container');

function only(): string {
  const names = readdirSync(directory);
  assert.equal(names.length, 1);
  return join(directory, names[0] ?? '');
}

void test('a memory goes with its container, tree and checkpoint', async () => {
  const memories = new TreeMemories(directory);
  await memories.store(container, 'x/', checkpoint, memory);
  assert.deepEqual(Buffer.from((await memories.load(container, 'x/', checkpoint)) ?? []), memory);
  assert.equal(await memories.load(container, 'x/', newCheckpointId(2)), undefined, 'another checkpoint, of this lineage or another one');
  assert.equal(await memories.load(container, 'x/', undefined), undefined, 'the first of a lineage');
  assert.equal(await memories.load(container, 'y/', checkpoint), undefined, 'another tree');
  assert.equal(await memories.load({ ...container, createdMs: 1001 }, 'x/', checkpoint), undefined, 'made again under the same id');
  assert.deepEqual(Buffer.from((await new TreeMemories(directory).load(container, 'x/', checkpoint)) ?? []), memory, 'after a restart');
});

void test('a damaged, shortened or lengthened memory is none', async () => {
  const memories = new TreeMemories(directory);
  await memories.store(container, 'x/', checkpoint, memory);
  const whole = readFileSync(only());
  for (let at = 0; at < whole.length; at += 1) {
    const damaged = Buffer.from(whole);
    damaged[at] = (damaged[at] ?? 0) ^ 1;
    writeFileSync(only(), damaged);
    assert.equal(await memories.load(container, 'x/', checkpoint), undefined, `byte ${at}`);
  }
  writeFileSync(only(), Buffer.concat([whole, Buffer.alloc(1)]));
  assert.equal(await memories.load(container, 'x/', checkpoint), undefined);
  writeFileSync(only(), whole);
  for (let length = whole.length - 1; length >= 0; length -= 1) {
    truncateSync(only(), length);
    assert.equal(await memories.load(container, 'x/', checkpoint), undefined, `${length} bytes`);
  }
});
