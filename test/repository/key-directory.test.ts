import assert from 'node:assert/strict';
import { chmod, mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { newLineageId } from '../../src/core/ids.ts';
import type { StasisError } from '../../src/core/errors.ts';
import { nativeSodium } from '../../src/repository/crypto/native.ts';
import { directoryKeyProvider, generateKeyFile } from '../../src/repository/index.ts';
import type { KeyProvider, PublicKeys } from '../../src/repository/index.ts';
import { hex } from '../../src/repository/trust.ts';
import { failure, withDirectory } from './support.ts';

const clock = { ms: 0, now: () => 0, monotonic: () => clock.ms, sleep: async () => undefined };
const lineage = newLineageId();

/** As the kubelet does it: a folder of files, a link to it that is renamed over the old one, and links to the files. */
async function project(volume: string, files: Readonly<Record<string, string>>, name: string): Promise<void> {
  await mkdir(join(volume, name), { recursive: true });
  for (const [file, text] of Object.entries(files)) await writeFile(join(volume, name, file), text, { mode: 0o400 });
  await symlink(name, join(volume, '..data_tmp'));
  await rename(join(volume, '..data_tmp'), join(volume, '..data'));
  for (const file of Object.keys(files)) await symlink(join('..data', file), join(volume, file)).catch(() => undefined);
}

async function keysIn(directory: string, names: readonly string[]): Promise<{ texts: Record<string, string>; keys: Record<string, PublicKeys> }> {
  const texts: Record<string, string> = {};
  const keys: Record<string, PublicKeys> = {};
  for (const name of names) {
    const path = join(directory, `made-${name}`);
    keys[name] = await generateKeyFile(path);
    texts[name] = await readFile(path, 'utf8');
  }
  return { texts, keys };
}

async function seen(provider: KeyProvider): Promise<unknown> {
  clock.ms += 2000;
  const { signer, formerSigners, recipients, own } = await provider.keys();
  return { signer: hex(signer), former: formerSigners.map(hex), recipients: recipients.map(hex), own: own.map(hex) };
}

void test('a Secret that is replaced while we run: the last by name signs, all open, the old ones stay trusted', () =>
  withDirectory(async (directory) => {
    const { texts, keys } = await keysIn(directory, ['2026-01', '2026-05', '2026-09']);
    const [old, mid, young] = ['2026-01', '2026-05', '2026-09'].map((name) => keys[name] as PublicKeys) as [PublicKeys, PublicKeys, PublicKeys];
    const volume = join(directory, 'volume');
    await mkdir(volume);
    await chmod(volume, 0o1777);
    await project(volume, { '2026-01': texts['2026-01'] ?? '', '2026-05': texts['2026-05'] ?? '' }, '..2026_a');
    const problems: StasisError[] = [];
    const provider = await directoryKeyProvider({ path: volume, current: '', clock, onProblem: (error) => problems.push(error) });
    assert.deepEqual(await seen(provider), { signer: mid.signer, former: [old.signer], recipients: [mid.recipient], own: [mid.recipient, old.recipient] });
    for (const { recipient } of [old, mid]) {
      const wrapped = { recipient: Buffer.from(recipient, 'hex'), sealed: nativeSodium.boxSeal(Buffer.alloc(32, 3), Buffer.from(recipient, 'hex')) };
      assert.deepEqual(await (await provider.keys()).unwrap([wrapped], lineage), Buffer.alloc(32, 3));
    }
    const before = await provider.keys();
    await project(volume, { '2026-05': texts['2026-05'] ?? '', '2026-09': texts['2026-09'] ?? '' }, '..2026_b');
    await rm(join(volume, '..2026_a'), { recursive: true });
    assert.equal(await provider.keys(), before, 'not at every question');
    assert.deepEqual(await seen(provider), { signer: young.signer, former: [mid.signer], recipients: [young.recipient], own: [young.recipient, mid.recipient] });

    // What cannot be read is told once, and what was there goes on.
    await project(volume, { '2026-09': 'garbage' }, '..2026_c');
    const kept = await seen(provider);
    await seen(provider);
    assert.deepEqual([(kept as { signer: string }).signer, problems.map(({ code }) => code)], [young.signer, ['KEY_WRONG']]);
    await project(volume, { '2026-01': texts['2026-01'] ?? '' }, '..2026_d');
    assert.equal(((await seen(provider)) as { signer: string }).signer, old.signer);
    await project(volume, {}, '..2026_e');
    await seen(provider);
    assert.deepEqual(problems.map(({ code }) => code), ['KEY_WRONG', 'KEY_MISSING']);
  }));

void test('a named current key, for a new one that others do not trust yet', () =>
  withDirectory(async (directory) => {
    const { texts, keys } = await keysIn(directory, ['a', 'b']);
    const folder = join(directory, 'keys');
    await mkdir(folder, { mode: 0o700 });
    for (const name of ['a', 'b']) await writeFile(join(folder, name), texts[name] ?? '', { mode: 0o600 });
    const open = (current: string): Promise<KeyProvider> => directoryKeyProvider({ path: folder, current, clock, onProblem: assert.fail });
    assert.equal(hex((await (await open('a')).keys()).signer), keys['a']?.signer);
    assert.equal(hex((await (await open('')).keys()).signer), keys['b']?.signer);
    assert.equal(await failure(open('c')), 'KEY_MISSING');
  }));

void test('refused at the start: open to others, of others, garbage, nothing', () =>
  withDirectory(async (directory) => {
    const { texts } = await keysIn(directory, ['a']);
    const folder = join(directory, 'keys');
    const open = (): Promise<string> => failure(directoryKeyProvider({ path: folder, current: '', clock, onProblem: assert.fail }));
    assert.equal(await open(), 'KEY_MISSING');
    await mkdir(folder, { mode: 0o700 });
    assert.equal(await open(), 'KEY_MISSING');
    const file = join(folder, 'a');
    await writeFile(file, texts['a'] ?? '', { mode: 0o600 });
    for (const [mode, expected] of [[0o400, 'none'], [0o440, 'none'], [0o600, 'none'], [0o444, 'KEY_WRONG'], [0o644, 'KEY_WRONG'], [0o660, 'KEY_WRONG'], [0o602, 'KEY_WRONG']] as const) {
      await chmod(file, mode);
      assert.equal(await open(), expected, mode.toString(8));
    }
    await chmod(file, 0o600);
    for (const [mode, expected] of [[0o755, 'none'], [0o1777, 'none'], [0o777, 'KEY_WRONG'], [0o770, 'KEY_WRONG']] as const) {
      await chmod(folder, mode);
      assert.equal(await open(), expected, mode.toString(8));
    }
    await mkdir(join(folder, 'sub'));
    assert.equal(await open(), 'KEY_WRONG');
    await rm(join(folder, 'sub'), { recursive: true });
    await symlink('/dev/zero', join(folder, 'zero'));
    assert.equal(await open(), 'KEY_WRONG');
  }));
