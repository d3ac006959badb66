/** The node's keys in one file, mode 0600. Made on first use; never overwritten. */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { link, mkdir, open, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { asStasisError, errnoCode, StasisError } from '../../core/errors.ts';
import { loadSodium } from '../crypto/sodium.ts';
import { damaged, encodeSecrets, keysOfSecrets, MAX_DOCUMENT_BYTES, newSecrets, parseSecrets, publicKeys } from './document.ts';
import type { PublicKeys, Secrets } from './document.ts';
import { fixedKeys } from './port.ts';
import type { KeyProvider, NodeKeys } from './port.ts';

/** `create`: make the file when it is missing (the default); `onCreated` is then called. */
export async function fileKeyProvider(path: string, options: { create?: boolean; onCreated?: (keys: PublicKeys) => void } = {}): Promise<NodeKeys & KeyProvider> {
  const sodium = await loadSodium('auto');
  try {
    let secrets = await readSecrets(path);
    if (secrets === undefined) {
      if (options.create === false) throw new StasisError('KEY_MISSING', `there is no key file ${path}`, { hint: 'put your copy there, or make a new one: stasis keys generate' });
      const made = await makeSecrets(path);
      if (made.ours) options.onCreated?.(publicKeys(sodium, made.secrets));
      secrets = made.secrets;
    }
    return fixedKeys(keysOfSecrets(sodium, `key file ${path}`, [secrets]));
  } catch (error) {
    throw asStasisError(error, `key file ${path}`);
  }
}

/** A new key file. Throws USAGE when there is something at that place already. */
export async function generateKeyFile(path: string): Promise<PublicKeys> {
  const sodium = await loadSodium('auto');
  try {
    const { secrets, ours } = await makeSecrets(path);
    if (ours) return publicKeys(sodium, secrets);
  } catch (error) {
    if (errnoCode(error) !== 'EEXIST' && !(error instanceof StasisError)) throw asStasisError(error, `key file ${path}`);
  }
  throw new StasisError('USAGE', `${path} is there already; a key is never overwritten`, { hint: 'choose another name' });
}

/** Undefined when there is no file. Checks the open file, not the path, so nobody can swap it in between. */
async function readSecrets(path: string): Promise<Secrets | undefined> {
  let file;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const stat = await file.stat();
    if (!stat.isFile() || stat.size > MAX_DOCUMENT_BYTES) throw damaged(path, 'it is not a small regular file');
    requirePrivate(`key file ${path}`, stat, { mask: 0o077, hint: `nobody else should have read it; if so: chmod 600 ${path}` });
    return parseSecrets(path, await file.readFile('utf8'));
  } finally {
    await file.close();
  }
}

/** Nobody but its owner, who is root or we, may do what is in `mask`. Throws KEY_WRONG. */
export function requirePrivate(what: string, { mode, uid }: { readonly mode: number; readonly uid: number }, { mask, hint }: { readonly mask: number; readonly hint: string }): void {
  if ((mode & mask) !== 0) throw new StasisError('KEY_WRONG', `${what} has mode ${(mode & 0o7777).toString(8)}: others may use it`, { hint });
  if (uid !== process.geteuid?.() && uid !== 0) throw new StasisError('KEY_WRONG', `${what} belongs to user ${uid}`, { hint: 'chown it to the user who runs the agent' });
}

/** Not `ours` when another start has just made one. */
async function makeSecrets(path: string): Promise<{ secrets: Secrets; ours: boolean }> {
  const secrets = newSecrets();
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const temporary = `${path}.${randomBytes(8).toString('hex')}`;
  const file = await open(temporary, 'wx', 0o600);
  try {
    await file.writeFile(encodeSecrets(secrets));
    await file.sync();
    // A link fails where a rename would replace the key that another start has just made.
    await link(temporary, path);
  } catch (error) {
    if (errnoCode(error) !== 'EEXIST') throw error;
    const theirs = await readSecrets(path);
    if (theirs !== undefined) return { secrets: theirs, ours: false };
    throw error;
  } finally {
    await file.close();
    await unlink(temporary);
  }
  const directory = await open(dirname(path), constants.O_RDONLY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
  return { secrets, ours: true };
}
