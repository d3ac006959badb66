/** The node's programs are asked once a boot, and again when one of them is another file. */
import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { knownToolchain } from '../../src/agent/known-toolchain.ts';
import { programStamp } from '../../src/host/programs.ts';

const directory = mkdtempSync('/run/known-toolchain-');
const criu = join(directory, 'criu');
const kept = join(directory, 'toolchain.json');
const options = { criu, runtimes: [{ name: 'runc', binary: 'runc' }] } as const;
const MARK = 'as it was kept';

copyFileSync(programStamp('criu').split(' ')[0]!, criu);
after(() => rmSync(directory, { recursive: true, force: true }));

/** Another answer than the programs give. */
function mark(): void {
  const known = JSON.parse(readFileSync(kept, 'utf8')) as { toolchain: { kernel: string } };
  known.toolchain.kernel = MARK;
  writeFileSync(kept, JSON.stringify(known));
}

void test('what was kept is believed, until a program is another file or what was kept is torn', async () => {
  const asked = await knownToolchain(options, directory);
  assert.ok(asked.runtimes.length === 1 && asked.criu.text !== '');
  mark();
  assert.equal((await knownToolchain(options, directory)).kernel, MARK);
  utimesSync(criu, 1, 1);
  assert.deepEqual(await knownToolchain(options, directory), asked);
  mark();
  assert.deepEqual(await knownToolchain({ ...options, runtimes: [{ name: 'runc', binary: programStamp('runc').split(' ')[0]! }] }, directory), {
    ...asked, runtimes: asked.runtimes.map((runtime) => ({ ...runtime, binary: programStamp('runc').split(' ')[0]! })),
  });
  mark();
  writeFileSync(kept, readFileSync(kept, 'utf8').slice(0, 40));
  assert.deepEqual(await knownToolchain(options, directory), asked);
});

void test('a program that is missing is looked for each time, and an answer that cannot be kept is given', async () => {
  const none = { criu, runtimes: [{ name: 'runc', binary: '/nowhere/runc' }] } as const;
  rmSync(kept);
  assert.deepEqual((await knownToolchain(none, directory)).runtimes, []);
  assert.throws(() => readFileSync(kept), { code: 'ENOENT' });
  assert.equal((await knownToolchain(options, join(directory, 'not-there'))).runtimes.length, 1);
});
