import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { harness } from '../rpc/harness.ts';
import type { Harness } from '../rpc/harness.ts';
import { checkpointInfo, lineageKey, nodeKeys } from '../rpc/scripted-agent.ts';
import { jsonLines, run } from './run.ts';

const [recipient, stranger] = [lineageKey.recipients[1] ?? '', '55'.repeat(32)];

void describe('stasis keys', () => {
  let h: Harness;
  const directory = mkdtempSync(join(tmpdir(), 'stasis-keys-'));
  before(async () => { h = await harness({}); });
  after(async () => {
    await h[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true });
  });
  const stasis = (...args: string[]) => run(args, { STASIS_SOCKET: h.socket });
  const asked = (): Record<string, unknown> => {
    const { operationId: _, ...rest } = (h.script.calls.findLast(({ method }) => method === 'changeRecipients')?.request ?? {}) as Record<string, unknown>;
    return rest;
  };
  const nothing = { lineages: [], add: [], remove: [], rotate: false, exact: false, endLineages: false, dryRun: false, reason: '' };

  void it('generate makes a key file without an agent, and never writes over anything', async () => {
    const file = join(directory, 'deep/new.key');
    const { status, stdout } = await run(['keys', 'generate', file]);
    assert.equal(status, 0);
    const [, shown, signer] = /^Recipient: +([0-9a-f]{64})\nSigner: +([0-9a-f]{64})\n$/.exec(stdout) ?? [];
    assert.ok(shown !== undefined && signer !== undefined && shown !== signer, stdout);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    const text = readFileSync(file, 'utf8');
    assert.ok(!stdout.includes((JSON.parse(text) as { x25519: string }).x25519));
    const again = await run(['keys', 'generate', file]);
    assert.deepEqual([again.status, again.stdout, readFileSync(file, 'utf8')], [2, '', text]);
    assert.match(again.stderr, /is there already; a key is never overwritten/);
    writeFileSync(join(directory, 'other'), 'not a key');
    assert.equal((await run(['keys', 'generate', join(directory, 'other')])).status, 2);
    assert.equal(readFileSync(join(directory, 'other'), 'utf8'), 'not a key');
    const made = JSON.parse((await run(['keys', 'generate', '--json', join(directory, 'json.key')])).stdout) as Record<string, string>;
    assert.deepEqual([Object.keys(made), made['file']], [['file', 'recipient', 'signer'], join(directory, 'json.key')]);
  });

  void it('list', async () => {
    const { stdout } = await stasis('keys', 'list');
    assert.match(stdout, new RegExp(`^Signs as: +${nodeKeys.signer}$`, 'm'));
    assert.match(stdout, /^Wraps to: +e{64} \(of others\)$/m);
    assert.deepEqual((JSON.parse((await stasis('keys', 'list', '--json')).stdout) as { trusted_signers: string[] }).trusted_signers, nodeKeys.trustedSigners);
  });

  void it('repo keys', async () => {
    const { status, stdout, stderr } = await stasis('repo', 'keys');
    assert.equal(status, 0);
    assert.match(stdout, /^LINEAGE +EPOCH +CHECKPOINTS +HERE +STATE +RECIPIENTS\n(?:ab){16} +1 +1 +opens +goes on +(?:cd){6} (?:77){6}\n(?:ef){16} +4 +0 +sealed +ended +/);
    assert.match(stderr, /signed by a stranger/);
    assert.ok((await stasis('repo', 'keys', '--wide')).stdout.includes(recipient));
    assert.equal((JSON.parse((await stasis('repo', 'keys', '--json')).stdout) as { keys: unknown[] }).keys.length, 2);
  });

  void it('add-recipient: what is asked, what was done, and that new lineages are another matter', async () => {
    const { status, stdout, stderr } = await stasis('keys', 'add-recipient', stranger, '--reason', 'escrow');
    assert.deepEqual([status, stdout], [0, `${lineageKey.lineage}\n`]);
    assert.deepEqual(asked(), { ...nothing, add: [stranger], reason: 'escrow' });
    assert.match(stderr, /new lineages are not wrapped to 5{64}: add it to keys\.recipients/);
    assert.doesNotMatch((await stasis('keys', 'add-recipient', nodeKeys.recipients[1] ?? '')).stderr, /warning/);
  });

  void it('remove-recipient ends the lineages that had it, and only those', async () => {
    assert.equal((await stasis('keys', 'remove-recipient', recipient)).status, 0);
    assert.deepEqual(asked(), { ...nothing, lineages: [lineageKey.lineage, 'ef'.repeat(16)], remove: [recipient], endLineages: true });
    await stasis('keys', 'remove-recipient', '--continue-lineages', '--lineage', lineageKey.lineage, '--', recipient);
    assert.deepEqual(asked(), { ...nothing, lineages: [lineageKey.lineage], remove: [recipient] });
    const count = h.script.calls.filter(({ method }) => method === 'changeRecipients').length;
    assert.match((await stasis('keys', 'remove-recipient', stranger)).stderr, /no lineage is wrapped to it/);
    assert.equal(h.script.calls.filter(({ method }) => method === 'changeRecipients').length, count, 'not all of them instead of none');
    assert.match((await stasis('keys', 'remove-recipient', nodeKeys.own[0] ?? '')).stderr, /is wrapped to (?:cd){32} again/);
  });

  void it('rotate: progress, a report, and status 31 when something could not be changed', async () => {
    const lines = jsonLines((await stasis('keys', 'rotate', '--json', '--exact', '--dry-run')).stdout);
    assert.deepEqual(lines.map(({ type }) => type), ['progress', 'report']);
    assert.deepEqual(asked(), { ...nothing, rotate: true, exact: true, dryRun: true });
    const { status, stderr } = await stasis('keys', 'rotate', '--reason', 'damaged', '--end-lineages');
    assert.equal(status, 31);
    assert.match(stderr, /(?:ef){16} is not wrapped to this node/);
    assert.match(stderr, /1 changed, 2 as they should be, 1 for others to change/);
  });

  void it('shred says what would be lost, and does it only when told so', async () => {
    const last = (): unknown => h.script.calls.findLast(({ method }) => method === 'shredLineages')?.request;
    const first = await stasis('keys', 'shred', lineageKey.lineage);
    assert.deepEqual([first.status, first.stdout], [2, '']);
    assert.match(first.stderr, new RegExp(`1 checkpoint would become unreadable for ever\\nstasis:   ${checkpointInfo.id} \\(pinned\\)\\n.*--yes is missing`));
    assert.deepEqual(last(), { lineages: [lineageKey.lineage], force: false, dryRun: true, reason: '' });
    const second = await stasis('keys', 'shred', '--yes', '--force', '--reason', 'gdpr', lineageKey.lineage);
    assert.deepEqual([second.status, second.stdout], [0, `${lineageKey.lineage}\n`]);
    assert.deepEqual(last(), { lineages: [lineageKey.lineage], force: true, dryRun: false, reason: 'gdpr' });
    assert.deepEqual(jsonLines((await stasis('keys', 'shred', '--yes', '--json', lineageKey.lineage)).stdout).map(({ type }) => type), ['shredded']);
  });
});
