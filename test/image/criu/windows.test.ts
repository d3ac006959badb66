import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { WINDOW_BYTES, WindowCutter } from '../../../src/image/criu/windows.ts';

const PAGE = 4096;
const MiB = 1024 * 1024;

interface Run {
  address: number;
  bytes: number;
}

/** Pieces as sets of pages. */
function cut(runs: readonly Run[], portion = Number.POSITIVE_INFINITY): number[][] {
  const cutter = new WindowCutter();
  const lengths: number[] = [];
  for (const { address, bytes } of runs) {
    for (let done = 0; done < bytes; done += portion) lengths.push(...cutter.push(address + done, Math.min(portion, bytes - done)));
    assert.ok(cutter.pendingBytes <= WINDOW_BYTES);
  }
  lengths.push(...cutter.end());
  const pages = runs.flatMap(({ address, bytes }) => Array.from({ length: bytes / PAGE }, (_, i) => address / PAGE + i));
  return lengths.map((length) => pages.splice(0, length / PAGE)).concat(pages.length > 0 ? [pages] : []);
}

/** The definition, from the top down: halve until it fits. */
function reference(pages: readonly number[], start = 0, size = 2 ** 45): number[][] {
  if (pages.length === 0) return [];
  if (pages.length <= 256) return [[...pages]];
  const middle = start + size / 2;
  return [...reference(pages.filter((page) => page < middle), start, size / 2), ...reference(pages.filter((page) => page >= middle), middle, size / 2)];
}

/** Clusters of runs, dense and sparse, over the whole address space. */
const layout = fc
  .array(fc.tuple(fc.constantFrom(1, 3, 100, 5000, 2 ** 20, 2 ** 33), fc.integer({ min: 1, max: 700 })), { minLength: 1, maxLength: 40 })
  .map((steps) => {
    let page = 16;
    return steps.map(([gap, pages]) => {
      page += gap;
      const run = { address: page * PAGE, bytes: pages * PAGE };
      page += pages;
      return run;
    });
  });

const pagesOf = (runs: readonly Run[]): number[] => runs.flatMap(({ address, bytes }) => Array.from({ length: bytes / PAGE }, (_, i) => address / PAGE + i));

void test('pieces are the largest aligned windows that fit, whatever the portions', () => {
  fc.assert(
    fc.property(layout, fc.integer({ min: 1, max: 600 }), (runs, portion) => {
      const expected = reference(pagesOf(runs));
      assert.deepEqual(cut(runs), expected);
      assert.deepEqual(cut(runs, portion * PAGE), expected);
    }),
    { numRuns: 150 },
  );
});

void test('a page that appears or goes leaves almost all other pieces as they were', () => {
  fc.assert(
    fc.property(layout, fc.nat(), (runs, choice) => {
      const pages = pagesOf(runs);
      const fewer = pages.toSpliced(choice % pages.length, 1);
      const before = new Set(cut(runs).map((piece) => piece.join()));
      const after = cut(fewer.map((page) => ({ address: page * PAGE, bytes: PAGE }))).map((piece) => piece.join());
      // The piece that lost a page, and at most its neighbours that now fit together with it.
      assert.ok(after.filter((piece) => !before.has(piece)).length <= 1);
    }),
    { numRuns: 150 },
  );
});

void test('dense memory is cut at 1 MiB boundaries', () => {
  const pieces = cut([{ address: 5 * MiB - PAGE, bytes: 3 * MiB }]);
  assert.deepEqual(pieces.map((piece) => piece.length), [1, 256, 256, 255]);
});

void test('thousands of small mappings share a few pieces', () => {
  const runs = Array.from({ length: 5000 }, (_, i) => ({ address: 0x7f00_0000_0000 + i * 10 * MiB, bytes: 2 * PAGE }));
  const pieces = cut(runs);
  assert.ok(pieces.length < 120, `${pieces.length} pieces for ${runs.length} mappings of 8 KiB`);
});

void test('the cutter is as new after its end', () => {
  const cutter = new WindowCutter();
  for (let i = 0; i < 2; i++) assert.deepEqual([...cutter.push(0, 3 * MiB), ...cutter.end()], [MiB, MiB, MiB]);
});
