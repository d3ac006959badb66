import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { agentUsage, parseAgentArguments } from '../../src/config/arguments.ts';
import { clientTarget } from '../../src/config/client.ts';
import { keys, nearest } from '../../src/config/keys.ts';
import { loadConfig } from '../../src/config/load.ts';
import { defaultStaging } from '../../src/config/schema.ts';
import { GiB, MiB } from '../../src/core/units.ts';
import { repositoryRoot, tableRows } from './repository-root.ts';

const directory = mkdtempSync(join(tmpdir(), 'config-'));
after(() => rmSync(directory, { recursive: true }));

function file(text: string): string {
  const path = join(directory, `${Math.random()}.yaml`);
  writeFileSync(path, text);
  return path;
}

const empty = file('');

void describe('loading', () => {
  void test('defaults, with paths below the state directory filled in', async () => {
    const { config, origins } = await loadConfig({ env: {}, file: empty });
    assert.equal(config.socket, '/run/stasis/agent.sock');
    assert.equal(config.freezeBudget, 60_000);
    assert.equal(config.ghostLimit, 64 * MiB);
    assert.equal(config.repository.directory, '/var/lib/stasis/repository');
    assert.deepEqual(config.runtimes.crun, { binary: 'crun', roots: ['/run/crun'] });
    assert.ok([...origins.values()].every(({ origin }) => origin === 'default'));
    const moved = await loadConfig({ env: { STASIS_STATE_DIRECTORY: '/srv/s' }, file: empty });
    assert.equal(moved.config.keys.file, '/srv/s/keys/node.key');
  });

  void test('flags over environment over file over defaults, each with its origin', async () => {
    const path = file('workers: 3\nstaging: { size: 1G }\nfreezeBudget: 5s\nlog: { level: debug }\n');
    const env = { STASIS_WORKERS: '4', STASIS_STAGING_SIZE: '2G' };
    const { config, origins } = await loadConfig({ flags: { workers: '5' }, env, file: path });
    assert.deepEqual([config.workers, config.staging.size, config.freezeBudget, config.stopBudget], [5, 2 * GiB, 5000, 600_000]);
    assert.deepEqual(origins.get('workers'), { origin: 'flag', detail: '--workers' });
    assert.deepEqual(origins.get('staging.size'), { origin: 'environment', detail: 'STASIS_STAGING_SIZE' });
    assert.deepEqual(origins.get('freezeBudget'), { origin: 'file', detail: path });
    assert.equal(origins.get('stopBudget')?.origin, 'default');
  });

  void test('the file is named by a flag, else by STASIS_CONFIG, and must then exist', async () => {
    const path = file('workers: 7');
    assert.equal((await loadConfig({ env: { STASIS_CONFIG: path } })).config.workers, 7);
    assert.equal((await loadConfig({ env: { STASIS_CONFIG: path }, file: file('workers: 8') })).config.workers, 8);
    await assert.rejects(loadConfig({ env: {}, file: '/missing.yaml' }), { code: 'CONFIG_INVALID', message: /\/missing\.yaml/ });
  });

  void test('plaintext needs a namespace that is written out', async () => {
    const of = async (value: string): Promise<readonly string[]> => (await loadConfig({ file: empty, env: { STASIS_REPOSITORY_PLAINTEXT_FOR: value } })).config.repository.plaintextFor;
    assert.deepEqual(await of('dev/*, -/bench-*'), ['dev/*', '-/bench-*']);
    for (const value of ['*/*', '*/web', 'web', '*', 'de*/web', '/web', 'dev/', 'Dev/x y']) await assert.rejects(of(value), { code: 'CONFIG_INVALID', message: /repository\.plaintextFor/ }, value);
  });

  void test('lists from every source', async () => {
    const roots = async (sources: Parameters<typeof loadConfig>[0]): Promise<readonly string[]> => (await loadConfig({ file: empty, env: {}, ...sources })).config.runtimes.runc.roots;
    assert.deepEqual(await roots({ env: { STASIS_RUNTIMES_RUNC_ROOTS: '/a, /b' } }), ['/a', '/b']);
    assert.deepEqual(await roots({ flags: { 'runtimes-runc-roots': '/a' } }), ['/a']);
    assert.deepEqual(await roots({ file: file('runtimes: { runc: { roots: [/a, /b] } }') }), ['/a', '/b']);
    assert.deepEqual(await roots({ env: { STASIS_RUNTIMES_RUNC_ROOTS: '' } }), []);
  });

  void test('the result is deeply frozen', async () => {
    const { config } = await loadConfig({ env: {}, file: empty });
    assert.throws(() => { (config as { workers: number }).workers = 1; }, TypeError);
    assert.throws(() => { config.runtimes.runc.roots.push('/x'); }, TypeError);
  });

  void test('the environment of this process is the default, and its variables of Kubernetes are passed over', async () => {
    await loadConfig({ file: empty });
    await loadConfig({ file: empty, env: { STASIS_SERVICE_HOST: 'x', STASIS_PORT: 'tcp://1', STASIS_PORT_7443_TCP: 'x', STASIS_PORT_7443_TCP_ADDR: 'x', STASIS_AGENT_SERVICE_PORT_GRPC: '1', STASIS_ADDRESS: 'a:1' } });
  });
});

const wrong: readonly (readonly [string, Parameters<typeof loadConfig>[0], RegExp, RegExp])[] = [
  ['an unknown key of the file', { file: file('stagin: { size: 1G }') }, /"stagin" is not a key/, /did you mean staging\.size|docs\/CONFIG\.md/],
  ['an unknown key below a known one', { file: file('staging: { sise: 1G }') }, /"staging\.sise" is not a key/, /did you mean staging\.size\?/],
  ['an unknown variable', { env: { STASIS_WORKER: '1' } }, /STASIS_WORKER is not known/, /did you mean STASIS_WORKERS\?/],
  ['an unknown flag', { flags: { worker: '1' } }, /--worker is not known/, /did you mean workers\?/],
  ['a value of the wrong kind', { env: { STASIS_WORKERS: 'many' } }, /workers cannot be "many" \(from environment STASIS_WORKERS\)/, /whole number from 1 to 64/],
  ['an empty number', { env: { STASIS_WORKERS: '' } }, /workers cannot be ""/, /whole number/],
  ['a number out of range', { flags: { workers: '65' } }, /workers cannot be "65"/, /from 1 to 64/],
  ['a size', { file: file('staging: { size: large }') }, /staging\.size cannot be "large" \(from file/, /64M/],
  ['a duration without a unit', { file: file('freezeBudget: 60') }, /freezeBudget cannot be 60/, /30s/],
  ['a duration of nothing', { flags: { 'freeze-budget': '0s' } }, /freezeBudget cannot be "0s"/, /longer than 0/],
  ['a choice', { env: { STASIS_MEMORY_PATH: 'fast' } }, /memory\.path cannot be "fast"/, /auto, directory, page-server/],
  ['a relative path', { env: { STASIS_SOCKET: 'agent.sock' } }, /socket cannot be "agent\.sock"/, /absolute path/],
  ['a list of the wrong things', { env: { STASIS_KEYS_TRUSTED_SIGNERS: 'abc' } }, /keys\.trustedSigners cannot be "abc"/, /64 hexadecimal digits/],
  ['an address', { env: { STASIS_METRICS_LISTEN: '9465' } }, /metrics\.listen cannot be "9465"/, /host:port/],
  ['TCP without TLS', { env: { STASIS_LISTEN_ADDRESS: '0.0.0.0:7443', STASIS_LISTEN_TLS_CERT: '/c' } }, /listen\.address is 0\.0\.0\.0:7443, but/, /only mutual TLS/],
  ['a group that is no group', { file: file('staging: 1G') }, /staging must be a map/, /staging\.size/],
  ['a document that is no map', { file: file('- a\n- b\n') }, /the document must be a map/, /keys below it/],
];

for (const [what, sources, message, hint] of wrong) {
  void test(`refused: ${what}`, async () => {
    await assert.rejects(loadConfig({ env: {}, file: empty, ...sources }), { code: 'CONFIG_INVALID', message, hint });
  });
}

void test('refused: a file that is not YAML', async () => {
  await assert.rejects(loadConfig({ env: {}, file: file('a: [') }), { code: 'CONFIG_INVALID', message: /is not YAML/ });
});

void test('the staging is a quarter of the memory up to 8 GiB', () => {
  assert.deepEqual([2 * GiB, 24 * GiB, 1024 * GiB].map(defaultStaging), [GiB / 2, 6 * GiB, 8 * GiB]);
});

void test('the nearest name is offered only when it is near', () => {
  assert.equal(nearest('freezebudget', ['freezeBudget', 'stopBudget']), 'freezeBudget');
  assert.equal(nearest('banana', ['freezeBudget', 'stopBudget']), undefined);
});

void test('arguments of the agent', () => {
  assert.deepEqual(parseAgentArguments(['--config', '/c.yaml', '--staging-size=1G', '--workers', '2']), { flags: { 'staging-size': '1G', workers: '2' }, file: '/c.yaml', help: false, version: false });
  assert.equal(parseAgentArguments(['-h']).help, true);
  assert.equal(parseAgentArguments(['--version']).version, true);
  assert.throws(() => parseAgentArguments(['--stagin-size', '1G']), { code: 'USAGE', hint: 'did you mean --staging-size?' });
  assert.throws(() => parseAgentArguments(['--workers']), { code: 'USAGE', message: '--workers needs a value' });
  assert.throws(() => parseAgentArguments(['start']), { code: 'USAGE', message: /"start"/ });
  for (const key of keys) assert.ok(agentUsage().includes(`--${key.flag} `), key.flag);
});

void test('where the command line finds the agent', async () => {
  const tls = { STASIS_TLS_CERT: '/c', STASIS_TLS_KEY: '/k', STASIS_TLS_CA: '/a' };
  const configFile = file('socket: /from/file.sock\n');
  assert.deepEqual(await clientTarget({ socket: '/flag.sock' }, { STASIS_SOCKET: '/env.sock', STASIS_ADDRESS: 'a:1' }), { kind: 'unix', path: '/flag.sock' });
  assert.deepEqual(await clientTarget({}, { STASIS_SOCKET: '/env.sock', STASIS_CONFIG: configFile }), { kind: 'unix', path: '/env.sock' });
  assert.deepEqual(await clientTarget({}, { STASIS_CONFIG: configFile }), { kind: 'unix', path: '/from/file.sock' });
  assert.deepEqual(await clientTarget({}, { STASIS_CONFIG: empty }), { kind: 'unix', path: '/run/stasis/agent.sock' });
  assert.deepEqual(await clientTarget({ tlsCert: '/mine' }, { STASIS_ADDRESS: 'a:1', ...tls }), { kind: 'tls', address: 'a:1', cert: '/mine', key: '/k', ca: '/a', serverName: undefined });
  await assert.rejects(clientTarget({ address: 'a:1' }, {}), { code: 'USAGE', message: /only be reached with mutual TLS/ });
  await assert.rejects(clientTarget({ address: 'a:1', socket: '/s' }, tls), { code: 'USAGE' });
});

void test('docs/CONFIG.md has every key with its variable, flag, default and meaning, and no other', () => {
  const shown = (fallback: unknown): string => (Array.isArray(fallback) ? fallback.map((item) => `\`${String(item)}\``).join(', ') || 'none' : fallback === '' ? 'none' : `\`${String(fallback)}\``);
  const expected = keys.map(({ name, env, flag, fallback, meaning }) => [`\`${name}\``, `\`${env}\``, `\`--${flag}\``, meaning.includes('Default: ') ? 'see there' : shown(fallback), meaning]);
  assert.deepEqual(tableRows(readFileSync(join(repositoryRoot(), 'docs/CONFIG.md'), 'utf8'), 'key'), expected);
});

void test('one repository: a directory or a bucket, and only what fits it', async () => {
  const load = (env: Record<string, string>) => loadConfig({ env: Object.fromEntries(Object.entries(env).map(([name, value]) => [`STASIS_REPOSITORY_${name}`, value])) });
  const { config } = await load({ S3_BUCKET: 'checkpoints', S3_ENDPOINT: 'https://s3.example.net:8443', S3_BANDWIDTH: '10M' });
  assert.equal(config.repository.directory, '');
  assert.equal(config.repository.s3.bandwidth, 10 << 20);
  assert.equal((await load({})).config.repository.directory, '/var/lib/stasis/repository');
  const wrong: readonly (readonly [Record<string, string>, RegExp])[] = [
    [{ S3_BUCKET: 'checkpoints', DIRECTORY: '/srv/r' }, /both repository.directory/], [{ S3_PREFIX: 'a' }, /repository.s3.bucket is not/],
    [{ S3_BUCKET: 'No' }, /s3.bucket cannot be/], [{ S3_BUCKET: 'abc', S3_ENDPOINT: 's3.example.net' }, /s3.endpoint cannot be/], [{ S3_BUCKET: 'abc', S3_PREFIX: '/a/' }, /s3.prefix cannot be/],
    [{ S3_BUCKET: 'abc', S3_ENCRYPTION: 'customer' }, /customerKeyFile is not set/], [{ S3_BUCKET: 'abc', S3_CUSTOMER_KEY_FILE: '/k' }, /encryption is bucket/], [{ S3_BUCKET: 'abc', S3_KMS_KEY_ID: 'k' }, /kmsKeyId is set/],
  ];
  for (const [env, message] of wrong) await assert.rejects(load(env), (error: Error) => message.test(error.message) && (error as { code?: string }).code === 'CONFIG_INVALID', JSON.stringify(env));
});
