/** The linter really fires: a file that breaks a rule in each way that matters is found out. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { repositoryRoot } from './config/repository-root.ts';

const root = repositoryRoot();
const place = mkdtempSync(join(tmpdir(), 'lint-'));
after(() => { rmSync(place, { recursive: true, force: true }); });

for (const name of ['.oxlintrc.json', 'tsconfig.json', 'package.json']) copyFileSync(join(root, name), join(place, name));
symlinkSync(join(root, 'node_modules'), join(place, 'node_modules'));

/** The rules that a file at `path` with this text breaks. */
function broken(path: string, text: string): Set<string> {
  const file = join(place, path);
  mkdirSync(join(file, '..'), { recursive: true });
  writeFileSync(file, text);
  const ended = spawnSync(join(root, 'node_modules/.bin/oxlint'), ['--format', 'json', path], { cwd: place, encoding: 'utf8' });
  rmSync(file);
  const { diagnostics } = JSON.parse(ended.stdout) as { diagnostics: { code: string }[] };
  assert.equal(ended.status, diagnostics.length === 0 ? 0 : 1, ended.stderr);
  return new Set(diagnostics.map(({ code }) => code.replace(/^.*\((.*)\)$/, '$1')));
}

const cases: readonly (readonly [rule: string, path: string, text: string])[] = [
  ['no-restricted-imports', 'src/image/bad.ts', "import { Client } from '@grpc/grpc-js';\nexport const client = Client;\n"],
  ['no-restricted-imports', 'src/repository/stage/bad.ts', "import type { Container } from '../../runtime/types.ts';\nexport type Bad = Container;\n"],
  ['no-restricted-imports', 'src/core/bad.ts', "import type { Host } from '../host/proc.ts';\nexport type Bad = Host;\n"],
  ['no-restricted-imports', 'src/image/bad.ts', "import type { Store } from '../repository/store/store.ts';\nexport type Bad = Store;\n"],
  ['no-restricted-imports', 'src/repository/bad.ts', "import { S3Client } from '@aws-sdk/client-s3';\nexport const client = S3Client;\n"],
  ['no-process-env', 'src/agent/bad.ts', "export const home = process.env['HOME'];\n"],
  ['no-restricted-properties', 'src/agent/bad.ts', 'export const now = Date.now();\n'],
  ['no-console', 'src/agent/bad.ts', "console.log('x');\n"],
  ['no-default-export', 'src/agent/bad.ts', 'export default 1;\n'],
  ['no-floating-promises', 'src/agent/bad.ts', 'async function wait(): Promise<void> { await Promise.resolve(); }\nwait();\n'],
  ['no-misused-promises', 'src/agent/bad.ts', 'export function f(p: Promise<boolean>): number { if (p) return 1; return 2; }\n'],
  ['max-lines', 'src/agent/bad.ts', 'export {};\n'.repeat(401)],
];

for (const [rule, path, text] of cases) {
  void test(`${rule} in ${path}`, () => {
    assert.ok(broken(path, text).has(rule));
  });
}

void test('a good file passes', () => {
  assert.deepEqual(broken('src/agent/good.ts', 'export function twice(x: number): number {\n  return 2 * x;\n}\n'), new Set());
});

void test('image may know the types of repository', () => {
  assert.equal(broken('src/image/good.ts', "import type { CheckpointReader } from '../repository/types.ts';\nexport type Good = CheckpointReader;\n").has('no-restricted-imports'), false);
});
