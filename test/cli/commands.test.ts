import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { unlinkSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { harness } from '../rpc/harness.ts';
import type { Harness } from '../rpc/harness.ts';
import { checkpointInfo, checkpointResult, container } from '../rpc/scripted-agent.ts';
import { authority, identity, writeTls } from '../rpc/certificates.ts';
import { jsonLines, program, run } from './run.ts';
import type { Result } from './run.ts';

const id = checkpointResult.checkpoint;

void describe('commands', () => {
  const ca = authority('test');
  let h: Harness;
  before(async () => {
    const { mkdtempSync } = await import('node:fs');
    const directory = mkdtempSync('/tmp/cli-');
    h = await harness({ listen: { address: '127.0.0.1:0', tls: writeTls(directory, identity(ca, 'node-1', []), ca) } });
  });
  after(() => h[Symbol.asyncDispose]());
  const stasis = (...args: readonly string[]): Promise<Result> => run([...args, '--socket', h.socket]);
  const request = (): object => h.script.calls.at(-1)?.request ?? {};

  void test('checkpoint prints the id and nothing else on stdout; warnings go to stderr', async () => {
    const { status, stdout, stderr } = await stasis('checkpoint', '-R', '--tcp-established', '--tcp-skip-in-flight', '--file-locks', '--memory-path', 'page-server', '--allow-difference', 'nice, umask', '--freeze-budget', '5s', '--deadline', '1m', '--reason', 'upgrade', '--operation-id', 'op-x', 'web');
    assert.deepEqual([status, stdout], [0, `${id}\n`]);
    assert.equal(stderr, 'stasis: warning: the repository is nearly full\nstasis: hint: free some space\nstasis: not in the checkpoint: the bind mount /data of the host\n');
    assert.deepEqual(request(), {
      container: 'web', operationId: 'op-x', reason: 'upgrade', leaveRunning: true, tcpEstablished: true, fileLocks: true, extUnixSk: false, shellJob: false,
      tcpSkipInFlight: true, memoryPath: 'page-server', freezeBudgetMs: 5000, deadlineMs: 60_000, newLineage: false, keep: false, allowDifference: ['nice', 'umask'],
    });
  });

  void test('a checkpoint that is not encrypted is told on stderr and in the list', async () => {
    assert.match((await stasis('checkpoint', 'open')).stderr, /^stasis: warning: this checkpoint is NOT encrypted/m);
    const { stdout } = await stasis('list', '--container', 'open');
    assert.match(stdout, new RegExp(`^${id} .* PLAINTEXT `, 'm'));
    assert.match(stdout, / sealed /);
    assert.match((await stasis('node')).stdout, /^Plaintext for: +dev\/\*$/m);
  });

  void test('checkpoint --print-stats shows phases and bytes', async () => {
    const { stdout, stderr } = await stasis('checkpoint', '--print-stats', 'web');
    assert.equal(stdout, `${id}\n`);
    assert.match(stderr, /^PHASE +VALUE\nfreeze +13 ms\ndump +900 ms\ntotal +2\.10 s\nfrozen +91[23] ms\nraw +2\.00 GiB\nzero +1\.00 GiB\nreused +1\.00 MiB\nstored +300 MiB \(6\.80 to 1\)\nrate +1\.00 GiB\/s\nmemory path +page-server\n/);
  });

  void test('checkpoint --json: progress lines, then the result', async () => {
    const lines = jsonLines((await stasis('checkpoint', '--json', 'web')).stdout);
    assert.deepEqual(lines.map(({ type }) => type), ['progress', 'progress', 'progress', 'result']);
    assert.equal(lines[0]?.['bytes_total'], 2 * 1024 ** 3);
    const result = lines.at(-1) ?? {};
    assert.deepEqual([result['checkpoint'], result['frozen_ms'], result['not_included'], (result['bytes'] as { stored: number }).stored], [id, 912.5, checkpointResult.notIncluded, 300 * 1024 ** 2]);
  });

  void test('restore prints the id of the container', async () => {
    const { status, stdout } = await stasis('restore', '-n', 'web-2', '--clone', '--tcp-close', '-b', '/srv/b', id);
    assert.deepEqual([status, stdout], [0, 'web-2\n']);
    const { operationId, ...rest } = request() as { operationId: string };
    assert.match(operationId, /^[0-9a-f]{20}$/);
    assert.deepEqual(rest, { checkpoint: id, container: 'web-2', bundle: '/srv/b', reason: '', clone: true, tcpEstablished: false, tcpClose: true, fileLocks: false, extUnixSk: false, shellJob: false, ignoreCompatibility: false, keep: false, allowDifference: [] });
    assert.match((await stasis('restore', '--print-stats', id)).stderr, /downtime +5\.00 s\npid +4711/);
  });

  void test('ps', async () => {
    const { status, stdout } = await stasis('ps');
    assert.equal(status, 0);
    assert.equal(stdout, [
      'CONTAINER  NAME   RUNTIME  STATUS                    PID   MEMORY  CHECKPOINT',
      'web        web-1  runc     running                  4711  64.0 MiB  yes',
      'gpu        gpu    runc     running, operation op-9  4711  64.0 MiB  no: pid 9 (db) uses io_uring, descriptor 4', '',
    ].join('\n').replace('PID   MEMORY', 'PID    MEMORY'));
    assert.equal((await stasis('ps', '-q')).stdout, 'web\ngpu\n');
    assert.equal((await stasis('ps', 'none')).stdout.split('\n').length, 2);
    const json = JSON.parse((await stasis('ps', '--json', '-a')).stdout) as { containers: Record<string, unknown>[] };
    assert.deepEqual(request(), { all: true });
    assert.deepEqual([json.containers[0]?.['memory_bytes'], json.containers[0]?.['checkpointable']], [container.memoryBytes, true]);
  });

  void test('list goes through all pages and tells what cannot be read', async () => {
    const { status, stdout, stderr } = await stasis('list');
    assert.equal(status, 0);
    assert.match(stdout, new RegExp(`^CHECKPOINT +CONTAINER +NODE +CREATED +RAW +STORED +SEAL +PIN +REASON\n${id}  web-1 +node-1 .* before the upgrade\n`));
    assert.equal(stdout.split('\n').length, 4);
    assert.equal(stderr, 'stasis: warning: manifests/x cannot be read: the seal is broken\n');
    assert.equal((await stasis('ls', '-q', '--container', 'web')).stdout.split('\n')[0], id);
    const json = JSON.parse((await stasis('list', '--json')).stdout) as { checkpoints: object[]; problems: object[] };
    assert.deepEqual([json.checkpoints.length, json.problems.length], [2, 1]);
  });

  void test('inspect', async () => {
    const { stdout } = await stasis('inspect', '--blobs', id);
    for (const line of [/^Checkpoint: +0g1k/m, /^Asked by: +local$/m, /^Made with: +stasis 0\.1\.0, criu 4\.2\.1, runc 1\.3\.6$/m, /^Container: +web-1 \(web\), runc, root file system overlay$/m, /^not in the checkpoint: the bind mount/m, /^containers\/0\/criu\/pages-1\.img +2\.00 GiB$/m]) assert.match(stdout, line);
    const json = JSON.parse((await stasis('inspect', '--json', id)).stdout) as Record<string, unknown>;
    assert.deepEqual([(json['info'] as { id: string }).id, json['description']], [id, { version: 1 }]);
  });

  void test('verify: one line for each, and status 30 when one is damaged', async () => {
    const good = await stasis('verify', id);
    assert.deepEqual([good.status, good.stdout], [0, `${id}  ok  5 objects, 600 chunks, 300 MiB in 700 ms\n`]);
    const bad = await stasis('verify', id, 'rotten');
    assert.equal(bad.status, 30);
    assert.match(bad.stdout, /^0g1k\S+  ok .*\nrotten  DAMAGED /);
    assert.match(bad.stderr, /packs\/17: chunk 3 does not open \(OBJECT_CORRUPT\)\nstasis: error: 1 of 2 checkpoints is damaged/);
    assert.equal((await stasis('verify')).status, 2);
    // The unreadable manifest counts as damaged.
    assert.equal((await stasis('verify', '--all')).status, 30);
    const lines = jsonLines((await stasis('verify', '--json', 'rotten')).stdout);
    assert.deepEqual(lines.map(({ type }) => type), ['progress', 'progress', 'progress', 'report', 'error']);
  });

  void test('rm deletes what it can and fails for the rest', async () => {
    const { status, stdout, stderr } = await stasis('rm', 'a', 'missing', 'b');
    assert.deepEqual([status, stdout], [10, 'a\nb\n']);
    assert.match(stderr, /there is no checkpoint "missing"/);
    assert.equal((await stasis('rm')).status, 2);
  });

  void test('watch and cancel', async () => {
    const { status, stdout } = await stasis('watch', 'op-1');
    assert.equal(status, 0);
    assert.match(stdout, /op-1  checkpoint web  running .* step 3\/7 dump  512 MiB  frozen\n.* failed 2\.00 s  DUMP_FAILED: pid 9 has a socket\n$/);
    assert.deepEqual(jsonLines((await stasis('watch', '--json', 'op-1')).stdout).map(({ type }) => type), ['snapshot', 'changed']);
    assert.deepEqual((await stasis('cancel', 'nothing')).status, 10);
  });

  void test('store probe: a table, and a failure when something that is needed does not work', async () => {
    const { status, stdout, stderr } = await run(['store', 'probe', '--socket', h.socket]);
    assert.equal(status, 20);
    assert.match(stdout, /^put +yes +objects can be written$/m);
    assert.match(stdout, /^conditional put +- +the store does not have it$/m);
    assert.match(stdout, /^delete +FAILED +cannot delete packs\/a: AccessDenied$/m);
    assert.match(stderr, /error: s3:bucket\/prefix is not fit for a repository: delete failed/);
    const json = await run(['store', 'probe', '--json', '--socket', h.socket]);
    const [document = '', failure = ''] = json.stdout.trim().split('\n}\n');
    assert.equal((JSON.parse(`${document}\n}`) as { put_latency_us: number }).put_latency_us, 4000);
    assert.equal((JSON.parse(failure) as { code: string }).code, 'STORE_UNFIT');
  });

  void test('node', async () => {
    const { stdout } = await stasis('node');
    assert.match(stdout, /^CRIU: +4\.2\.1$/m);
    assert.match(stdout, /^Missing: +uffd$/m);
    assert.match(stdout, /^You may: +viewer, operator, restorer, keeper$/m);
    assert.equal((JSON.parse((await stasis('node', '--json')).stdout) as { limits: { freeze_budget_ms: number } }).limits.freeze_budget_ms, 60_000);
  });

  void test('an error: message, hint and the status of the table; with --json also an object', async () => {
    const { status, stdout, stderr } = await stasis('checkpoint', 'missing');
    assert.deepEqual([status, stdout, stderr], [10, '', 'stasis: error: there is no container "missing" on this node\nstasis: hint: stasis ps lists them\n']);
    const json = await stasis('checkpoint', '--json', 'missing');
    assert.deepEqual(JSON.parse(json.stdout), { type: 'error', code: 'CONTAINER_NOT_FOUND', message: 'there is no container "missing" on this node', hint: 'stasis ps lists them', details: { container: 'missing', tries: 2, sure: true }, retry: false, exit: 10 });
    assert.equal((await stasis('restore', 'damaged')).status, 30);
    assert.equal((await stasis('checkpoint', 'boom')).status, 1);
  });

  void test('over TCP with certificates, by flags and by environment', async () => {
    const tls = writeTls(h.directory, identity(ca, 'alice', ['viewer']), ca);
    const address = h.server.addresses[1] ?? '';
    const flags = await run(['node', '--address', address, '--tls-cert', tls.cert, '--tls-key', tls.key, '--tls-ca', tls.ca]);
    assert.match(flags.stdout, /^You may: +viewer$/m);
    assert.equal(flags.stderr, '');
    const denied = await run(['restore', id], { STASIS_ADDRESS: address, STASIS_TLS_CERT: tls.cert, STASIS_TLS_KEY: tls.key, STASIS_TLS_CA: tls.ca });
    assert.equal(denied.status, 14);
    assert.match(denied.stderr, /"alice" may not call restore: it has only viewer, and needs restorer\nstasis: hint: .*OU=restorer/);
    assert.equal((await run(['ps', '--address', address])).status, 2);
  });

  void test('hostile text is shown, not obeyed', async () => {
    const { handlers } = h.script;
    const original = handlers.listContainers.bind(handlers);
    h.script.handlers.listContainers = async () => ({ containers: [{ ...container, id: 'x\u001b[2J\ny', name: '\u202e' }] });
    const { stdout } = await stasis('ps');
    h.script.handlers.listContainers = original;
    assert.equal(stdout.split('\n').length, 3);
    assert.match(stdout, /x\\x1b\[2J\\x0ay  \\x202e/);
  });

  void test('whoever reads may leave early', async () => {
    const { handlers } = h.script;
    const original = handlers.listContainers.bind(handlers);
    h.script.handlers.listContainers = async () => ({ containers: Array.from({ length: 5000 }, () => container) });
    const { stdout } = await promisify(execFile)('bash', ['-c', '"$0" "$1" ps --socket "$2" | head -1; echo "${PIPESTATUS[0]}"', process.execPath, program, h.socket]);
    h.script.handlers.listContainers = original;
    assert.match(stdout, /^CONTAINER .*\n(141|0)\n$/);
  });

  void test('export needs consent, warns, writes a private file and never over another', async () => {
    const { mkdtempSync, readFileSync, statSync } = await import('node:fs');
    const file = `${mkdtempSync('/tmp/export-')}/web.tar`;
    const refused = await stasis('export', id, file);
    assert.equal(refused.status, 2);
    assert.match(refused.stderr, /not encrypted.*plaintext[^]*--accept-plaintext/);
    const { status, stdout, stderr } = await stasis('export', '--accept-plaintext', '--image', 'localhost/x:1', '--reason', 'move', id, file);
    assert.deepEqual([status, stdout, readFileSync(file, 'utf8'), statSync(file).mode & 0o777], [0, `${file}\n`, 'abc', 0o600]);
    assert.match(stderr, /warning: THE ARCHIVE IS NOT ENCRYPTED[^]*not in the archive: the volume \/data/);
    const { operationId, ...rest } = request() as { operationId: string };
    assert.match(operationId, /^[0-9a-f]{20}$/);
    assert.deepEqual(rest, { checkpoint: id, reason: 'move', acceptPlaintext: true, image: 'localhost/x:1' });
    const again = await stasis('export', '--accept-plaintext', id, file);
    assert.deepEqual([again.status, readFileSync(file, 'utf8')], [2, 'abc']);
    assert.match(again.stderr, /web\.tar exists/);
    assert.equal((await stasis('export', '--accept-plaintext', id, '-')).stdout, 'abc');
  });

  void test('an export that fails leaves no file', async () => {
    const { mkdtempSync, readdirSync } = await import('node:fs');
    const directory = mkdtempSync('/tmp/export-');
    const { status } = await stasis('export', '--accept-plaintext', 'damaged', `${directory}/web.tar`);
    assert.deepEqual([status, readdirSync(directory)], [30, []]);
  });

  void test('import sends the file and prints the id', async () => {
    const { mkdtempSync, writeFileSync } = await import('node:fs');
    const file = `${mkdtempSync('/tmp/import-')}/web.tar`;
    writeFileSync(file, 'x'.repeat(300_000));
    const { status, stdout, stderr } = await stasis('import', '--reason', 'move', file);
    assert.deepEqual([status, stdout], [0, `${id}\n`]);
    assert.match(stderr, /not in the checkpoint: "ctr\.log" of the archive/);
    const { operationId: _, ...rest } = request() as { operationId: string };
    assert.deepEqual(rest, { source: 'web.tar', reason: 'move', received: 'x'.repeat(300_000) });
    writeFileSync(file, `bad${'x'.repeat(10_000_000)}`);
    assert.equal((await stasis('import', file)).status, 34);
    assert.equal((await stasis('import', `${file}.missing`)).status, 2);
  });

  void test('completion knows commands, options, choices and ids', async () => {
    const complete = async (...words: readonly string[]): Promise<string[]> => (await run(['__complete', '--', ...words], { STASIS_SOCKET: h.socket })).stdout.split('\n').filter(Boolean);
    assert.deepEqual(await complete('ch'), ['checkpoint']);
    assert.deepEqual(await complete('checkpoint', '--mem'), ['--memory-path']);
    assert.deepEqual(await complete('checkpoint', '--memory-path', 'p'), ['page-server']);
    assert.deepEqual(await complete('checkpoint', '-R', ''), ['web', 'gpu']);
    assert.deepEqual((await complete('restore', ''))[0], checkpointInfo.id);
    assert.deepEqual(await complete('cancel', ''), ['op-1']);
    assert.deepEqual(await complete('completion', 'z'), ['zsh']);
    assert.deepEqual(await complete('checkpoint', '--reason', ''), []);
    const script = (await run(['completion', 'bash'])).stdout;
    const { stdout } = await promisify(execFile)('bash', ['-c', `stasis() { "${process.execPath}" "${program}" "$@"; }; ${script}\nCOMP_WORDS=(stasis ver); COMP_CWORD=1; _stasis; echo "\${COMPREPLY[@]}"`]);
    assert.equal(stdout, 'verify version\n');
  });

  void test('no agent', async () => {
    await h.server.close({ graceMs: 100 });
    try { unlinkSync(h.socket); } catch { /* It is gone already. */ }
    const { status, stderr } = await stasis('ps');
    assert.equal(status, 4);
    assert.match(stderr, /no agent answers at .*agent\.sock: ENOENT\nstasis: hint: is stasis-agent running there/);
  });
});
