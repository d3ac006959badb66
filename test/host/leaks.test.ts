/** What a test file that leaves something is told, each kind of thing once. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readMountinfo } from '../../src/host/mountinfo.ts';

const support = fileURLToPath(new URL('../support/leaks.js', import.meta.url));
const hierarchy = readMountinfo('self').find(({ fsType }) => fsType.startsWith('cgroup'))?.mountPoint ?? '';

/** What is left by, and taken away after, a file with one test. */
const kinds: readonly { leave: string; said: RegExp; undo: string }[] = [
  { leave: 'setsid sleep 987 > /dev/null 2>&1 &', said: /^ {2}process \d+ \(sleep\), state S, .*: sleep 987$/m, undo: 'kill -9 $(pgrep -fx "sleep 987")' },
  { leave: 'mkdir -p /tmp/left && mount -t tmpfs left /tmp/left', said: /^ {2}mount of tmpfs \(left\) at \/tmp\/left$/m, undo: 'umount /tmp/left && rmdir /tmp/left' },
  { leave: `mkdir ${hierarchy}/left-by-test`, said: /^ {2}cgroup \S*\/left-by-test$/m, undo: `rmdir ${hierarchy}/left-by-test` },
  { leave: 'ip netns add left-by-test', said: /^ {2}network namespace left-by-test$/m, undo: 'ip netns del left-by-test' },
  { leave: 'nft add table inet left-by-test', said: /^ {2}packet filter: table inet left-by-test$/m, undo: 'nft delete table inet left-by-test' },
];

function shell(command: string): void {
  assert.equal(spawnSync('sh', ['-ec', command]).status, 0, command);
}

void describe('a test file that leaves', () => {
  let directory: string;
  before(() => { directory = mkdtempSync(join(tmpdir(), 'leaks-')); });
  after(() => rmSync(directory, { recursive: true, force: true }));

  const runFile = (command: string): { status: number | null; output: string } => {
    const file = join(directory, 'leaves.test.mjs');
    writeFileSync(file, `import { after, it } from 'node:test'; import { execSync } from 'node:child_process';
it('passes', () => { execSync(${JSON.stringify(command)}, { stdio: 'ignore' }); }); after(() => undefined);`);
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const { status, stdout } = spawnSync(process.execPath, ['--test', '--test-reporter=spec', `--import=${support}`, file], { env, encoding: 'utf8' });
    return { status, output: stdout };
  };

  void it('a thing of every kind fails, and is told each of them', () => {
    const { status, output } = runFile(kinds.map(({ leave }) => leave).join('\n'));
    shell(kinds.map(({ undo }) => undo).join('\n'));
    assert.equal(status, 1, output);
    for (const { said } of kinds) assert.match(output, said);
    assert.match(output, /^ℹ fail 1$/m);
  });

  void it('what ends by itself in a moment passes', () => {
    const { status, output } = runFile('setsid sleep 0.3 > /dev/null 2>&1 &');
    assert.equal(status, 0, output);
  });
});
