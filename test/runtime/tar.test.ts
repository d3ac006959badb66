/** What criu's tar keeps of files in memory, and what it takes from the archive of a stranger. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, openSync, closeSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { attributesNotSet, tarEnvironment } from '../../src/runtime/driver/tar.ts';
import type { Toolchain } from '../../src/runtime/index.ts';
import { toolchain } from '../support/containers.ts';

/** As CRIU calls it (criu/filesystems.c). */
const COMMON = ['--gzip', '--no-unquote', '--no-wildcards'];
const PROGRAM = `
import os, struct
open('file', 'w').close()
os.setxattr('file', 'user.note', b'x'); os.setxattr('file', 'trusted.note', b'x')
os.setxattr('file', 'security.capability', struct.pack('<IIIII', 0x02000001, 1 << 10, 0, 0, 0))
os.setxattr('file', 'system.posix_acl_access', struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in [(1, 6, 0xffffffff), (2, 4, 7), (4, 4, 0xffffffff), (16, 4, 0xffffffff), (32, 0, 0xffffffff)]))
`;

void describe('what stands beside files in memory', () => {
  let base: string;
  let tools: Toolchain;
  const at = (name: string): string => join(base, name);

  before(async () => {
    base = mkdtempSync('/srv/tar-');
    tools = await toolchain();
    for (const [name, type] of [['saved', 'tmpfs'], ['own', 'tmpfs'], ['strange', 'tmpfs'], ['without', 'ramfs']] as const) {
      mkdirSync(at(name));
      execFileSync('mount', ['-t', type, 'none', at(name)]);
    }
    execFileSync('python3', ['-c', PROGRAM], { cwd: at('saved') });
    execFileSync('tar', ['--create', ...COMMON, '--file', at('archive'), '--directory', at('saved'), '.'], { env: { ...process.env, ...tarEnvironment(tools) } });
  });

  after(() => {
    for (const name of ['saved', 'own', 'strange', 'without']) execFileSync('umount', [at(name)]);
    rmSync(base, { recursive: true });
  });

  function extract(into: string, imported: boolean): string {
    const log = openSync(at('restore.log'), 'w');
    execFileSync('tar', ['--extract', ...COMMON, '--file', at('archive'), '--directory', at(into)], { env: { ...process.env, ...tarEnvironment(tools, { imported }) }, stdio: ['ignore', log, log] });
    closeSync(log);
    return execFileSync('getfattr', ['--absolute-names', '--dump', '--match=-', join(at(into), 'file')], { encoding: 'utf8' });
  }

  void it('comes back whole, but for that of a stranger: only what the owner of a file may set', () => {
    const names = (text: string): string[] => [...text.matchAll(/^([\w.]+)=/gm)].map(([, name = '']) => name).sort();
    assert.deepEqual(names(extract('own', false)), ['security.capability', 'system.posix_acl_access', 'trusted.note', 'user.note']);
    assert.deepEqual(attributesNotSet(base), []);
    assert.deepEqual(names(extract('strange', true)), ['system.posix_acl_access', 'user.note']);
  });

  void it('is missed where it cannot be set', () => {
    extract('without', false);
    assert.ok(attributesNotSet(base).some((line) => line.includes('user.note')), readFileSync(at('restore.log'), 'utf8'));
    writeFileSync(at('restore.log'), '(00.1) mnt: Restoring tmpfs\n');
    assert.deepEqual(attributesNotSet(base), []);
  });

  void it('is not asked for of a tar that cannot do it', () => {
    assert.deepEqual(tarEnvironment({ ...tools, features: {} }), {});
  });
});
