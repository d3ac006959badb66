import assert from 'node:assert/strict';
import { chmod, readdir, readFile, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { newLineageId } from '../../src/core/ids.ts';
import { isStasisError } from '../../src/core/errors.ts';
import { fileKeyProvider } from '../../src/repository/index.ts';
import { nativeSodium } from '../../src/repository/crypto/native.ts';
import { failure, withDirectory } from './support.ts';

const lineage = newLineageId();

void test('a key file is made once, for its owner only, and found again', () =>
  withDirectory(async (directory) => {
    const path = join(directory, 'keys', 'key');
    const first = await fileKeyProvider(path);
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    assert.deepEqual(await readdir(join(directory, 'keys')), ['key'], 'no temporary file is left');
    const second = await fileKeyProvider(path);
    assert.deepEqual(second.signer, first.signer);
    assert.deepEqual(second.recipients, first.recipients);
    const message = Buffer.from('signed by one, checked by the other');
    assert.ok(nativeSodium.verify(await first.sign(message), message, second.signer));
    const [recipient] = first.recipients;
    assert.ok(recipient);
    const sealed = nativeSodium.boxSeal(Buffer.alloc(32, 7), recipient);
    assert.deepEqual(await second.unwrap([{ recipient, sealed }], lineage), Buffer.alloc(32, 7));
    assert.equal(await second.unwrap([{ recipient: Buffer.alloc(32), sealed }], lineage), undefined);
    sealed[50] = (sealed[50] ?? 0) ^ 1;
    assert.equal(await failure(second.unwrap([{ recipient, sealed }], lineage)), 'KEY_WRONG');
  }));

void test('many starts at once agree on one key', () =>
  withDirectory(async (directory) => {
    const providers = await Promise.all(Array.from({ length: 8 }, () => fileKeyProvider(join(directory, 'key'))));
    assert.equal(new Set(providers.map(({ signer }) => Buffer.from(signer).toString('hex'))).size, 1);
    assert.deepEqual(await readdir(directory), ['key']);
  }));

void test('a key file that is not right is refused with a hint and without its contents', () =>
  withDirectory(async (directory) => {
    const path = join(directory, 'key');
    assert.equal(await failure(fileKeyProvider(path, { create: false })), 'KEY_MISSING');
    await fileKeyProvider(path);
    const good = await readFile(path, 'utf8');
    const secret = (JSON.parse(good) as { x25519: string }).x25519;
    const refused = async (why: RegExp): Promise<void> => {
      await assert.rejects(fileKeyProvider(path), (error) => {
        assert.ok(isStasisError(error, 'KEY_WRONG'));
        assert.match(error.message, why);
        assert.ok(error.hint);
        assert.ok(!`${error.message}${error.stack}${String(error.cause)}`.includes(secret.slice(0, 8)), 'the secret is not in the error');
        return true;
      });
    };
    await chmod(path, 0o640);
    await refused(/mode 640/);
    await chmod(path, 0o604);
    await refused(/mode 604/);
    await chmod(path, 0o600);
    await writeFile(path, good.replace(secret.slice(0, 4), secret.startsWith('AAAA') ? 'BBBB' : 'AAAA'));
    await refused(/checksum/);
    await writeFile(path, good.slice(0, good.length - 10));
    await refused(/JSON/);
    await truncate(path, 0);
    await refused(/JSON/);
    await writeFile(path, 'null');
    await refused(/version 1/);
    await writeFile(path, '{"stasis":"key file 1"}');
    await refused(/32 bytes/);
    await writeFile(path, ' '.repeat(10_000));
    await refused(/small regular file/);
  }));

void test('a link to a key file works, a link to nowhere does not replace anything', () =>
  withDirectory(async (directory) => {
    const provider = await fileKeyProvider(join(directory, 'real'));
    await symlink('real', join(directory, 'link'));
    assert.deepEqual((await fileKeyProvider(join(directory, 'link'))).signer, provider.signer);
    await symlink('missing', join(directory, 'broken'));
    assert.notEqual(await failure(fileKeyProvider(join(directory, 'broken'))), 'none');
  }));
