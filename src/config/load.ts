/**
 * Loads the configuration: flags > STASIS_* environment > YAML file > defaults. The only reader of process.env.
 * Every mistake is CONFIG_INVALID and names the source, the key and what was expected.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { errnoCode, StasisError } from '../core/errors.ts';
import { clientVariables, keys, nearest } from './keys.ts';
import type { Key } from './keys.ts';
import { schema } from './schema.ts';
import type { Config } from './schema.ts';
import { defaultConfigFile } from './schema.ts';

export type Origin = 'flag' | 'environment' | 'file' | 'default';

export interface LoadedConfig {
  /** Deeply frozen; the empty defaults of paths below stateDirectory are filled in. */
  readonly config: Config;
  /** Where each key's value comes from ("environment STASIS_SOCKET", "file /etc/stasis/agent.yaml"), by its dotted name. */
  readonly origins: ReadonlyMap<string, { readonly origin: Origin; readonly detail: string }>;
}

export interface ConfigSources {
  /** By the name of the flag without dashes ("staging-size"). */
  readonly flags?: Readonly<Record<string, string>>;
  /** A file named by the caller must exist; the default one need not. */
  readonly file?: string | undefined;
  /** Default: the environment of this process. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

type Found = Map<Key, { value: unknown; origin: Origin; detail: string }>;

export async function loadConfig(sources: ConfigSources = {}): Promise<LoadedConfig> {
  const env = sources.env ?? process.env;
  const found: Found = new Map(keys.map((key) => [key, { value: key.fallback, origin: 'default', detail: '' }]));
  const named = sources.file ?? (env['STASIS_CONFIG'] === '' ? undefined : env['STASIS_CONFIG']);
  await fromFile(found, named ?? defaultConfigFile, named !== undefined);
  fromEnvironment(found, env);
  fromFlags(found, sources.flags ?? {});
  const config = complete(validate(found));
  check(config);
  return {
    config: freeze(config),
    origins: new Map([...found].map(([key, { origin, detail }]) => [key.name, { origin, detail }])),
  };
}

async function fromFile(found: Found, file: string, required: boolean): Promise<void> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (!required && errnoCode(error) === 'ENOENT') return;
    throw new StasisError('CONFIG_INVALID', `the configuration file ${file} cannot be read: ${(error as Error).message}`, { cause: error, hint: 'check the path given by --config or STASIS_CONFIG' });
  }
  const { parse } = await import('yaml');
  let document: unknown;
  try {
    document = parse(text);
  } catch (error) {
    throw new StasisError('CONFIG_INVALID', `${file} is not YAML: ${(error as Error).message.split('\n')[0]}`, { cause: error });
  }
  if (document !== null && document !== undefined) fromTree(found, document, [], file);
}

function fromTree(found: Found, node: unknown, path: readonly string[], file: string): void {
  const name = path.join('.');
  const key = keys.find((candidate) => candidate.name === name);
  if (key !== undefined) {
    found.set(key, { value: node, origin: 'file', detail: file });
    return;
  }
  const inside = keys.filter((candidate) => path.every((part, i) => candidate.path[i] === part));
  if (inside.length === 0) throw unknownKey(`${file}: ${JSON.stringify(name)} is not a key`, name, keys.map((candidate) => candidate.name));
  if (typeof node !== 'object' || node === null || Array.isArray(node)) {
    throw new StasisError('CONFIG_INVALID', `${file}: ${name === '' ? 'the document' : name} must be a map of keys`, { hint: `keys below it are ${inside.map((candidate) => candidate.name).slice(0, 5).join(', ')}` });
  }
  for (const [part, child] of Object.entries(node)) fromTree(found, child, [...path, part], file);
}

/** What Kubernetes puts into the environment of every Pod when some Service is called "stasis…". */
const kubernetesService = /^STASIS(_[A-Z0-9]+)*_(SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)?)$/;

function fromEnvironment(found: Found, env: Readonly<Record<string, string | undefined>>): void {
  const ours = new Set<string>(clientVariables);
  for (const [name, value] of Object.entries(env)) {
    if (!name.startsWith('STASIS_') || value === undefined) continue;
    const key = keys.find((candidate) => candidate.env === name);
    if (key !== undefined) found.set(key, { value, origin: 'environment', detail: name });
    else if (!ours.has(name) && !kubernetesService.test(name)) {
      throw unknownKey(`the environment variable ${name} is not known`, name, [...keys.map((candidate) => candidate.env), ...ours]);
    }
  }
}

function fromFlags(found: Found, flags: Readonly<Record<string, string>>): void {
  for (const [flag, value] of Object.entries(flags)) {
    const key = keys.find((candidate) => candidate.flag === flag);
    if (key === undefined) throw unknownKey(`the flag --${flag} is not known`, flag, keys.map((candidate) => candidate.flag));
    found.set(key, { value, origin: 'flag', detail: `--${flag}` });
  }
}

function unknownKey(message: string, name: string, known: readonly string[]): StasisError {
  const guess = nearest(name, known);
  return new StasisError('CONFIG_INVALID', message, { hint: guess === undefined ? 'docs/CONFIG.md lists all keys' : `did you mean ${guess}?` });
}

function validate(found: Found): Config {
  const tree: Record<string, unknown> = {};
  for (const [key, { value }] of found) {
    let node = tree;
    for (const part of key.path.slice(0, -1)) node = (node[part] ??= {}) as Record<string, unknown>;
    node[key.path.at(-1) ?? ''] = value;
  }
  const result = v.safeParse(schema, tree);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const name = issue.path?.filter((item) => item.type === 'object').map(({ key }) => key).join('.') ?? '';
  const source = [...found].find(([key]) => key.name === name)?.[1];
  const where = source === undefined || source.origin === 'default' ? '' : ` (from ${source.origin} ${source.detail})`;
  const shown = JSON.stringify(source?.value)?.slice(0, 80) ?? 'nothing';
  throw new StasisError('CONFIG_INVALID', `${name} cannot be ${shown}${where}`, { hint: issue.message, details: { key: name } });
}

function complete(config: Config): Config {
  return {
    ...config,
    repository: { ...config.repository, directory: config.repository.directory || (config.repository.s3.bucket === '' ? join(config.stateDirectory, 'repository') : '') },
    keys: { ...config.keys, file: config.keys.file || join(config.stateDirectory, 'keys', 'node.key') },
  };
}

function check(config: Config): void {
  const { address, tls } = config.listen;
  if (address !== '' && (tls.cert === '' || tls.key === '' || tls.ca === '')) {
    throw new StasisError('CONFIG_INVALID', `listen.address is ${address}, but listen.tls.cert, listen.tls.key and listen.tls.ca are not all set`, {
      hint: 'over TCP the agent speaks only mutual TLS: name all three files, or use the UNIX socket',
    });
  }
  checkRepository(config.repository);
  checkKeys(config.keys);
}

function checkRepository({ directory, s3 }: Config['repository']): void {
  if (s3.bucket === '') {
    const set = (['prefix', 'endpoint', 'kmsKeyId', 'customerKeyFile', 'caFile'] as const).find((name) => s3[name] !== '');
    if (set !== undefined) throw new StasisError('CONFIG_INVALID', `repository.s3.${set} is set, but repository.s3.bucket is not`, { hint: 'name the bucket, or leave all of repository.s3 out' });
    return;
  }
  if (directory !== '') throw new StasisError('CONFIG_INVALID', `both repository.directory (${directory}) and repository.s3.bucket (${s3.bucket}) are set`, { hint: 'a node has one repository: leave one of them out' });
  if ((s3.encryption === 'customer') !== (s3.customerKeyFile !== '')) {
    throw new StasisError('CONFIG_INVALID', `repository.s3.encryption is ${s3.encryption}, and customerKeyFile is ${s3.customerKeyFile || 'not set'}`, { hint: 'customerKeyFile goes with encryption "customer" and with no other' });
  }
  if (s3.kmsKeyId !== '' && s3.encryption !== 'kms') throw new StasisError('CONFIG_INVALID', `repository.s3.kmsKeyId is set, but encryption is ${s3.encryption}`, { hint: 'kmsKeyId goes with encryption "kms"' });
}

function checkKeys({ provider, directory, current, command }: Config['keys']): void {
  const wrong = (message: string): StasisError => new StasisError('CONFIG_INVALID', message, { hint: 'docs/KEYS.md tells which keys go with which provider' });
  if ((provider === 'directory') !== (directory !== '')) throw wrong(`keys.provider is ${provider}, and keys.directory is ${directory || 'not set'}`);
  if (current !== '' && provider !== 'directory') throw wrong(`keys.current is ${current}, but keys.provider is ${provider}`);
  if ((provider === 'exec') !== (command.length > 0)) throw wrong(`keys.provider is ${provider}, and keys.command is ${command[0] ?? 'not set'}`);
  if (command[0] !== undefined && !command[0].startsWith('/')) throw wrong(`keys.command begins with ${command[0]}, which is not an absolute path`);
}

function freeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    Object.values(value).forEach(freeze);
    Object.freeze(value);
  }
  return value;
}
