/** Bundles for restores: rebuilt from what a checkpoint knows, or given; and what is missing on a node. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { isStasisError } from '../../src/core/errors.ts';
import { parseContainerId } from '../../src/core/ids.ts';
import { overlayLayers, readMountinfo } from '../../src/host/mountinfo.ts';
import { openBundle, removeBundle, type BundleRequest, type OciSpec } from '../../src/runtime/index.ts';
import { cgroupsPathFor } from '../../src/runtime/bundle/restore-spec.ts';

const spec: OciSpec = {
  ociVersion: '1.2.0', root: { path: 'rootfs' }, hostname: 'web', hooks: { prestart: [{ path: '/evil' }] },
  annotations: { 'org.criu.config': '/tmp/evil.conf', kept: 'yes' },
  mounts: [{ destination: '/proc', type: 'proc', source: 'proc' }],
  linux: { cgroupsPath: '/team/old', namespaces: [{ type: 'pid' }] },
};

describe('bundles', () => {
  let base: string;
  let request: BundleRequest;

  beforeEach(() => {
    base = mkdtempSync('/srv/bundle-');
    for (const name of ['lower:1', 'lower2']) mkdirSync(join(base, name));
    writeFileSync(join(base, 'lower:1', 'a'), 'upper layer wins');
    writeFileSync(join(base, 'lower2', 'a'), 'hidden');
    writeFileSync(join(base, 'lower2', 'b'), 'below');
    request = {
      given: undefined, directory: join(base, 'bundle'), id: parseContainerId('new'), spec,
      rootfs: { kind: 'overlay', merged: '/x', lower: [join(base, 'lower:1'), join(base, 'lower2')], upper: '/u', work: '/w', options: ['uuid=on', 'redirect_dir=on'] },
      volumes: [],
    };
  });

  afterEach(async () => {
    await removeBundle(join(base, 'bundle'));
    assert.deepEqual(readMountinfo('self').filter(({ mountPoint }) => mountPoint.startsWith(base)), [], 'no mount is left');
    rmSync(base, { recursive: true });
  });

  const refused = (pattern: RegExp) => (error: unknown): boolean => {
    assert.ok(isStasisError(error, 'RESTORE_INCOMPATIBLE'), String(error));
    assert.match(error.message, pattern);
    assert.ok(error.hint);
    return true;
  };

  it('mounts the recorded layers below a fresh upper directory', async () => {
    const bundle = await openBundle(request);
    writeFileSync(join(bundle.upper!, 'c'), 'saved');
    await bundle.mount();
    assert.equal(readFileSync(join(bundle.rootfs, 'a'), 'utf8'), 'upper layer wins');
    assert.equal(readFileSync(join(bundle.rootfs, 'b'), 'utf8'), 'below');
    assert.equal(readFileSync(join(bundle.rootfs, 'c'), 'utf8'), 'saved');
    assert.ok(readMountinfo('self').find(({ mountPoint }) => mountPoint === bundle.rootfs)?.superOptions.includes('redirect_dir=on'));
    await bundle.remove();
    assert.ok(!existsSync(bundle.directory));
    assert.ok(existsSync(join(base, 'lower2', 'b')), 'the layers are untouched');
  });

  it('mounts more layers than a page of options can name, and reads them back', async () => {
    const lower = Array.from({ length: 60 }, (_, index) => join(base, `${'long'.repeat(40)}-${index}:,x`));
    for (const [index, layer] of lower.entries()) {
      mkdirSync(layer);
      writeFileSync(join(layer, `file-${index}`), '');
    }
    const bundle = await openBundle({ ...request, rootfs: { ...request.rootfs, lower } as BundleRequest['rootfs'] });
    await bundle.mount();
    assert.ok(existsSync(join(bundle.rootfs, 'file-0')) && existsSync(join(bundle.rootfs, 'file-59')));
    assert.deepEqual(overlayLayers(readMountinfo('self').find(({ mountPoint }) => mountPoint === bundle.rootfs)!).lower, lower);
  });

  it('writes a config.json without hooks and foreign criu configuration', async () => {
    const bundle = await openBundle(request);
    const written = JSON.parse(readFileSync(join(bundle.directory, 'config.json'), 'utf8')) as OciSpec;
    assert.equal(written['hooks'], undefined);
    assert.deepEqual(written.annotations, { kept: 'yes', 'org.criu.config': join(bundle.directory, 'criu.conf') });
    assert.equal(readFileSync(join(bundle.directory, 'criu.conf'), 'utf8'), 'manage-cgroups=ignore\n');
    assert.equal(written.root?.path, bundle.rootfs);
    assert.equal(written.linux?.cgroupsPath, '/team/new');
    assert.equal(written.hostname, 'web');
  });

  it('starts afresh where an earlier container of the id was, and keeps its output', async () => {
    const first = await openBundle(request);
    writeFileSync(join(first.upper!, 'old'), '');
    writeFileSync(join(first.directory, 'stdout.log'), 'said');
    await first.mount();
    const second = await openBundle(request);
    await second.mount();
    assert.ok(!existsSync(join(second.rootfs, 'old')));
    assert.equal(readFileSync(join(second.directory, 'stdout.log'), 'utf8'), 'said');
  });

  it('makes memory for volumes and puts it where the old one was', async () => {
    const withVolume: OciSpec = { ...spec, mounts: [{ destination: '/dev/shm', type: 'bind', source: '/gone/shm', options: ['rbind'] }] };
    const bundle = await openBundle({ ...request, spec: withVolume, volumes: [{ destination: '/dev/shm', fstype: 'tmpfs' }] });
    assert.equal(readMountinfo('self').find(({ mountPoint }) => mountPoint === bundle.volumes[0])?.fsType, 'tmpfs');
    const written = JSON.parse(readFileSync(join(bundle.directory, 'config.json'), 'utf8')) as OciSpec;
    assert.equal(written.mounts?.[0]?.source, bundle.volumes[0]);
  });

  it('makes /etc/hosts and its like again when the manager has removed them', async () => {
    const provided: OciSpec = { ...spec, mounts: [{ destination: '/etc/hosts', type: 'bind', source: '/gone/hosts', options: ['bind'] }, { destination: '/etc/hostname', type: 'bind', source: '/etc/hostname', options: ['bind'] }] };
    const bundle = await openBundle({ ...request, spec: provided });
    const [hosts, hostname] = (JSON.parse(readFileSync(join(bundle.directory, 'config.json'), 'utf8')) as OciSpec).mounts!;
    assert.match(readFileSync(hosts!.source!, 'utf8'), /127\.0\.0\.1 localhost\n.*127\.0\.1\.1 web\n/s);
    assert.equal(hostname!.source, '/etc/hostname', 'what is there is used');
  });

  it('names what is missing on this node, and leaves nothing behind', async () => {
    const layers = { ...request.rootfs, lower: [join(base, 'lower2'), '/images/gone'] } as BundleRequest['rootfs'];
    await assert.rejects(openBundle({ ...request, rootfs: layers }), refused(/1 of 2 image layers are missing on this node: \/images\/gone/));
    await assert.rejects(openBundle({ ...request, rootfs: { kind: 'plain', path: '/gone' } }), refused(/root file system \/gone does not exist/));
    const mounts = [{ destination: '/data', type: 'bind', source: '/gone/data' }];
    await assert.rejects(openBundle({ ...request, spec: { ...spec, mounts } }), refused(/\/gone\/data \(at \/data\)/));
    const network = (path: string): OciSpec => ({ ...spec, linux: { namespaces: [{ type: 'network', path }] } });
    await assert.rejects(openBundle({ ...request, spec: network('/run/netns/gone') }), refused(/network namespace \/run\/netns\/gone of the container is gone/));
    await assert.rejects(openBundle({ ...request, spec: network('/proc/1/ns/net') }), refused(/joined the network namespace of another process/));
    assert.ok(!existsSync(request.directory));
  });

  it('uses a given bundle as it is when it has the mounts of the checkpoint', async () => {
    const given = join(base, 'given');
    mkdirSync(join(given, 'rootfs'), { recursive: true });
    mkdirSync(join(base, 'data'));
    const saved: OciSpec = { ...spec, mounts: [{ destination: '/proc', type: 'proc', source: 'proc' }, { destination: '/data', type: 'bind', source: '/elsewhere', options: ['rbind'] }] };
    const write = (value: OciSpec): void => writeFileSync(join(given, 'config.json'), JSON.stringify(value));
    const ours: OciSpec = { root: { path: 'rootfs' }, mounts: [...saved.mounts!.slice(0, 1), { destination: '/data', type: 'bind', source: join(base, 'data'), options: ['rbind'] }] };
    write(ours);
    const bundle = await openBundle({ ...request, given, spec: saved, volumes: [{ destination: '/data', fstype: 'tmpfs' }] });
    assert.deepEqual({ directory: bundle.directory, rootfs: bundle.rootfs, upper: bundle.upper, volumes: bundle.volumes }, { directory: given, rootfs: join(given, 'rootfs'), upper: undefined, volumes: [join(base, 'data')] });
    await bundle.mount();
    await bundle.remove();
    assert.ok(existsSync(join(given, 'config.json')), 'a given bundle is not ours to remove');

    write({ ...ours, mounts: ours.mounts!.slice(0, 1) });
    await assert.rejects(openBundle({ ...request, given, spec: saved }), refused(/lacks mounts that the checkpoint has: \/data \(bind\)/));
    write({ ...ours, annotations: { 'org.criu.config': '/x' } });
    await assert.rejects(openBundle({ ...request, given, spec: saved }), refused(/org\.criu\.config/));
    writeFileSync(join(given, 'config.json'), '{"root":{"path":7}}');
    await assert.rejects(openBundle({ ...request, given, spec: saved }), refused(/root\.path has the wrong type/));
    await assert.rejects(openBundle({ ...request, given: join(base, 'none'), spec: saved }), refused(/cannot be used/));
  });

  it('never deletes through a mount', async () => {
    const bundle = await openBundle(request);
    mkdirSync(join(base, 'precious'));
    writeFileSync(join(base, 'precious', 'file'), '');
    mkdirSync(join(bundle.directory, 'extra'));
    execFileSync('mount', ['--bind', join(base, 'precious'), join(bundle.directory, 'extra')]);
    await bundle.remove();
    assert.ok(existsSync(join(base, 'precious', 'file')));
  });
});

describe('cgroupsPathFor', () => {
  it('stays beside the old one unless that is somebody else\'s', () => {
    assert.equal(cgroupsPathFor('/old', 'new'), '/new');
    assert.equal(cgroupsPathFor('/a/new', 'new'), '/a/new');
    for (const managed of ['system.slice:libpod:abc', '/kubepods/pod1/abc', '/libpod_parent/libpod-abc', '/machine.slice/x', '/k8s.io/abc', undefined, '']) {
      assert.equal(cgroupsPathFor(managed, 'new'), '/stasis/new');
    }
  });
});
