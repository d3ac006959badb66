/** What the agent keeps on its node: torn or edited files count as absent, and never keep it from starting. */
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe } from 'node:test';
import assert from 'node:assert/strict';
import { Journal, type JournalRecord } from '../../src/agent/journal.ts';
import { Lineages, containerKey } from '../../src/agent/lineages.ts';
import { TreeMemories } from '../../src/agent/tree-memories.ts';
import { WorkingSets } from '../../src/agent/working-sets.ts';
import { systemClock } from '../../src/core/clock.ts';
import type { CheckpointId, LineageId, OperationId } from '../../src/core/ids.ts';
import { WorkingSet } from '../../src/image/lazy/index.ts';
import type { Container } from '../../src/runtime/types.ts';
import { fuzz } from './fuzz.ts';

const base = mkdtempSync('/tmp/fuzz-');
after(() => rmSync(base, { recursive: true }));
const ID = '0123456789abcdefghjk' as CheckpointId;
const LINEAGE = '0123456789abcdef0123456789abcdef' as LineageId;
const container = { id: 'web', at: { runtime: 'runc', binary: '/usr/bin/runc', root: '/run/runc' }, createdMs: 5 } as unknown as Container;
const operation = 'op-1' as OperationId;
const records = [
  { kind: 'checkpoint', operation, step: 'dump', checkpoint: ID, lineage: LINEAGE, stop: true, container: { id: 'web', at: container.at, pid: 5, pidStart: 7 }, guardDirectory: '/run/x', stagingDirectory: '/run/y' },
  { kind: 'restore', operation, step: 'fetch', checkpoint: ID, container: { id: 'web', at: container.at }, bundle: '/b', rebuilt: true, stagingDirectory: '/run/y', workDirectory: '/run/w' },
  { kind: 'import', operation, step: 'receive', checkpoint: ID, stagingDirectory: '/run/y' },
] as unknown as JournalRecord[];

function directory(name: string): string {
  mkdirSync(join(base, name));
  return join(base, name);
}

void describe('files of the agent', () => {
  const journal = directory('journal');
  fuzz('journal', {
    good: records.map((record) => Buffer.from(JSON.stringify(record))), codes: [],
    parse: (bytes) => {
      writeFileSync(join(journal, `${operation}.json`), bytes);
      for (const record of new Journal(journal).records()) {
        for (const path of [record.stagingDirectory, record.checkpoint, record.operation]) assert.equal(typeof path, 'string');
        if (record.kind !== 'import') assert.equal(typeof record.container.at.root, 'string');
      }
      assert.ok(readdirSync(journal).every((name) => name === `${operation}.json`));
    },
  });
  const lineages = join(base, 'lineages.json');
  fuzz('lineages', {
    good: [Buffer.from(JSON.stringify({ [containerKey(container)]: { lineage: LINEAGE, last: ID } }))], codes: [],
    parse: (bytes) => {
      writeFileSync(lineages, bytes);
      const end = new Lineages(lineages).of(container);
      if (end !== undefined) assert.match(`${end.lineage} ${end.last}`, /^[0-9a-f]{32} [0-9a-hjkmnp-tv-z]{20}$/);
    },
  });
  const sets = directory('sets');
  const known = new WorkingSet();
  known.touched(1, 0x10000);
  known.touched(7, 0x7f0000000000);
  fuzz('working set', {
    good: [Buffer.from(known.toJson())], codes: [],
    parse: (bytes) => {
      writeFileSync(join(sets, `${LINEAGE}.json`), bytes);
      const set = new WorkingSets(sets, systemClock).load(LINEAGE);
      let pages = 0;
      for (const run of set.cut(1, { address: 0, pages: 64, flags: 12 })) pages += run.pages;
      assert.equal(pages, 64);
    },
  });
  const memories = directory('memories');
  const memory = Buffer.from('what was remembered');
  fuzz('memory of a tree', {
    good: async () => {
      await new TreeMemories(memories).store(container, 'p', ID, memory);
      return [readFileSync(join(memories, readdirSync(memories)[0] ?? ''))];
    },
    codes: [],
    parse: async (bytes) => {
      const name = createHash('sha256').update(`${containerKey(container)}\0p`).digest('hex');
      writeFileSync(join(memories, name), bytes);
      const found = await new TreeMemories(memories).load(container, 'p', ID);
      assert.ok(found === undefined || memory.equals(found), 'only what was stored comes back');
    },
  });
});
