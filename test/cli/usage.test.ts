import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { status as grpcStatus } from '@grpc/grpc-js';
import { errorTable } from '../../src/core/errors.ts';
import { exitMeanings } from '../../src/cli/exit.ts';
import { systemIo } from '../../src/cli/io.ts';
import { createProgram } from '../../src/cli/program.ts';
import { systemClock } from '../../src/core/clock.ts';
import { version } from '../../src/core/version.ts';
import { repositoryRoot, tableRows } from '../config/repository-root.ts';
import { program, run } from './run.ts';

const commands = createProgram(systemIo(systemClock, false)).commands.filter((command) => !command.name().startsWith('_'));
const docs = (name: string): string => readFileSync(join(repositoryRoot(), 'docs', name), 'utf8');

void test('help goes to stdout with status 0, nothing at all to stderr with status 2', async () => {
  for (const args of [['--help'], ['help'], ['help', 'ps'], ['ps', '--help']]) {
    const { status, stdout, stderr } = await run(args);
    assert.deepEqual([status, stderr], [0, ''], args.join(' '));
    assert.match(stdout, /^Usage: stasis/);
  }
  const { status, stdout, stderr } = await run([]);
  assert.deepEqual([status, stdout], [2, '']);
  assert.match(stderr, /^Usage: stasis/);
});

void test('every command that calls the agent shows exit statuses, --json and --socket in its help', () => {
  for (const command of commands.flatMap((one) => (one.commands.length === 0 ? [one] : one.commands))) {
    let help = '';
    command.configureOutput({ writeOut: (text) => { help += text; } }).outputHelp();
    if (['version', 'completion'].includes(command.name())) continue;
    assert.match(help, /\nExit status:\n +0 {2}done\n/, command.name());
    assert.match(help, /--json/, command.name());
    if (!['config', 'generate'].includes(command.name())) assert.match(help, /--socket <path>/, command.name());
  }
});

void test('wrong usage: message, hint, status 2', async () => {
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [['checkpont', 'x'], /^stasis: error: unknown command 'checkpont'\nstasis: hint: did you mean checkpoint\?\n$/],
    [['checkpoint', '--leave-runing', 'x'], /^stasis: error: unknown option '--leave-runing'\nstasis: hint: did you mean --leave-running\?\n$/],
    [['checkpoint'], /^stasis: error: missing required argument 'container'\nstasis: hint: see stasis --help/],
    [['checkpoint', 'a', 'b'], /too many arguments/],
    [['checkpoint', '--memory-path', 'fast', 'x'], /Allowed choices are auto, directory, page-server/],
    [['checkpoint', '--freeze-budget', 'soon', 'x', '--socket', '/nowhere'], /"soon" is not a duration\nstasis: hint: write a duration as/],
    [['completion', 'tcsh'], /Allowed choices are bash, zsh, fish/],
  ];
  for (const [args, expected] of cases) {
    const { status, stdout, stderr } = await run(args);
    assert.deepEqual([status, stdout], [2, ''], args.join(' '));
    assert.match(stderr, expected);
  }
});

void test('config shows values and origins, and takes the flags of the agent', async () => {
  const { status, stdout } = await run(['config', '--workers', '3'], { STASIS_STAGING_SIZE: '1G' });
  assert.equal(status, 0);
  assert.match(stdout, /^workers +3 +flag --workers$/m);
  assert.match(stdout, /^staging\.size +1073741824 +environment STASIS_STAGING_SIZE$/m);
  assert.match(stdout, /^socket +\/run\/stasis\/agent\.sock +default$/m);
  const json = JSON.parse((await run(['config', '--json', '--workers', '3'])).stdout) as Record<string, unknown>;
  assert.deepEqual(json['workers'], { value: 3, origin: 'flag', detail: '--workers' });
  const wrong = await run(['config'], { STASIS_WORKER: '1' });
  assert.equal(wrong.status, 3);
  assert.match(wrong.stderr, /hint: did you mean STASIS_WORKERS\?/);
});

void test('version', async () => {
  assert.equal((await run(['version'])).stdout, `stasis ${version}\n`);
  assert.equal((JSON.parse((await run(['version', '--json'])).stdout) as { version: string }).version, version);
  const wrapper = join(repositoryRoot(), 'deploy/bin/stasis');
  assert.match(readFileSync(wrapper, 'utf8'), /^#!\/bin\/sh\n/);
  await promisify(execFile)('sh', ['-n', wrapper]);
});

void test('help loads neither gRPC nor the validator', async () => {
  const trace = "const { registerHooks } = require('node:module'); registerHooks({ load(url, context, next) { if (/node_modules/.test(url)) process.stderr.write(url + '\\n'); return next(url, context); } });";
  const { stderr } = await promisify(execFile)(process.execPath, ['--require', `data:text/javascript,${encodeURIComponent('')}`, program, '--help']).catch(() => ({ stderr: '' }));
  assert.equal(stderr, '');
  const loaded = await promisify(execFile)(process.execPath, ['--import', `data:text/javascript,${encodeURIComponent(`import { createRequire } from 'node:module'; const require = createRequire('/'); ${trace}`)}`, program, '--help']);
  assert.match(loaded.stderr, /commander/);
  assert.doesNotMatch(loaded.stderr, /grpc|valibot|yaml|pino|koffi|execa|sodium/);
});

void test('docs/CLI.md has every command and every exit status with its meaning, and no other', () => {
  const rows = tableRows(docs('CLI.md'), 'command').map(([name]) => /stasis ([a-z]+)/.exec(name ?? '')?.[1]);
  assert.deepEqual(rows.sort(), commands.map((command) => command.name()).sort());
  assert.deepEqual(tableRows(docs('CLI.md'), 'status'), Object.entries(exitMeanings));
});

void test('docs/ERRORS.md has every error with its statuses, and no other; each says what it means and what to do', () => {
  const rows = tableRows(docs('ERRORS.md'), 'code');
  assert.deepEqual(rows.map((row) => row.slice(0, 4)), Object.entries(errorTable).map(([code, { exit, grpc, retry }]) => [`\`${code}\``, String(exit), grpcStatus[grpc], retry ? 'yes' : 'no']));
  for (const row of rows) assert.ok((row[4] ?? '').length > 10 && (row[5] ?? '').length > 10, row[0]);
  for (const { exit } of Object.values(errorTable)) assert.ok(exit in exitMeanings, String(exit));
});
