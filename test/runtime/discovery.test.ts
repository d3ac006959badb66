/** Finding containers: those that run, those that do not, and directories that only look like containers. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { isStasisError } from '../../src/core/errors.ts';
import { Freezer } from '../../src/host/cgroup.ts';
import { examine, expandRoots, findContainer, listContainers, type RuntimeRoot } from '../../src/runtime/index.ts';
import { counterArgs, rootOf, roots, startContainer, toolchain, type TestContainer } from '../support/containers.ts';

const options = { signal: undefined };
const code = (wanted: string) => (error: unknown): boolean => isStasisError(error) && error.code === wanted && error.hint !== undefined;

describe('discovery of real containers', () => {
  const containers: TestContainer[] = [];
  before(async () => {
    for (const runtime of ['runc', 'crun'] as const) containers.push(await startContainer({ runtime, id: `find-${runtime}-1`, args: counterArgs }));
  });
  after(async () => {
    for (const container of containers) await container.stop();
  });

  for (const runtime of ['runc', 'crun'] as const) {
    it(`tells all about one of ${runtime}`, async () => {
      const id = `find-${runtime}-1`;
      const { containers: all, skipped } = await listContainers(roots, options);
      assert.deepEqual(skipped, []);
      const found = all.find((container) => container.id === id)!;
      const started = containers.find((container) => container.id === id)!;
      assert.equal(found.status, 'running');
      assert.equal(found.pid, started.pid);
      assert.equal(found.bundle, started.bundle);
      assert.deepEqual(found.at, rootOf(runtime));
      assert.equal(found.manager, 'plain');
      assert.equal(found.name, id);
      assert.ok(Math.abs(found.createdMs - Date.parse(new Date().toISOString())) < 600_000);
      assert.deepEqual(found.spec.process?.args, counterArgs);
      assert.deepEqual(found.rootfs, { kind: 'overlay', merged: join(started.bundle, 'rootfs'), lower: ['/'], upper: `/srv/${id}/upper`, work: `/srv/${id}/work`, options: found.rootfs.kind === 'overlay' ? found.rootfs.options : [] });
      assert.match(found.freezer?.directory ?? '', new RegExp(`/${id}$`));
      assert.ok(new Freezer(found.freezer!).pids().includes(found.pid));
    });
  }

  it('finds by id, by a unique beginning, and says when several fit', async () => {
    assert.equal((await findContainer(roots, 'find-runc-1', options)).id, 'find-runc-1');
    assert.equal((await findContainer(roots, 'find-c', options)).id, 'find-crun-1');
    await assert.rejects(findContainer(roots, 'find-', options), code('USAGE'));
    for (const query of ['nobody', '', '../../etc', 'a b', '\u001b[31m', 'x'.repeat(1000)]) await assert.rejects(findContainer(roots, query, options), code('CONTAINER_NOT_FOUND'));
  });

  it('sees a pause, and examines what is paused', async () => {
    const freezer = new Freezer((await findContainer(roots, 'find-runc-1', options)).freezer!);
    await freezer.freezeSettled({ signal: undefined, timeoutMs: 5000 });
    try {
      const paused = await findContainer(roots, 'find-runc-1', options);
      assert.equal(paused.status, 'paused');
      const verdict = await examine(paused, await toolchain(), { leaveRunning: true, tcpEstablished: false, fileLocks: false, extUnixSk: false, shellJob: false }, options);
      assert.deepEqual(verdict.findings, []);
    } finally {
      freezer.thaw();
    }
    assert.equal((await findContainer(roots, 'find-runc-1', options)).status, 'running');
  });

  it('sees that one has died', async () => {
    const container = containers.find(({ id }) => id === 'find-crun-1')!;
    process.kill(container.pid, 'SIGKILL');
    for (let tries = 0; tries < 100; tries++) {
      if ((await findContainer(roots, container.id, options)).status === 'stopped') break;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const dead = await findContainer(roots, container.id, options);
    assert.deepEqual({ status: dead.status, pid: dead.pid, start: dead.pidStart, freezer: dead.freezer, rootfs: dead.rootfs.kind }, { status: 'stopped', pid: 0, start: 0, freezer: undefined, rootfs: 'plain' });
  });
});

describe('discovery of made-up state', () => {
  let base: string;
  let at: RuntimeRoot;
  const spec = { ociVersion: '1.2.0', root: { path: 'rootfs' }, annotations: {} };

  before(() => {
    base = mkdtempSync(join(tmpdir(), 'state-'));
    at = { runtime: 'runc', binary: 'runc', root: join(base, 'runc/default') };
  });
  after(() => rmSync(base, { recursive: true }));

  function bundle(name: string, content: unknown): string {
    const directory = join(base, 'bundles', name);
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, 'config.json'), typeof content === 'string' ? content : JSON.stringify(content));
    return directory;
  }

  function runc(id: string, content: unknown, root = at.root): void {
    mkdirSync(join(root, id), { recursive: true });
    writeFileSync(join(root, id, 'state.json'), typeof content === 'string' ? content : JSON.stringify(content));
  }

  const state = (directory: string) => ({ init_process_pid: 1, init_process_start: 1, created: '2026-01-01T00:00:00Z', config: { labels: [`bundle=${directory}`] } });

  it('skips what is broken and says why', async () => {
    runc('good', state(bundle('good', spec)));
    runc('torn', '{"init_process');
    runc('empty', '{}');
    runc('list', '[]');
    runc('relative', state('relative/path'));
    runc('nobundle', state('/gone'));
    runc('badspec', state(bundle('badspec', { root: { path: 7 } })));
    runc('na me', state('/x'));
    runc('esc\u001b[31m', state('/x'));
    mkdirSync(join(at.root, 'nothing'));
    mkdirSync(join(at.root, '.cache'));
    writeFileSync(join(at.root, 'a-file'), '');
    const { containers, skipped } = await listContainers([at], options);
    assert.deepEqual(containers.map(({ id, status, pid }) => ({ id, status, pid })), [{ id: 'good', status: 'stopped', pid: 0 }], 'pid 1 has another start time');
    const reasons = new Map(skipped.map(({ path, reason }) => [path.slice(at.root.length + 1), reason]));
    assert.deepEqual([...reasons.keys()].sort(), ['badspec', 'empty', 'esc?[31m', 'list', 'na me', 'nobundle', 'nothing', 'relative', 'torn']);
    assert.match(reasons.get('badspec') ?? '', /root\.path has the wrong type/);
    assert.match(reasons.get('nobundle') ?? '', /config\.json of bundle \/gone/);
    assert.match(reasons.get('nothing') ?? '', /neither state\.json nor status/);
    for (const reason of reasons.values()) assert.ok(reason.length > 5);
    await assert.rejects(findContainer([at], 'torn', options), code('RUNTIME_FAILED'));
  });

  it('knows containerd, podman and Kubernetes by their marks, and cleans names', async () => {
    const root = join(base, 'runc/k8s.io');
    const kubernetes = { 'io.kubernetes.cri.container-type': 'container', 'io.kubernetes.cri.container-name': 'web\u001b[2J', 'io.kubernetes.cri.sandbox-name': 'pod-7', 'io.kubernetes.cri.sandbox-namespace': 'shop' };
    runc('k1', state(bundle('k1', { ...spec, annotations: kubernetes })), root);
    runc('k2', state(bundle('k2', { ...spec, annotations: { ...kubernetes, 'io.kubernetes.cri.sandbox-name': 'pod-8' } })), root);
    const podman = join(base, 'storage/overlay-containers/p1/userdata');
    mkdirSync(podman, { recursive: true });
    writeFileSync(join(podman, 'config.json'), JSON.stringify({ ...spec, annotations: { 'io.container.manager': 'libpod' } }));
    writeFileSync(join(base, 'storage/overlay-containers/containers.json'), JSON.stringify([{ id: 'p1', names: ['happy'] }]));
    mkdirSync(join(root, 'p1'), { recursive: true });
    writeFileSync(join(root, 'p1', 'status'), JSON.stringify({ pid: 1, 'process-start-time': 1, bundle: podman, created: '2026-01-01T00:00:00Z', 'cgroup-path': '/x' }));
    const pattern: RuntimeRoot = { runtime: 'runc', binary: 'runc', root: join(base, 'runc/*') };
    assert.deepEqual((await expandRoots([pattern, { ...pattern, root: '/nowhere/*' }])).map((entry) => entry.root), [join(base, 'runc/default'), root]);
    const { containers } = await listContainers([pattern, rootOf('crun')], options);
    assert.deepEqual(containers.filter(({ id }) => /^[kp]\d$/.test(id)).map(({ id, name, manager, at: { runtime } }) => ({ id, name, manager, runtime })), [
      { id: 'k1', name: 'web?[2J', manager: 'containerd', runtime: 'runc' },
      { id: 'k2', name: 'web?[2J', manager: 'containerd', runtime: 'runc' },
      { id: 'p1', name: 'happy', manager: 'podman', runtime: 'crun' },
    ]);
    assert.equal((await findContainer([pattern], 'happy', options)).id, 'p1');
    assert.equal((await findContainer([pattern], 'shop/pod-8/web?[2J', options)).id, 'k2');
    await assert.rejects(findContainer([pattern], 'web?[2J', options), code('USAGE'));
  });

  it('finds nothing where there is nothing', async () => {
    assert.deepEqual(await listContainers([{ ...at, root: '/nowhere' }], options), { containers: [], skipped: [] });
  });
});
