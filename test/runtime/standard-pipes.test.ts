/** Which pipes a container was started with, whatever its first process redirects when it is saved. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { standardPipes } from '../../src/runtime/standard-pipes.ts';

type Three = readonly [string, string, string];
type Row = readonly [name: string, descriptors: Readonly<Record<number, string>>, standard: Three, before?: Three];
const [IN, OUT, ERR, OWN] = ['pipe:[101]', 'pipe:[102]', 'pipe:[103]', 'pipe:[200]'];
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
  ['a terminal', { 0: '/dev/pts/0', 1: '/dev/pts/0', 2: '/dev/pts/0' }, ['/dev/pts/0', '/dev/pts/0', '/dev/pts/0']],
];

void describe('standardPipes', () => {
  for (const [name, held, standard, before = []] of rows) {
    void it(name, () => {
      const descriptors = Object.entries(held).map(([fd, target]) => ({ fd: Number(fd), target }));
      const end = (fd: number): 'read' | 'write' => (readEnds.includes(held[fd]!) ? 'read' : 'write');
      assert.deepEqual(standardPipes({ descriptors, before, end, isExternal: (target) => target !== OWN }), standard);
    });
  }
});
