/**
 * Archives that were made to do harm (test/support/hostile-archives.ts). Each is imported, and restored where the import takes
 * it, into a root file system that leads out by a symlink; the machine around it must be the same afterwards.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import type { AgentContext } from '../../src/agent/context.ts';
import { podDescription } from '../../src/agent/description.ts';
import { importCheckpoint, IMPORT_STEPS } from '../../src/agent/import/import.ts';
import { Journal } from '../../src/agent/journal.ts';
import { Operation } from '../../src/agent/operation.ts';
import { systemClock } from '../../src/core/clock.ts';
import { isStasisError, StasisError } from '../../src/core/errors.ts';
import { noFailpoints } from '../../src/core/failpoint.ts';
import { newCheckpointId, newOperationId } from '../../src/core/ids.ts';
import { loadImages } from '../../src/image/criu/index.ts';
import { loadTree, loadTreeMerged } from '../../src/image/tree/index.ts';
import { fileKeyProvider, openDirectoryStore, openRepository } from '../../src/repository/index.ts';
import type { CheckpointReader, DirectoryStore, Repository } from '../../src/repository/index.ts';
import { archive, goodMembers, member, tar } from '../support/archives.ts';
import { base256, diff, directory, hostileCases, json } from '../support/hostile-archives.ts';
import { snapshot } from '../support/tree-snapshot.ts';

const signal = undefined;
let base: string;
let store: DirectoryStore;
let repository: Repository;
let agent: AgentContext;

before(async () => {
  base = mkdtempSync('/srv/hostile-archives-');
  for (const name of ['outside', 'state', 'staging']) mkdirSync(join(base, name));
  writeFileSync(join(base, 'outside/precious'), 'precious');
  store = await openDirectoryStore(join(base, 'state/repository'));
  repository = await openRepository({ store, keys: await fileKeyProvider(join(base, 'state/key'), { create: true }), clock: systemClock, workers: 2 });
  agent = {
    settings: { nodeName: 'test', version: '0', cipher: 'xchacha20-poly1305' }, clock: systemClock, repository, journal: new Journal(join(base, 'state/journal')),
    staging: { open: async () => area() },
  } as unknown as AgentContext;
});

after(async () => {
  await repository.close();
  await store.close();
  rmSync(base, { recursive: true });
});

/** As the staging area, with room for 64 MiB. */
function area() {
  const path = mkdtempSync(join(base, 'staging/'));
  let left = 64 * 1024 ** 2;
  const require = async (bytes: number): Promise<void> => {
    left -= bytes;
    if (left < 0) throw new StasisError('NO_SPACE', 'the staging area is full');
  };
  return { directory: path, require, [Symbol.asyncDispose]: async () => rmSync(path, { recursive: true }) };
}

async function take(bytes: Buffer | AsyncIterable<Buffer>): Promise<CheckpointReader> {
  async function* parts(whole: Buffer): AsyncGenerator<Buffer> {
    for (let at = 0; at < whole.length; at += 100_000) yield whole.subarray(at, at + 100_000);
  }
  const id = newCheckpointId(Date.now());
  const operation = new Operation({
    id: newOperationId(), kind: 'import', target: id, principal: 'test', reason: '', steps: IMPORT_STEPS, deadlineMs: 60_000, clock: systemClock, failpoints: noFailpoints, changed: () => {},
  });
  await operation.run(() => importCheckpoint(agent, { checkpoint: id, source: '../x.tar', by: 'test', reason: '' }, Buffer.isBuffer(bytes) ? parts(bytes) : bytes, operation));
  return repository.open(id, { signal });
}

/** What an operator would restore into: an image that has a symlink leading out. */
async function bringBack(reader: CheckpointReader): Promise<string> {
  const description = podDescription(reader.summary);
  const saved = description.containers[0]!;
  const root = mkdtempSync(join(base, 'state/root-'));
  symlinkSync('../../outside', join(root, 'evil'));
  await loadImages(reader, saved.images.prefix, join(root, 'images'), { signal });
  if (saved.rootfs.saved) await loadTreeMerged(reader, saved.rootfs.prefix, root, { signal });
  for (const volume of saved.volumes) await loadTree(reader, volume.prefix, mkdtempSync(join(base, 'state/volume-')), { signal });
  return root;
}

const names = (path: string): string[] => readdirSync(path).toSorted();

/** Everything around the repository that an archive could reach: files with their contents, names, mounts. */
function around(): unknown[] {
  return [
    ...[join(base, 'outside'), '/etc', '/root', '/home'].map((path) => [...snapshot(path)]),
    ...['/', '/dev', '/run', '/srv', '/tmp', '/usr', '/usr/bin', '/var', '/var/lib', '/var/tmp', base, join(base, 'staging'), join(base, 'state/journal')].map(names),
    readFileSync('/proc/self/mountinfo', 'utf8'), readFileSync('/proc/sys/kernel/core_pattern', 'utf8'),
  ];
}

async function attempt(bytes: Buffer | AsyncIterable<Buffer>): Promise<{ outcome: string; error?: unknown; reader?: CheckpointReader; root?: string }> {
  const code = (error: unknown): string => (isStasisError(error) ? error.code : `${String(error)} ${(error as Error).stack ?? ''}`);
  let reader: CheckpointReader;
  try {
    reader = await take(bytes);
  } catch (error) {
    return { outcome: code(error), error };
  }
  try {
    return { outcome: 'accepted', reader, root: await bringBack(reader) };
  } catch (error) {
    return { outcome: `restore ${code(error)}`, error };
  }
}

void describe('a hostile archive', () => {
  void it('the good one that all others are made from is taken', async () => {
    for (const bytes of [archive(), gzipSync(archive()), zstdCompressSync(archive()), diff(directory('new/'), member({ name: 'new/file', body: 'new', mode: 0o4755 }), member({ name: 'new/link', type: '1', link: 'new/file' }))]) {
      const { outcome, error, reader } = await attempt(bytes);
      assert.equal(outcome, 'accepted', String((error as Error | undefined)?.message));
      const { containers, imported } = podDescription(reader!.summary);
      assert.deepEqual([containers[0]?.name, imported?.engine, imported?.source, imported?.archiveBytes], ['web', 'podman', 'x.tar', bytes.length]);
    }
  });

  for (const [name, { bytes, expect, because, check }] of Object.entries(hostileCases)) {
    void it(`${name}: ${expect}`, async () => {
      const before = around();
      const { outcome, reader, root, error } = await attempt(bytes());
      const { message = '' } = (error ?? {}) as { message?: string };
      assert.equal(outcome, expect, message);
      assert.ok(expect === 'accepted' || (because !== undefined && message.includes(because)), message);
      assert.deepEqual(around(), before);
      if (reader !== undefined) check?.(podDescription(reader.summary), root ?? '');
    });
  }

  void it('10^6 tiny files: refused, in bounded memory', async () => {
    const before = around();
    const entries = 1_000_001;
    async function* flood(): AsyncGenerator<Buffer> {
      const names = Array.from({ length: 500 }, (_, i) => member({ name: `d/${String(i).padStart(20, '0')}`, type: '6' }));
      yield* [...goodMembers().values(), member({ name: 'rootfs-diff.tar', size: base256(0x80, ...[24, 16, 8, 0].map((shift) => ((entries * 512 + 1024) >> shift) & 255)) })];
      for (let i = 0; i < entries; i += names.length) {
        // Each block needs a name and a checksum of its own.
        for (const [j, block] of names.entries()) {
          block.write(String(i + j).padStart(20, '0'), 2, 'latin1');
          block.fill(' ', 148, 156);
          let sum = 0;
          for (const byte of block) sum += byte;
          block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
        }
        yield Buffer.concat(names);
      }
    }
    const { outcome } = await attempt(flood());
    assert.equal(outcome, 'LIMIT_EXCEEDED');
    assert.deepEqual(around(), before);
  });

  void it('whatever is changed in a good archive, it is taken or refused with a reason, and nothing else happens', async () => {
    const before = around();
    const good = archive({}, member({ name: 'rootfs-diff.tar', body: tar(directory('a/'), member({ name: 'a/b', body: 'x', pax: { mtime: '1.5' } }), member({ name: 'a/c', type: '1', link: 'a/b' })) }), json('deleted.files', ['/x/y']));
    await fc.assert(fc.asyncProperty(fc.array(fc.tuple(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 })), { minLength: 1, maxLength: 12 }), fc.nat(good.length), fc.boolean(), async (flips, length, cut) => {
      const bytes = Buffer.from(good);
      for (const [at, value] of flips) bytes[at] = (bytes[at] ?? 0) ^ value;
      const { outcome } = await attempt(cut ? bytes.subarray(0, length) : bytes);
      assert.match(outcome, /^(accepted|(restore )?(ARCHIVE_INVALID|PATH_ESCAPES|LIMIT_EXCEEDED|FORMAT_UNSUPPORTED|NO_SPACE|RESTORE_FAILED))$/);
    }), { numRuns: 150, verbose: true });
    assert.deepEqual(around(), before);
  });
});
