/** docs/LIMITS.md against the code: every kind of finding and cause has one row, and no row is about nothing. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { dumpCauses } from '../../src/runtime/criu-log/causes.ts';
import { commonCauses, restoreCauses } from '../../src/runtime/criu-log/restore-causes.ts';
import { repositoryRoot, tableRows } from '../config/repository-root.ts';

const root = repositoryRoot();

/** What the checks of preflight are written to say: fatal('kind', …), warning('kind', …), { kind: 'kind' }. */
function kindsIn(directory: string): string[] {
  const texts = readdirSync(join(root, directory)).filter((name) => name.endsWith('.ts')).map((name) => readFileSync(join(root, directory, name), 'utf8'));
  const patterns = [/\b(?:fatal|warning)\(\s*'([\w-]+)'/g, /\bkind: (?:[^,'\n]*\? )?'([\w-]+)'/g, /\bkind: [^,'\n]*\? '[\w-]+' : '([\w-]+)'/g, /const kind = [^?\n]*\? '([\w-]+)'/g, /const kind = [^?\n]*\? '[\w-]+' : '([\w-]+)'/g];
  return texts.flatMap((text) => patterns.flatMap((pattern) => Array.from(text.matchAll(pattern), ([, kind = '']) => kind)));
}

const rows = tableRows(readFileSync(join(root, 'docs/LIMITS.md'), 'utf8'), 'kind').map((cells) => ({ kind: cells[0]?.replaceAll('`', '') ?? '', seenBy: cells[1] ?? '', cells }));
const preflight = new Set([...kindsIn('src/runtime/preflight'), ...kindsIn('src/agent/queries')]);
const dump = new Set([...dumpCauses, ...commonCauses].map(({ kind }) => kind));
const restore = new Set([...restoreCauses, ...commonCauses].map(({ kind }) => kind));

void describe('docs/LIMITS.md', () => {
  void it('has each kind once, in order, with what it is and what to do', () => {
    const kinds = rows.map(({ kind }) => kind);
    assert.deepEqual(kinds, [...new Set([...preflight, ...dump, ...restore, 'unknown'])].toSorted());
    for (const { kind, cells } of rows) {
      assert.equal(cells.length, 4, kind);
      assert.ok(cells[2]!.length > 10 && cells[3]!.length > 5, kind);
    }
  });

  void it('says rightly who sees it', () => {
    for (const { kind, seenBy } of rows.filter((row) => row.kind !== 'unknown')) {
      assert.equal(seenBy.includes('P'), preflight.has(kind), `${kind}: preflight`);
      if (seenBy.includes('D')) assert.ok(dump.has(kind) || preflight.has(kind), `${kind}: dump`);
      if (dumpCauses.some((cause) => cause.kind === kind)) assert.ok(seenBy.includes('D'), `${kind}: dump`);
      if (restoreCauses.some((cause) => cause.kind === kind)) assert.ok(seenBy.includes('R'), `${kind}: restore`);
    }
  });
});
