/**
 * The node's keys in a folder of key files, as Kubernetes mounts a Secret: links into a folder that the link `..data` names,
 * which is replaced as a whole. One key is current, the others open what was wrapped to them. Read again while we run.
 */
import { constants } from 'node:fs';
import { open, readdir, realpath, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { asStasisError, errnoCode, StasisError } from '../../core/errors.ts';
import { loadSodium } from '../crypto/sodium.ts';
import type { Sodium } from '../crypto/port.ts';
import { damaged, keysOfSecrets, MAX_DOCUMENT_BYTES, parseSecrets } from './document.ts';
import type { Secrets } from './document.ts';
import { requirePrivate } from './file.ts';
import type { KeyProvider, NodeKeys } from './port.ts';
import { Refreshing } from './refreshing.ts';
import type { RefreshOptions } from './refreshing.ts';

export interface KeyDirectoryOptions extends Omit<RefreshOptions, 'everyMs'> {
  readonly path: string;
  /** Name of the file whose key signs and is wrapped to; empty for the last by name. */
  readonly current: string;
}

const LOOK_MS = 1000;
/** The folder behind `..data` may be replaced while it is read. */
const ATTEMPTS = 5;
const MAX_KEYS = 16;
/** A Secret's volume can be mounted for its owner, and for the group of the Pod (fsGroup), to read; never for all. */
const FORBIDDEN = 0o037;

export async function directoryKeyProvider(options: KeyDirectoryOptions): Promise<KeyProvider> {
  const sodium = await loadSodium('auto');
  const keys = await Refreshing.start(() => readDirectory(sodium, options), { ...options, everyMs: LOOK_MS });
  return { description: describe(options), keys: () => keys.get() };
}

const describe = ({ path }: KeyDirectoryOptions): string => `key directory ${path}`;

async function readDirectory(sodium: Sodium, options: KeyDirectoryOptions): Promise<NodeKeys> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await readOnce(sodium, options);
    } catch (error) {
      if (errnoCode(error) !== 'ENOENT' || attempt === ATTEMPTS) throw missing(options, error) ?? asStasisError(error, describe(options));
    }
  }
}

function missing(options: KeyDirectoryOptions, error: unknown): StasisError | undefined {
  return errnoCode(error) === 'ENOENT' ? new StasisError('KEY_MISSING', `${describe(options)} is not there`, { cause: error, hint: 'is the Secret mounted? keys.directory names the folder' }) : undefined;
}

async function readOnce(sodium: Sodium, options: KeyDirectoryOptions): Promise<NodeKeys> {
  const folder = await snapshotOf(options.path);
  // A Secret's own folder is writable for all with the sticky bit: nobody can take our files away, and those of others are refused.
  const { mode, uid } = await stat(folder);
  requirePrivate(describe(options), { mode: (mode & 0o1000) === 0 ? mode : 0, uid }, { mask: 0o022, hint: `chmod go-w ${options.path}` });
  const names = (await readdir(folder)).filter((name) => !name.startsWith('.')).sort();
  if (names.length === 0) throw new StasisError('KEY_MISSING', `${describe(options)} holds no keys`, { hint: 'stasis keys generate makes one' });
  if (names.length > MAX_KEYS) throw new StasisError('LIMIT_EXCEEDED', `${describe(options)} holds ${names.length} files, at most ${MAX_KEYS} are read`, { hint: 'keep nothing but keys there' });
  const current = options.current === '' ? names.at(-1) : options.current;
  const first = names.find((name) => name === current);
  if (first === undefined) throw new StasisError('KEY_MISSING', `${describe(options)} has no file ${JSON.stringify(current)}`, { hint: 'keys.current names the file whose key is the current one; empty for the last by name' });
  const currentSecrets = await readKey(folder, first);
  const others: Secrets[] = [];
  for (const name of names.filter((other) => other !== first).reverse()) others.push(await readKey(folder, name));
  return keysOfSecrets(sodium, describe(options), [currentSecrets, ...others]);
}

/** All files out of one state of the folder. */
async function snapshotOf(path: string): Promise<string> {
  try {
    return await realpath(join(path, '..data'));
  } catch (error) {
    if (errnoCode(error) !== 'ENOENT') throw error;
    return realpath(path);
  }
}

async function readKey(folder: string, name: string): Promise<Secrets> {
  const path = join(folder, name);
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const info = await file.stat();
    if (!info.isFile() || info.size > MAX_DOCUMENT_BYTES) throw damaged(path, 'it is not a small regular file');
    requirePrivate(`key file ${path}`, info, { mask: FORBIDDEN, hint: 'a volume of a Secret needs defaultMode: 0400; elsewhere: chmod 600' });
    return parseSecrets(path, await file.readFile('utf8'));
  } finally {
    await file.close();
  }
}
