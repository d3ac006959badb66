import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { harness } from '../rpc/harness.ts';
import type { Harness } from '../rpc/harness.ts';
import { checkpointInfo } from '../rpc/scripted-agent.ts';
import { jsonLines, run } from './run.ts';

void describe('stasis repo, pin and unpin', () => {
  let h: Harness;
  before(async () => { h = await harness({}); });
  after(() => h[Symbol.asyncDispose]());
  const stasis = (...args: string[]) => run(args, { STASIS_SOCKET: h.socket });

  void it('stats', async () => {
    const { status, stdout } = await stasis('repo', 'stats');
    assert.equal(status, 0);
    assert.match(stdout, /^Checkpoints: +3 in 2 lineages, 1 pinned, 1 cannot be read here$/m);
    assert.match(stdout, /^Objects: +400 MiB of 1\.00 GiB$/m);
    assert.equal((JSON.parse((await stasis('repo', 'stats', '--json')).stdout) as { looseBytes?: number; loose_bytes?: number }).loose_bytes, 1024);
  });

  void it('check: damage is told and gives status 30', async () => {
    const { status, stdout, stderr } = await stasis('repo', 'check');
    assert.equal(status, 30);
    assert.match(stdout, /^3 checkpoints, 1 of them sealed for others/);
    assert.match(stderr, /OBJECT_MISSING/);
    await stasis('repo', 'check', '--read-data', '--json');
    assert.deepEqual(h.script.calls.filter(({ method }) => method === 'checkRepository').map(({ request }) => (request as { readData: boolean }).readData), [false, true]);
  });

  void it('prune, and what it would do', async () => {
    const { status, stdout, stderr } = await stasis('repo', 'prune');
    assert.equal(status, 0);
    assert.match(stdout, new RegExp(`^${checkpointInfo.id}  deleted: too old$`, 'm'));
    assert.match(stderr, /2 loose packs .* stay: in use/);
    assert.match((await stasis('repo', 'prune', '--dry-run')).stdout, /would be deleted/);
    const lines = jsonLines((await stasis('repo', 'prune', '--json')).stdout);
    assert.equal(lines.at(-1)?.['type'], 'report');
  });

  void it('pin and unpin', async () => {
    assert.equal((await stasis('pin', checkpointInfo.id)).stdout, `${checkpointInfo.id}\n`);
    assert.deepEqual(jsonLines((await stasis('unpin', '--json', checkpointInfo.id)).stdout), [{ type: 'unpinned', checkpoint: checkpointInfo.id }]);
  });

  void it('completion knows the commands below repo', async () => {
    assert.equal((await stasis('__complete', '--', 'repo', '')).stdout, 'stats\ncheck\nprune\nkeys\n');
    assert.match((await stasis('__complete', '--', 'repo', 'prune', '--')).stdout, /--dry-run/);
  });
});
