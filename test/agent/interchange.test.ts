/** Containers go from Stasis to podman, and from podman, CRI-O and containerd to Stasis, and go on where they stood. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock } from '../../src/core/clock.ts';
import { isStasisError } from '../../src/core/errors.ts';
import type { CheckpointId } from '../../src/core/ids.ts';
import { lgetxattr } from '../../src/host/libc.ts';
import { fileKeyProvider, openDirectoryStore, openRepository, type Repository } from '../../src/repository/index.ts';
import { assertClean, checkpoint, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { archiveOf, IMAGE, exported, imported, makeBundle, makeImage, pidOf, removeImage, run, start, withSpec, type Json } from '../support/podman.ts';

const EXPORTS = '/srv/interchange';
/** Longer than the names that a tar header has room for. */
const LONG = 'long-'.repeat(50);
/** Counts in memory and in a file, after it has deleted and made some others. */
const program = [
  'rm /etc/gone /etc/old/one', 'mkdir -p /made/deep', 'echo new > /made/deep/file', 'ln /made/deep/file /made/link', 'ln -s deep/file /made/symlink', 'echo more >> /etc/old/two',
  'mkfifo /made/fifo', 'truncate -s 8M /made/sparse', 'echo end >> /made/sparse', `echo long > /made/deep/${LONG}`, 'setfattr -n user.color -v blue /made/deep/file',
  'echo shared > /dev/shm/shared', 'i=0; while :; do i=$((i+1)); echo $i >> /log; sleep 0.05; done',
].join('; ');

let home: AgentHome;
let agent: TestAgent;

before(async () => {
  mkdirSync(EXPORTS, { recursive: true });
  home = makeHome();
  agent = await startAgent(home);
  makeImage();
});

after(async () => {
  await removeImage();
  await agent?.stop();
  await removeHome(home);
  rmSync(EXPORTS, { recursive: true, force: true });
});

async function started(name: string, ...more: string[]): Promise<string> {
  const id = start(name, program, ...more);
  for (let tries = 0; tries < 100 && countOf(pidOf(name)) < 10; tries++) await delay(50);
  return id;
}

const inside = (pid: number, path: string): string => `/proc/${pid}/root${path}`;

function logOf(pid: number): number[] {
  const path = inside(pid, '/log');
  return existsSync(path) ? readFileSync(path, 'utf8').trimEnd().split('\n').map(Number) : [];
}

const countOf = (pid: number): number => logOf(pid).at(-1) ?? 0;

/** Every number once and in order, beyond the last one that was saved, and the files as they were. */
async function assertGoesOn(pid: number, from: number, two: string): Promise<void> {
  for (let tries = 0; tries < 100 && countOf(pid) < from + 5; tries++) await delay(50);
  const log = logOf(pid);
  assert.ok(log.length >= from + 5, `the log ends at ${log.at(-1)}, it was at ${from}`);
  assert.deepEqual(log, log.map((_, index) => index + 1));
  assert.ok(!existsSync(inside(pid, '/etc/gone')) && !existsSync(inside(pid, '/etc/old/one')), 'what was deleted is gone');
  assert.equal(readFileSync(inside(pid, '/etc/old/two'), 'utf8'), two);
  assert.equal(readFileSync(inside(pid, '/made/symlink'), 'utf8'), 'new\n');
  assert.equal(statSync(inside(pid, '/made/link')).ino, statSync(inside(pid, '/made/deep/file')).ino);
  assert.equal(readFileSync(inside(pid, '/dev/shm/shared'), 'utf8'), 'shared\n');
  assert.ok(statSync(inside(pid, '/made/fifo')).isFIFO());
  assert.ok(readFileSync(inside(pid, '/made/sparse')).equals(Buffer.concat([Buffer.alloc(8 * 1024 ** 2), Buffer.from('end\n')])));
  assert.equal(readFileSync(inside(pid, `/made/deep/${LONG}`), 'utf8'), 'long\n');
  assert.equal(lgetxattr(Buffer.from(inside(pid, '/made/deep/file')), Buffer.from('user.color'))?.toString(), 'blue');
}

/** Bundles that grant less than the images hold. */
const narrower: Record<string, (spec: Json) => void> = {
  'no CAP_CHOWN': ({ process: { capabilities } }) => { for (const set of Object.keys(capabilities)) capabilities[set] = capabilities[set].filter((name: string) => name !== 'CAP_CHOWN'); },
  'no new privileges': (spec) => { spec['process'].noNewPrivileges = true; },
  'no /dev/mqueue': (spec) => { spec['mounts'] = spec['mounts'].filter((mount: Json) => mount['destination'] !== '/dev/mqueue'); },
  'a user namespace': (spec) => { spec['linux'].namespaces.push({ type: 'user' }); },
  'another path to be masked': (spec) => { spec['linux'].maskedPaths.push('/proc/uptime'); },
};

/** As CRI-O lays its archives out (checkpointctl's lib/metadata.go): there is no CRI-O here, the images in it are podman's and real. */
function asCrio(directory: string): void {
  const spec = JSON.parse(readFileSync(join(directory, 'spec.dump'), 'utf8')) as Json;
  spec['annotations'] = {
    'io.container.manager': 'cri-o', 'io.kubernetes.cri-o.ContainerName': 'web', 'io.kubernetes.cri-o.Metadata': '{"name":"web"}', 'io.kubernetes.cri-o.IP.0': '10.85.0.2',
    'io.kubernetes.cri-o.Annotations': '{"io.kubernetes.pod.terminationGracePeriod":"30"}', 'io.kubernetes.pod.name': 'web-0', 'io.kubernetes.pod.namespace': 'default',
  };
  writeFileSync(join(directory, 'spec.dump'), JSON.stringify(spec));
  const { id } = JSON.parse(readFileSync(join(directory, 'config.dump'), 'utf8')) as Json;
  const times = { createdTime: '2026-01-01T00:00:00Z', restoredTime: '0001-01-01T00:00:00Z', checkpointedTime: '2026-01-01T00:00:01Z' };
  writeFileSync(join(directory, 'config.dump'), JSON.stringify({ id, name: 'k8s_web_web-0_default_0', rootfsImage: IMAGE, rootfsImageRef: `${IMAGE}@sha256:00`, rootfsImageName: IMAGE, runtime: 'runc', ...times, restored: false }));
  writeFileSync(join(directory, 'bind.mounts'), JSON.stringify([{ source: '/var/lib/kubelet/x', destination: '/etc/hosts', file_type: 'file', permissions: 420 }]));
  writeFileSync(join(directory, 'io.kubernetes.cri-o.LogPath'), 'a line\n');
  writeFileSync(join(directory, 'dump.log'), '(00.000001) a line\n');
  for (const name of ['network.status', 'artifacts']) rmSync(join(directory, name), { recursive: true, force: true });
}

/** As containerd answers the kubelet: files that are gone are whiteouts in a compressed layer. */
function asContainerd(directory: string): void {
  asCrio(directory);
  const spec = JSON.parse(readFileSync(join(directory, 'spec.dump'), 'utf8')) as Json;
  spec['annotations'] = { 'io.kubernetes.cri.container-name': 'web', 'io.kubernetes.cri.container-type': 'container', 'io.kubernetes.cri.sandbox-id': '00' };
  writeFileSync(join(directory, 'spec.dump'), JSON.stringify(spec));
  writeFileSync(join(directory, 'status.dump'), JSON.stringify({ CreatedAt: 1, StartedAt: 2 }));
  writeFileSync(join(directory, 'container.log'), 'a line\n');
  writeFileSync(join(directory, 'status'), 'x');
  const layer = join(directory, 'layer');
  // Its root has the mode of the root directory, and CRIU compares.
  mkdirSync(layer, { mode: 0o555 });
  run('tar', '--extract', '--xattrs', '--xattrs-include=*', '--directory', layer, '--file', join(directory, 'rootfs-diff.tar'));
  for (const path of JSON.parse(readFileSync(join(directory, 'deleted.files'), 'utf8')) as string[]) {
    mkdirSync(join(layer, dirname(path)), { recursive: true });
    writeFileSync(join(layer, dirname(path), `.wh.${basename(path)}`), '');
  }
  run('tar', '--create', '--gzip', '--xattrs', '--xattrs-include=*', '--directory', layer, '--file', join(directory, 'rootfs-diff.tar'), '.');
  for (const name of ['layer', 'deleted.files', 'bind.mounts', 'io.kubernetes.cri-o.LogPath']) rmSync(join(directory, name), { recursive: true });
}

function laidOut(file: string, change: (directory: string) => void): void {
  const directory = `${file}.d`;
  mkdirSync(directory);
  run('tar', '--extract', '--directory', directory, '--file', file);
  change(directory);
  run('tar', '--create', '--directory', directory, '--file', file, ...readdirSync(directory));
  rmSync(directory, { recursive: true });
}

/** What another agent does in the same repository. */
async function elsewhere(use: (repository: Repository) => Promise<void>): Promise<void> {
  const store = await openDirectoryStore(join(home.state, 'repository'));
  const repository = await openRepository({ store, keys: await fileKeyProvider(join(home.state, 'keys/node.key')), clock: systemClock, workers: 1, owner: 'another' });
  try {
    await use(repository);
  } finally {
    await repository.close();
    await store.close();
  }
}

void describe('interchange with podman', () => {
  void it('a container that Stasis saved goes on under podman', async () => {
    const file = join(EXPORTS, 'ours.tar');
    await started('to-podman');
    try {
      const from = countOf(pidOf('to-podman'));
      const saved = await checkpoint(agent, 'to-podman');
      run('podman', 'rm', '--force', 'to-podman');
      const result = await exported(agent, saved.checkpoint, file);
      assert.deepEqual(result.notIncluded, []);
      const event = agent.log.find((entry) => entry['event'] === 'checkpoint.exported');
      assert.deepEqual([event?.['level'], event?.['principal'], event?.['checkpoint_id']], ['warn', 'local', saved.checkpoint]);
      run('podman', 'container', 'restore', '--runtime', 'runc', '--import', file);
      await assertGoesOn(pidOf('to-podman'), from, 'more\n');
      assert.match(run('podman', 'ps', '--format', '{{.Command}} {{.Image}}'), /\/bin\/sh.*interchange:1/);
    } finally {
      run('podman', 'rm', '--force', '--time', '0', 'to-podman');
    }
    await assertClean(agent);
  });

  void it('checkpointctl shows and inspects an export', { skip: existsSync('/usr/bin/checkpointctl') ? false : 'checkpointctl is not installed here' }, () => {
    const file = join(EXPORTS, 'ours.tar');
    assert.match(run('checkpointctl', 'show', file), /to-podman/);
    const tree = run('checkpointctl', 'inspect', '--all', file);
    for (const words of [/^to-podman$/m, /Image: localhost\/interchange:1/, /Engine: Podman/, /Pages written: \d\d/, /Process tree\n.*\[1\]/]) assert.match(tree, words);
  });

  for (const compression of ['none', 'gzip', 'zstd'] as const) {
    void it(`a container that podman saved (${compression}) goes on under runc, with a bundle and not without`, async () => {
      const name = `from-podman-${compression}`;
      const file = join(EXPORTS, `${name}.tar`);
      const id = await started(name);
      const bundle = makeBundle(id, join(EXPORTS, `bundle-${id.slice(0, 12)}`));
      try {
        const from = countOf(pidOf(name));
        archiveOf(name, file, compression);
        const result = await imported(agent, file);
        assert.deepEqual([result.engine, result.container, result.archiveBytes], ['podman', name, statSync(file).size]);
        await assert.rejects(restore(agent, result.checkpoint, { container: name }), (error) => isStasisError(error, 'RESTORE_INCOMPATIBLE') && /bundle/.test(error.hint ?? ''));
        for (const [what, change] of Object.entries(narrower)) {
          await withSpec(bundle.directory, change, () => assert.rejects(restore(agent, result.checkpoint, { container: name, bundle: bundle.directory }), (error) => isStasisError(error, 'RESTORE_INCOMPATIBLE') && /more than the bundle grants/.test(error.message), what));
        }
        const restored = await restore(agent, result.checkpoint, { container: name, bundle: bundle.directory });
        try {
          // podman 5 leaves files of the image that were changed in place out of its archives.
          await assertGoesOn(restored.pid, from, '');
        } finally {
          run('runc', 'delete', '--force', name);
        }
        await assert.rejects(exported(agent, result.checkpoint, join(EXPORTS, 'again.tar')), (error) => isStasisError(error, 'RESTORE_INCOMPATIBLE'));
      } finally {
        run('podman', 'rm', '--force', '--ignore', '--time', '0', name);
        bundle.remove();
      }
      await assertClean(agent);
    });
  }

  for (const [engine, change] of [['cri-o', asCrio], ['containerd', asContainerd]] as const) {
    void it(`a container in an archive as ${engine} writes it goes on under runc`, async () => {
      const name = `from-${engine}`;
      const file = join(EXPORTS, `${name}.tar`);
      const id = await started(name);
      const bundle = makeBundle(id, join(EXPORTS, `bundle-${engine}`));
      try {
        const from = countOf(pidOf(name));
        archiveOf(name, file, 'none');
        laidOut(file, change);
        const result = await imported(agent, file);
        assert.deepEqual([result.engine, result.container], [engine, 'k8s_web_web-0_default_0']);
        const restored = await restore(agent, result.checkpoint, { container: name, bundle: bundle.directory });
        try {
          await assertGoesOn(restored.pid, from, '');
          // The bundle had no image. podman does not take it back: it would have to be in a cgroup that podman makes.
          const again = await checkpoint(agent, name);
          const unknown = await exported(agent, again.checkpoint, join(EXPORTS, `${engine}-unknown.tar`), 'localhost/unknown:1');
          assert.match(unknown.notIncluded.join(), /the id of the image localhost\/unknown:1/);
          const known = join(EXPORTS, `${engine}-known.tar`);
          assert.doesNotMatch((await exported(agent, again.checkpoint, known, 'interchange:1')).notIncluded.join(), /image/);
          assert.ok(run('tar', '--extract', '--to-stdout', '--file', known, 'config.dump').includes(run('podman', 'image', 'inspect', '--format', '{{.Id}}', IMAGE)));
        } finally {
          run('runc', 'delete', '--force', name);
        }
      } finally {
        run('podman', 'rm', '--force', '--ignore', '--time', '0', name);
        bundle.remove();
      }
      await assertClean(agent);
    });
  }

  void it('an export without consent is refused', async () => {
    const [first] = (await agent.client.listCheckpoints({ pageSize: 0, pageToken: '' }, { signal: undefined })).checkpoints;
    assert.ok(first !== undefined);
    const events = agent.client.exportCheckpoint({ checkpoint: first.id, reason: '', acceptPlaintext: false }, { signal: undefined });
    await assert.rejects(async () => { for await (const _ of events); }, (error) => isStasisError(error, 'PERMISSION_DENIED'));
  });

  // The last one: the packs that it leaves are for prune to remove.
  void it('a checkpoint that is deleted while it is exported is exported to its end', async () => {
    const name = 'deleted-meanwhile';
    await started(name);
    try {
      const { checkpoint: id } = await checkpoint(agent, name);
      const file = join(EXPORTS, 'whole.tar');
      await exported(agent, id, file);
      const parts: Uint8Array[] = [];
      for await (const event of agent.client.exportCheckpoint({ checkpoint: id, reason: 'test', acceptPlaintext: true }, { signal: undefined })) {
        if (event.type !== 'data') continue;
        // The agent waits with the rest until this has been taken, and lets nobody delete it; another agent does.
        if (parts.length === 0) {
          await assert.rejects(agent.client.deleteCheckpoint({ checkpoint: id, reason: 'test' }, { signal: undefined }), (error) => isStasisError(error, 'CHECKPOINT_IN_USE'));
          await elsewhere(async (repository) => {
            await repository.delete(id as CheckpointId, { signal: undefined });
            await repository.maintenance.prune({ signal: undefined, dryRun: false });
          });
        }
        parts.push(event.data.bytes);
      }
      assert.ok(Buffer.concat(parts).equals(readFileSync(file)));
      await assert.rejects(exported(agent, id, file), (error) => isStasisError(error, 'CHECKPOINT_NOT_FOUND'));
    } finally {
      run('podman', 'rm', '--force', '--ignore', '--time', '0', name);
    }
  });
});
