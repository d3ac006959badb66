/** Which pipes a container was started with, whatever its first process redirects when it is saved. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { noteStandardPipes, standardPipes } from '../../src/runtime/standard-pipes.ts';

type Three = readonly [string, string, string];
type Row = readonly [name: string, descriptors: Readonly<Record<number, string>>, standard: Three, before?: Three];
const [IN, OUT, ERR, OWN, OLD] = ['pipe:[101]', 'pipe:[102]', 'pipe:[103]', 'pipe:[200]', 'pipe:[99]'];
const readEnds = [IN];

const rows: readonly Row[] = [
  ['nothing redirected', { 0: IN, 1: OUT, 2: ERR }, [IN, OUT, ERR]],
  ['one pipe for both', { 0: '/dev/null', 1: OUT, 2: OUT }, ['/dev/null', OUT, OUT]],
  ['output to error', { 0: '/dev/null', 1: ERR, 2: ERR, 10: OUT }, ['/dev/null', OUT, ERR]],
  ['error to output', { 0: '/dev/null', 1: OUT, 2: OUT, 10: ERR }, ['/dev/null', OUT, ERR]],
  ['output to a file', { 0: '/dev/null', 1: '/log', 2: ERR, 10: OUT }, ['/dev/null', OUT, ERR]],
  ['error to a file', { 0: '/dev/null', 1: OUT, 2: '/dev/null', 10: ERR }, ['/dev/null', OUT, ERR]],
  ['both to a file', { 0: '/dev/null', 1: '/log', 2: '/log', 10: ERR, 11: OUT }, ['/dev/null', OUT, ERR]],
  ['input from a file', { 0: '/data', 1: OUT, 2: ERR, 10: IN }, [IN, OUT, ERR]],
  ['output closed', { 0: IN, 2: ERR, 10: OUT }, [IN, OUT, ERR]],
  ['a pipe of its own', { 0: '/dev/null', 1: '/log', 2: ERR, 5: OWN }, ['/dev/null', '/log', ERR]],
  ['output to error, seen before', { 0: '/dev/null', 1: OUT, 2: OUT, 10: ERR }, ['/dev/null', ERR, OUT], ['/dev/null', ERR, OUT]],
  ['redirected only when it was seen before', { 0: '/dev/null', 1: OUT, 2: ERR }, ['/dev/null', OUT, ERR], ['/dev/null', ERR, ERR]],
  ['redirected both times', { 0: '/dev/null', 1: ERR, 2: ERR, 10: OUT }, ['/dev/null', OUT, ERR], ['/dev/null', ERR, ERR]],
  ['redirected each time another way', { 0: '/dev/null', 1: ERR, 2: ERR, 10: OUT }, ['/dev/null', OUT, ERR], ['/dev/null', OUT, OUT]],
  ['what was there before is closed', { 0: '/dev/null', 1: '/log', 2: ERR }, ['/dev/null', '/log', ERR], ['/dev/null', OUT, ERR]],
  ['input from a file, seen before', { 0: '/data', 1: OUT, 2: ERR, 10: IN, 11: OLD }, [IN, OUT, ERR], [IN, OUT, ERR]],
  ['input closed for good', { 1: OUT, 2: ERR }, ['', OUT, ERR]],
  ['error closed', { 0: IN, 1: OUT, 10: ERR }, [IN, OUT, ERR]],
  ['both closed, one for both before', { 0: IN, 10: OUT }, [IN, OUT, '']],
  ['one elsewhere twice', { 0: IN, 1: '/log', 2: '/log', 10: OUT, 11: OUT }, [IN, OUT, '/log']],
  ['a number with a digit less is the older pipe', { 0: IN, 1: OUT, 2: OUT, 10: OLD }, [IN, OLD, OUT]],
  ['more than two elsewhere', { 0: IN, 1: '/log', 2: '/log', 10: ERR, 11: OUT, 12: OLD }, [IN, OLD, OUT]],
  ['a descriptor open both ways', { 0: IN, 1: '/log', 2: ERR, 20: OUT }, [IN, '/log', ERR]],
  ['a terminal', { 0: '/dev/pts/0', 1: '/dev/pts/0', 2: '/dev/pts/0' }, ['/dev/pts/0', '/dev/pts/0', '/dev/pts/0']],
];

void describe('standardPipes', () => {
  for (const [name, held, standard, before = []] of rows) {
    void it(name, () => {
      const descriptors = Object.entries(held).map(([fd, target]) => ({ fd: Number(fd), target }));
      // Descriptor 20 stands for one that is open for reading and writing.
      const end = (fd: number): 'read' | 'write' | undefined => (fd === 20 ? undefined : readEnds.includes(held[fd]!) ? 'read' : 'write');
      assert.deepEqual(standardPipes({ descriptors, before, end, isExternal: (target) => target !== OWN }), standard);
    });
  }

  void it('nobody is asked who holds a pipe where nothing is redirected', () => {
    const descriptors = [IN, OUT, ERR, OWN].map((target, fd) => ({ fd, target }));
    assert.deepEqual(standardPipes({ descriptors, before: [], end: () => assert.fail(), isExternal: () => assert.fail() }), [IN, OUT, ERR]);
  });
});

void describe('noteStandardPipes', () => {
  const noted = (what: unknown, pipes: Three): unknown => {
    const directory = mkdtempSync(join(tmpdir(), 'pipes-'));
    try {
      const file = join(directory, 'descriptors.json');
      writeFileSync(file, JSON.stringify(what));
      utimesSync(file, 1, 1);
      noteStandardPipes(directory, pipes);
      return statSync(file).mtimeMs === 1000 ? 'untouched' : JSON.parse(readFileSync(file, 'utf8'));
    } finally {
      rmSync(directory, { recursive: true });
    }
  };
  void it('writes pipes over what the runtime has noted, and nothing else', () => {
    assert.deepEqual(noted(['/dev/null', '/log', ERR], [IN, OUT, ERR]), [IN, OUT, ERR]);
    assert.deepEqual(noted(['/dev/null', '/log', ERR], ['/data', OUT, '/dev/null']), ['/dev/null', OUT, ERR]);
  });
  void it('leaves alone what is right, and what it does not know', () => {
    assert.equal(noted([IN, OUT, ERR], [IN, OUT, ERR]), 'untouched');
    assert.equal(noted({ other: 1 }, [IN, OUT, ERR]), 'untouched');
  });
});
