/**
 * The node's keys in a file: JSON with an X25519 secret, an Ed25519 seed and a checksum, mode 0600.
 * Made on first use; never overwritten.
 */
import { createHash, randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { link, mkdir, open, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { asStasisError, errnoCode, StasisError } from '../core/errors.ts';
import { loadSodium } from './crypto/sodium.ts';
import type { Sodium } from './crypto/port.ts';
import type { KeyProvider, WrappedKey } from './keys.ts';

interface Secrets {
  readonly box: Buffer;
  readonly seed: Buffer;
}

export async function fileKeyProvider(path: string, options: { create?: boolean } = {}): Promise<KeyProvider> {
  const sodium = await loadSodium('auto');
  try {
    const secrets = await readSecrets(path);
    return provider(sodium, path, secrets ?? (await makeSecrets(path, options.create ?? true)));
  } catch (error) {
    throw asStasisError(error, `key file ${path}`);
  }
}

function provider(sodium: Sodium, path: string, secrets: Secrets): KeyProvider {
  const box = sodium.boxPair(secrets.box);
  const signing = sodium.signPair(secrets.seed);
  return {
    description: `key file ${path}`,
    signer: signing.publicKey,
    recipients: [box.publicKey],
    sign: (message) => Promise.resolve(sodium.sign(message, signing.secretKey)),
    unwrap: (recipients: readonly WrappedKey[]) => {
      const mine = recipients.find(({ recipient }) => Buffer.compare(recipient, box.publicKey) === 0);
      if (mine === undefined) return Promise.resolve(undefined);
      const dataKey = sodium.boxSealOpen(mine.sealed, box);
      if (dataKey !== undefined) return Promise.resolve(dataKey);
      return Promise.reject(new StasisError('KEY_WRONG', `the key wrapped to this node does not open with ${path}`));
    },
  };
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
    if (!stat.isFile() || stat.size > 4096) throw damaged(path, 'it is not a small regular file');
    if ((stat.mode & 0o077) !== 0) {
      throw new StasisError('KEY_WRONG', `key file ${path} has mode ${(stat.mode & 0o7777).toString(8)}: others may use it`, {
        hint: `nobody else should have read it; if so: chmod 600 ${path}`,
      });
    }
    if (stat.uid !== process.geteuid?.() && stat.uid !== 0) {
      throw new StasisError('KEY_WRONG', `key file ${path} belongs to user ${stat.uid}`, { hint: `chown it to the user who runs the agent` });
    }
    return parseSecrets(path, await file.readFile('utf8'));
  } finally {
    await file.close();
  }
}

function parseSecrets(path: string, text: string): Secrets {
  let fields: Record<string, unknown>;
  try {
    fields = JSON.parse(text) as Record<string, unknown>;
  } catch {
    // The parser's own message would quote the secret.
    throw damaged(path, 'it is not JSON');
  }
  if (fields === null || fields['stasis'] !== 'key file 1') throw damaged(path, 'it does not begin as a key file of version 1');
  const [box, seed] = [fields['x25519'], fields['ed25519']].map((value) => Buffer.from(String(value), 'base64'));
  if (box?.length !== 32 || seed?.length !== 32) throw damaged(path, 'a key is not 32 bytes');
  if (fields['check'] !== checksum({ box, seed })) throw damaged(path, 'its checksum does not fit');
  return { box, seed };
}

function damaged(path: string, why: string): StasisError {
  return new StasisError('KEY_WRONG', `${path} is not a usable key file: ${why}`, { hint: 'put the right file back from your copy; without it the checkpoints made with it cannot be read' });
}

/** Notices a torn or edited file. Its own domain, so that it says nothing about the keys elsewhere. */
function checksum({ box, seed }: Secrets): string {
  return createHash('sha256').update('stasis key file 1').update(box).update(seed).digest('hex').slice(0, 16);
}

async function makeSecrets(path: string, create: boolean): Promise<Secrets> {
  if (!create) throw new StasisError('KEY_MISSING', `there is no key file ${path}`, { hint: 'put your copy there, or let the agent make a new one on its first start' });
  const secrets = { box: randomBytes(32), seed: randomBytes(32) };
  const text = JSON.stringify({ stasis: 'key file 1', x25519: secrets.box.toString('base64'), ed25519: secrets.seed.toString('base64'), check: checksum(secrets) }, null, 1);
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const temporary = `${path}.${randomBytes(8).toString('hex')}`;
  const file = await open(temporary, 'wx', 0o600);
  try {
    await file.writeFile(`${text}\n`);
    await file.sync();
    // A link fails where a rename would replace the key that another start has just made.
    await link(temporary, path);
  } catch (error) {
    if (errnoCode(error) !== 'EEXIST') throw error;
    const theirs = await readSecrets(path);
    if (theirs !== undefined) return theirs;
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
  return secrets;
}
